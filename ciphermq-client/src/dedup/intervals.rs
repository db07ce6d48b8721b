//! Sets of positions that are mostly without gaps.

use std::collections::BTreeMap;

/// A set of numbers, kept as intervals: its size is that of its gaps, not of its members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intervals {
    /// First and last member of every interval. They neither overlap nor touch.
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

    /// Makes `position` a member; whether it was none before.
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

    /// Every interval, first and last member, in order.
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
    fn the_ends_of_the_numbers_are_members_like_others() {
        let mut set = Intervals::default();
        assert!(set.insert(u64::MAX) && set.insert(0) && set.insert(u64::MAX - 1) && !set.insert(u64::MAX));
        assert_eq!(set.iter().collect::<Vec<_>>(), [(0, 0), (u64::MAX - 1, u64::MAX)]);
    }

    proptest! {
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
