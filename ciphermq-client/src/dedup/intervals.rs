//! Sets of positions that are mostly contiguous.

use std::collections::BTreeMap;

/// A set of numbers, stored as intervals: its size depends on its gaps, not on its members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intervals {
    /// The first and the last member of every interval. Intervals neither overlap nor touch.
    ends: BTreeMap<u64, u64>,
}

impl Intervals {
    /// Whether `position` is a member.
    #[must_use]
    pub fn contains(&self, position: u64) -> bool {
        self.ends
            .range(..=position)
            .next_back()
            .is_some_and(|(_, &last)| position <= last)
    }

    /// Adds `position`; returns whether it is new.
    pub fn insert(&mut self, position: u64) -> bool {
        let before = self
            .ends
            .range(..=position)
            .next_back()
            .map(|(&first, &last)| (first, last));
        if before.is_some_and(|(_, last)| position <= last) {
            return false;
        }
        let start = match before {
            Some((first, last)) if last.checked_add(1) == Some(position) => first,
            _ => position,
        };
        let end = position
            .checked_add(1)
            .and_then(|next| self.ends.remove(&next))
            .unwrap_or(position);
        self.ends.insert(start, end);
        true
    }

    /// Adds all numbers from `first` to `last`, both included; none if `last` is less.
    pub fn insert_range(&mut self, first: u64, last: u64) {
        if last < first {
            return;
        }
        let (mut start, mut end) = (first, last);
        // Overlapping and touching intervals are merged.
        while let Some((other_first, other_last)) = self
            .ends
            .range(..=end.saturating_add(1))
            .next_back()
            .map(|(&first, &last)| (first, last))
            .filter(|&(_, last)| last.saturating_add(1) >= start)
        {
            self.ends.remove(&other_first);
            start = start.min(other_first);
            end = end.max(other_last);
        }
        self.ends.insert(start, end);
    }

    /// Returns the first number from `start` on that is not a member; `None` if there is none.
    #[must_use]
    pub fn first_gap(&self, start: u64) -> Option<u64> {
        match self.ends.range(..=start).next_back() {
            Some((_, &last)) if last >= start => last.checked_add(1),
            _ => Some(start),
        }
    }

    /// Removes all members below `end`.
    pub fn forget_below(&mut self, end: u64) {
        let rest = self.ends.split_off(&end);
        let cut = self
            .ends
            .last_key_value()
            .and_then(|(_, &last)| (last >= end).then_some((end, last)));
        self.ends = rest;
        self.ends.extend(cut);
    }

    /// Returns the members of this set that are not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for (first, last) in self.iter() {
            let mut start = Some(first);
            let reaching_in = other.ends.range(..first).next_back();
            let within = other.ends.range(first..=last);
            for (&taken_first, &taken_last) in reaching_in.into_iter().chain(within) {
                let Some(from) = start.filter(|&from| taken_last >= from) else {
                    continue;
                };
                if taken_first > from {
                    rest.insert_range(from, taken_first - 1);
                }
                start = taken_last.checked_add(1);
            }
            if let Some(from) = start {
                rest.insert_range(from, last);
            }
        }
        rest
    }

    /// Returns the members of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.minus(&self.minus(other))
    }

    /// Returns the numbers from 0 to the greatest member that are not members.
    #[must_use]
    pub fn missing(&self) -> Self {
        let mut all = Self::default();
        if let Some((_, &last)) = self.ends.last_key_value() {
            all.insert_range(0, last);
        }
        all.minus(self)
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the number of members, at most `u64::MAX`.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ends.iter().fold(0, |sum: u64, (first, last)| {
            sum.saturating_add((last - first).saturating_add(1))
        })
    }

    /// Returns every interval, as its first and last member, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ends.iter().map(|(&first, &last)| (first, last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_extreme_numbers_can_be_members() {
        let mut set = Intervals::default();
        assert!(
            set.insert(u64::MAX)
                && set.insert(0)
                && set.insert(u64::MAX - 1)
                && !set.insert(u64::MAX)
        );
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [(0, 0), (u64::MAX - 1, u64::MAX)]
        );
    }

    #[test]
    fn ranges_reach_the_ends_of_the_numbers() {
        let mut set = Intervals::default();
        set.insert_range(u64::MAX - 1, u64::MAX);
        set.insert_range(0, u64::MAX - 2);
        set.insert_range(5, 4);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(0, u64::MAX)]);
        assert_eq!((set.first_gap(3), set.count()), (None, u64::MAX));
        let mut last = Intervals::default();
        last.insert(u64::MAX);
        assert_eq!(
            set.minus(&last).iter().collect::<Vec<_>>(),
            [(0, u64::MAX - 1)]
        );
        assert_eq!(set.minus(&set), Intervals::default());
        set.forget_below(u64::MAX);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(u64::MAX, u64::MAX)]);
    }

    proptest! {
        #[test]
        fn inserting_a_range_equals_inserting_its_members(
            ranges in proptest::collection::vec((0u64..60, 0u64..60), 0..20),
            start in 0u64..62,
        ) {
            let (mut intervals, mut singles) = (Intervals::default(), Intervals::default());
            for (first, last) in ranges {
                intervals.insert_range(first, last);
                for position in first..=last {
                    singles.insert(position);
                }
            }
            prop_assert_eq!(&intervals, &singles);
            let gap = (start..).find(|&position| !singles.contains(position));
            prop_assert_eq!(intervals.first_gap(start), gap);
            prop_assert_eq!(intervals.count(), (0..62).filter(|&position| singles.contains(position)).count() as u64);
            let mut rest = intervals.clone();
            rest.forget_below(start);
            for position in 0..62 {
                prop_assert_eq!(rest.contains(position), position >= start && singles.contains(position));
            }
        }

        #[test]
        fn set_operations_agree_with_a_reference(
            ours in proptest::collection::btree_set(0u64..40, 0..40),
            theirs in proptest::collection::btree_set(0u64..40, 0..40),
        ) {
            let set = |members: &BTreeSet<u64>| {
                let mut set = Intervals::default();
                members.iter().for_each(|&position| { set.insert(position); });
                set
            };
            let (a, b) = (set(&ours), set(&theirs));
            prop_assert_eq!(a.minus(&b), set(&ours.difference(&theirs).copied().collect()));
            prop_assert_eq!(a.intersection(&b), set(&ours.intersection(&theirs).copied().collect()));
            let end = ours.last().map_or(0, |last| last + 1);
            prop_assert_eq!(a.missing(), set(&(0..end).filter(|position| !ours.contains(position)).collect()));
            prop_assert_eq!(a.missing().is_empty(), ours.len() as u64 == end);
        }

        #[test]
        fn is_a_set_and_its_intervals_never_touch(positions in proptest::collection::vec(0u64..60, 0..80)) {
            let mut intervals = Intervals::default();
            let mut set = BTreeSet::new();
            for position in positions {
                prop_assert_eq!(intervals.insert(position), set.insert(position));
            }
            for position in 0..62 {
                prop_assert_eq!(intervals.contains(position), set.contains(&position));
            }
            let ends: Vec<_> = intervals.iter().collect();
            prop_assert!(ends.iter().all(|(first, last)| first <= last));
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
