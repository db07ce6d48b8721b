//! The pool of handshakes, without I/O.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::source::Source;

/// The handshakes in progress, each with a value that ends it.
///
/// A new handshake is never refused. When an address holds too many, its oldest gives way; when all
/// together are too many, the oldest of the address that holds most does. So an address that opens
/// connections and leaves them idle takes nothing from others.
#[derive(Debug)]
pub(super) struct Handshakes<T> {
    max: usize,
    max_per_source: usize,
    next: u64,
    total: usize,
    by_source: HashMap<Source, BTreeMap<u64, T>>,
    /// Every source with the number of its handshakes and its oldest one. The last is the one that
    /// gives way: of those that hold most, the one whose oldest handshake is oldest.
    order: BTreeSet<(usize, Reverse<u64>, Source)>,
}

impl<T> Handshakes<T> {
    pub(super) fn new(max: usize, max_per_source: usize) -> Self {
        Self {
            max,
            max_per_source,
            next: 0,
            total: 0,
            by_source: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// Adds a handshake. Returns its number, and the value of one that has to give way.
    pub(super) fn begin(&mut self, source: Source, value: T) -> (u64, Option<T>) {
        let number = self.next;
        self.next += 1;
        self.total += 1;
        let held = self.change(source, |held| {
            held.insert(number, value);
            held.len()
        });
        let gives_way = if held > self.max_per_source {
            self.remove_oldest(source)
        } else if self.total > self.max {
            self.give_way()
        } else {
            None
        };
        (number, gives_way)
    }

    /// Removes a handshake, unless it has given way.
    pub(super) fn end(&mut self, source: Source, number: u64) {
        let removed = self.change(source, |held| held.remove(&number));
        self.total -= usize::from(removed.is_some());
    }

    /// Removes the oldest handshake of the source that holds most, and returns its value.
    pub(super) fn give_way(&mut self) -> Option<T> {
        let &(_, _, source) = self.order.last()?;
        self.remove_oldest(source)
    }

    fn remove_oldest(&mut self, source: Source) -> Option<T> {
        let (_, value) = self.change(source, BTreeMap::pop_first)?;
        self.total -= 1;
        Some(value)
    }

    /// Changes what a source holds, and its place in the order.
    fn change<R>(&mut self, source: Source, change: impl FnOnce(&mut BTreeMap<u64, T>) -> R) -> R {
        let place = |held: &BTreeMap<u64, T>| {
            let (&oldest, _) = held.first_key_value()?;
            Some((held.len(), Reverse(oldest), source))
        };
        let held = self.by_source.entry(source).or_default();
        let before = place(held);
        let result = change(held);
        let after = place(held);
        if after.is_none() {
            self.by_source.remove(&source);
        }
        if before != after {
            if let Some(before) = before {
                self.order.remove(&before);
            }
            self.order.extend(after);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)).into()
    }

    #[test]
    fn the_oldest_of_the_address_that_holds_most_gives_way() {
        let mut pool = Handshakes::new(4, 3);
        assert_eq!(pool.begin(source(1), "first of 1").1, None);
        assert_eq!(pool.begin(source(2), "first of 2").1, None);
        assert_eq!(pool.begin(source(2), "second of 2").1, None);
        assert_eq!(pool.begin(source(2), "third of 2").1, None);
        // The address itself holds too many.
        assert_eq!(pool.begin(source(2), "fourth of 2").1, Some("first of 2"));
        // All together are too many.
        assert_eq!(pool.begin(source(3), "first of 3").1, Some("second of 2"));
        assert_eq!(pool.begin(source(4), "first of 4").1, Some("third of 2"));
        // All hold the same: then the oldest of all.
        assert_eq!(pool.begin(source(5), "first of 5").1, Some("first of 1"));
    }

    proptest! {
        /// Compares with a list that is searched from end to end.
        #[test]
        fn it_agrees_with_a_list(
            max in 1_usize..12,
            per_source in 1_usize..6,
            steps in prop::collection::vec((0_u8..5, any::<prop::sample::Index>(), 0_u8..4), 0..80),
        ) {
            let mut pool = Handshakes::new(max, per_source);
            let mut list: Vec<(Source, u64)> = Vec::new();
            for (address, choice, act) in steps {
                if act == 0 && !list.is_empty() {
                    let (source, number) = list.remove(choice.index(list.len()));
                    pool.end(source, number);
                    // Ending twice changes nothing.
                    pool.end(source, number);
                    continue;
                }
                let new = source(address);
                let (number, gives_way) = pool.begin(new, pool.next);
                list.push((new, number));
                let count = |source| list.iter().filter(|(other, _)| *other == source).count();
                let expected = if count(new) > per_source {
                    list.iter().position(|(source, _)| *source == new)
                } else if list.len() > max {
                    let most = list.iter().map(|(source, _)| count(*source)).max().unwrap();
                    list.iter().position(|(source, _)| count(*source) == most)
                } else {
                    None
                };
                let expected = expected.map(|at| list.remove(at).1);
                prop_assert_eq!(gives_way, expected);
                prop_assert_eq!(pool.total, list.len());
                prop_assert!(list.len() <= max);
            }
            for (source, number) in list {
                pool.end(source, number);
            }
            prop_assert!(pool.by_source.is_empty() && pool.order.is_empty());
            prop_assert_eq!(pool.total, 0);
        }
    }
}
