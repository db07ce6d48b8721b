//! A queue in which parties take turns: deficit round robin.
//!
//! Source: M. Shreedhar and G. Varghese, "Efficient fair queuing using deficit round robin",
//! SIGCOMM 1995.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Items that wait, each party's in order, and the parties in turns.
///
/// In each turn a party may spend a quantum, and what its earlier turns have left over. So parties
/// that always have items waiting get the same amount of work done, however large and however many
/// their items are. An empty queue holds no memory for a party.
#[derive(Debug)]
pub(super) struct FairQueue<P, T> {
    quantum: u64,
    parties: HashMap<P, Party<T>>,
    /// The parties that have items, the one whose turn it is first.
    turns: VecDeque<P>,
}

#[derive(Debug)]
struct Party<T> {
    /// Items with their costs.
    waiting: VecDeque<(u64, T)>,
    /// The cost that it may still spend.
    deficit: u64,
    /// Whether its turn has begun.
    has_begun: bool,
}

impl<P: Clone + Eq + Hash, T> FairQueue<P, T> {
    /// Creates an empty queue. The quantum is in the unit of the costs, and at least 1.
    pub(super) fn new(quantum: u64) -> Self {
        Self {
            quantum: quantum.max(1),
            parties: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Whether no item waits.
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Returns the number of parties that have items.
    pub(super) fn parties(&self) -> usize {
        self.parties.len()
    }

    /// Appends an item of a party.
    pub(super) fn push(&mut self, party: P, cost: u64, item: T) {
        if let Some(party) = self.parties.get_mut(&party) {
            party.waiting.push_back((cost, item));
            return;
        }
        self.turns.push_back(party.clone());
        self.parties.insert(
            party,
            Party {
                waiting: VecDeque::from([(cost, item)]),
                deficit: 0,
                has_begun: false,
            },
        );
    }

    /// Takes the next item.
    pub(super) fn pop(&mut self) -> Option<T> {
        loop {
            let name = self.turns.front()?;
            let Some(party) = self.parties.get_mut(name) else {
                self.turns.pop_front();
                continue;
            };
            if !std::mem::replace(&mut party.has_begun, true) {
                party.deficit = party.deficit.saturating_add(self.quantum);
            }
            match party.waiting.front() {
                Some((cost, _)) if *cost <= party.deficit => {
                    party.deficit -= cost;
                    let item = party.waiting.pop_front().map(|(_, item)| item);
                    // Otherwise a party without items would save up for later.
                    if party.waiting.is_empty() {
                        self.parties.remove(name);
                        self.turns.pop_front();
                    }
                    return item;
                }
                Some(_) => {
                    party.has_begun = false;
                    self.turns.rotate_left(1);
                }
                None => {
                    self.parties.remove(name);
                    self.turns.pop_front();
                }
            }
        }
    }

    /// Iterates over all items, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.parties
            .values()
            .flat_map(|party| party.waiting.iter().map(|(_, item)| item))
    }

    /// Keeps the items of which `keep` says so.
    pub(super) fn retain_mut(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        self.parties.retain(|_, party| {
            party.waiting.retain_mut(|(_, item)| keep(item));
            !party.waiting.is_empty()
        });
        let parties = &self.parties;
        self.turns.retain(|party| parties.contains_key(party));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_single_party_is_served_in_order() {
        let mut queue = FairQueue::new(10);
        for (cost, item) in [(1, 'a'), (50, 'b'), (0, 'c')] {
            queue.push("party", cost, item);
        }
        let served: Vec<char> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(served, ['a', 'b', 'c']);
        assert!(queue.is_empty() && queue.parties.is_empty());
    }

    #[test]
    fn a_small_item_does_not_wait_for_all_of_a_busy_party() {
        let mut queue = FairQueue::new(10);
        for number in 0..100 {
            queue.push("busy", 10, number);
        }
        assert_eq!(queue.pop(), Some(0));
        queue.push("quiet", 1, 1000);
        assert_eq!([queue.pop(), queue.pop()], [Some(1000), Some(1)]);
    }

    #[test]
    fn a_party_that_was_away_has_saved_up_nothing() {
        let mut queue = FairQueue::new(10);
        for _ in 0..20 {
            queue.push("visitor", 1, 'v');
            queue.pop();
        }
        for _ in 0..20 {
            queue.push("visitor", 10, 'v');
            queue.push("other", 10, 'o');
        }
        let served: String = (0..6).filter_map(|_| queue.pop()).collect();
        assert_eq!(served, "vovovo");
    }

    #[test]
    fn items_that_are_not_kept_take_their_party_along() {
        let mut queue = FairQueue::new(10);
        queue.push("a", 1, 1);
        queue.push("b", 1, 2);
        queue.push("b", 1, 3);
        queue.retain_mut(|item| *item == 3);
        assert_eq!(queue.iter().copied().collect::<Vec<i32>>(), [3]);
        assert_eq!(queue.turns, ["b"]);
        assert_eq!([queue.pop(), queue.pop()], [Some(3), None]);
    }

    proptest! {
        #[test]
        fn busy_parties_get_equal_work(
            costs in proptest::collection::vec(
                proptest::collection::vec(0_u64..300, 40..60), 2..6),
            quantum in 1_u64..200,
        ) {
            let mut queue = FairQueue::new(quantum);
            for (party, costs) in costs.iter().enumerate() {
                for (number, cost) in costs.iter().enumerate() {
                    queue.push(party, *cost, (party, number, *cost));
                }
            }
            let mut spent = vec![0_u64; costs.len()];
            let mut next = vec![0_usize; costs.len()];
            let mut all_busy = true;
            let mut served = 0;
            while let Some((party, number, cost)) = queue.pop() {
                prop_assert_eq!(number, next[party], "each party's items keep their order");
                next[party] += 1;
                spent[party] += cost;
                served += 1;
                all_busy &= next[party] < costs[party].len();
                if all_busy {
                    let (least, most) = (spent.iter().min().unwrap(), spent.iter().max().unwrap());
                    // A turn, what was left over before it, and the same for the other one.
                    prop_assert!(most - least <= 2 * (quantum + 300), "{spent:?}");
                }
            }
            prop_assert_eq!(served, costs.iter().map(Vec::len).sum::<usize>());
        }
    }
}
