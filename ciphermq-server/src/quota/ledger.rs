//! What each sender holds of the store.

use std::collections::HashMap;

use ciphermq_protocol::ClientId;
use parking_lot::Mutex;

use super::share::is_above_share;
use super::{Excess, Quota, Quotas, Room, Rooms};
use crate::model::{Held, HeldBySender, Made, Time};

/// The limits of all clients, and what each sender holds.
///
/// It begins with what the store counts at the start, and follows its commits, in their order.
#[derive(Debug, Default)]
pub struct Ledger {
    quotas: Quotas,
    senders: Mutex<Senders>,
}

#[derive(Debug, Default)]
struct Senders {
    /// Senders that hold nothing have no entry.
    held: HashMap<ClientId, Held>,
    /// The bytes that all of them have stored.
    stored: i64,
    /// The number of those that have stored any.
    storing: u64,
}

impl Ledger {
    /// Creates a ledger of what the store holds.
    #[must_use]
    pub fn new(quotas: Quotas, held: HeldBySender) -> Self {
        let ledger = Self {
            quotas,
            senders: Mutex::default(),
        };
        ledger.apply(&held);
        ledger
    }

    /// Returns the limits of all clients.
    #[must_use]
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Returns what a sender holds.
    #[must_use]
    pub fn held(&self, sender: &ClientId) -> Held {
        let senders = self.senders.lock();
        senders.held.get(sender).copied().unwrap_or_default()
    }

    /// Returns all senders that hold anything.
    #[must_use]
    pub fn senders(&self) -> Vec<ClientId> {
        self.senders.lock().held.keys().cloned().collect()
    }

    /// Applies the effects of a commit.
    pub fn apply(&self, changes: &HeldBySender) {
        if changes.is_empty() {
            return;
        }
        let mut senders = self.senders.lock();
        for (sender, change) in changes.iter() {
            senders.apply(sender, *change);
        }
    }

    /// Returns the room of the clients that a commit concerns: the senders of its messages, and
    /// those who make something, with what they have made. `is_short`: whether the disk is.
    pub(crate) fn rooms<'a>(
        &self,
        senders: impl IntoIterator<Item = &'a ClientId>,
        makers: impl IntoIterator<Item = (&'a ClientId, Made)>,
        is_short: bool,
    ) -> Rooms {
        let mut rooms = Rooms::default();
        let held = self.senders.lock();
        for sender in senders {
            rooms.get_or_insert_with(sender, || {
                let limits = self.quotas.of(sender);
                let of = held.held.get(sender).copied().unwrap_or_default();
                let left = |quota: Quota| Room::left(quota.limit(limits), of.of(quota));
                let beyond = |quota: &Quota| left(*quota) == 0;
                let mut rejected = [Quota::RejectedMessages, Quota::RejectedBytes].into_iter();
                Room {
                    messages: left(Quota::WaitingMessages),
                    bytes: left(Quota::WaitingBytes),
                    refuses: match rejected.find(beyond) {
                        Some(quota) => Some(Excess::Quota(quota)),
                        None if is_short && held.is_above_share(of) => Some(Excess::DiskShare),
                        None => None,
                    },
                    ..Room::default()
                }
            });
        }
        drop(held);
        for (maker, made) in makers {
            let limits = self.quotas.of(maker);
            let left = |quota: Quota| Room::left(quota.limit(limits), made.of(quota));
            let room = rooms.get_or_insert_with(maker, Room::default);
            room.queues = left(Quota::Queues);
            room.exchanges = left(Quota::Exchanges);
            room.bindings = left(Quota::Bindings);
        }
        rooms
    }

    /// Returns the senders that have rejected messages, each with the time before which they are
    /// not kept.
    #[must_use]
    pub fn rejected_before(&self, now: Time) -> Vec<(ClientId, Time)> {
        let senders = self.senders.lock();
        let rejected = senders
            .held
            .iter()
            .filter(|(_, held)| held.rejected_messages > 0);
        rejected
            .filter_map(|(sender, _)| {
                let age = self.quotas.of(sender).rejected_age?;
                Some((sender.clone(), now.before(age)?))
            })
            .collect()
    }
}

impl Senders {
    fn apply(&mut self, sender: &ClientId, change: Held) {
        let held = match self.held.get_mut(sender) {
            Some(held) => held,
            None => self.held.entry(sender.clone()).or_default(),
        };
        let before = held.stored_bytes();
        *held += change;
        let after = held.stored_bytes();
        if *held == Held::default() {
            self.held.remove(sender);
        }
        self.stored += after - before;
        match (before > 0, after > 0) {
            (false, true) => self.storing += 1,
            (true, false) => self.storing = self.storing.saturating_sub(1),
            _ => {}
        }
    }

    fn is_above_share(&self, of: Held) -> bool {
        let number = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
        is_above_share(number(of.stored_bytes()), number(self.stored), self.storing)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::ClientLimits;

    fn client(number: u8) -> ClientId {
        ClientId::new(&format!("c{number}")).unwrap()
    }

    fn ledger(limits: ClientLimits) -> Ledger {
        let quotas = Quotas {
            default: Arc::new(limits),
            entries: Vec::new(),
        };
        Ledger::new(quotas, HeldBySender::default())
    }

    fn of(number: u8, held: Held) -> HeldBySender {
        let mut changes = HeldBySender::default();
        changes.add(client(number).as_str(), held);
        changes
    }

    #[test]
    fn beyond_the_rejected_ones_nothing_is_taken() {
        let ledger = ledger(ClientLimits {
            rejected_messages: 2,
            rejected_age: Some(Duration::from_secs(10)),
            ..ClientLimits::default()
        });
        let rejected = |count| Held {
            rejected_messages: count,
            ..Held::default()
        };
        ledger.apply(&of(1, rejected(1)));
        let take = || {
            let mut rooms = ledger.rooms([&client(1)], [], false);
            rooms.take_message(&client(1), 1)
        };
        assert_eq!(take(), Ok(()));
        let now = "2025-09-08T07:03:00Z".parse::<jiff::Timestamp>().unwrap();
        let before = "2025-09-08T07:02:50Z".parse::<jiff::Timestamp>().unwrap();
        assert_eq!(
            ledger.rejected_before(now.into()),
            [(client(1), before.into())]
        );
        ledger.apply(&of(1, rejected(1)));
        assert_eq!(take(), Err(Excess::Quota(Quota::RejectedMessages)));
        ledger.apply(&of(1, rejected(-2)));
        assert_eq!(take(), Ok(()));
        assert!(ledger.rejected_before(now.into()).is_empty());
        assert!(ledger.senders().is_empty());
    }

    #[test]
    fn when_the_disk_is_short_who_holds_most_waits() {
        let ledger = ledger(ClientLimits::default());
        let waiting = |bytes| Held {
            waiting_messages: 1,
            waiting_bytes: bytes,
            ..Held::default()
        };
        ledger.apply(&of(1, waiting(100)));
        ledger.apply(&of(2, waiting(10)));
        let take = |number, is_short| {
            let mut rooms = ledger.rooms([&client(number)], [], is_short);
            rooms.take_message(&client(number), 1)
        };
        assert_eq!(take(1, false), Ok(()));
        assert_eq!(take(1, true), Err(Excess::DiskShare));
        assert_eq!(take(2, true), Ok(()));
        assert_eq!(take(3, true), Ok(()), "one that stores nothing");
        ledger.apply(&of(1, waiting(-95)));
        assert_eq!(take(1, true), Ok(()));
        assert_eq!(take(2, true), Err(Excess::DiskShare));
    }

    #[test]
    fn what_was_made_leaves_room_for_the_rest() {
        let ledger = ledger(ClientLimits {
            queues: 5,
            exchanges: 0,
            bindings: 1,
            ..ClientLimits::default()
        });
        let made = Made {
            queues: 4,
            exchanges: 100,
            bindings: 2,
        };
        let maker = client(1);
        let mut rooms = ledger.rooms([], [(&maker, made)], false);
        assert_eq!(rooms.take_queue(&maker), Ok(()));
        assert_eq!(rooms.take_queue(&maker), Err(Quota::Queues));
        assert_eq!(rooms.take_exchange(&maker), Ok(()));
        assert_eq!(rooms.take_binding(&maker), Err(Quota::Bindings));
    }

    proptest! {
        /// Whatever is stored and removed, the sums are those of the senders, and whoever holds
        /// nothing is forgotten.
        #[test]
        fn the_sums_follow(changes in prop::collection::vec((0u8..4, 0i64..100, 0i64..9), 0..200)) {
            let ledger = ledger(ClientLimits::default());
            let mut expected: HashMap<ClientId, Held> = HashMap::new();
            for (number, bytes, rejected) in changes {
                let held = expected.entry(client(number)).or_default();
                // Every second change removes everything.
                let change = match held.waiting_messages {
                    0 => Held {
                        waiting_messages: 1,
                        waiting_bytes: bytes,
                        rejected_messages: 1,
                        rejected_bytes: rejected,
                    },
                    _ => Held {
                        waiting_messages: -held.waiting_messages,
                        waiting_bytes: -held.waiting_bytes,
                        rejected_messages: -held.rejected_messages,
                        rejected_bytes: -held.rejected_bytes,
                    },
                };
                *held += change;
                ledger.apply(&of(number, change));
            }
            expected.retain(|_, held| *held != Held::default());
            let senders = ledger.senders.lock();
            let stored = expected.values().map(Held::stored_bytes);
            prop_assert_eq!(senders.stored, stored.clone().sum::<i64>());
            prop_assert_eq!(senders.storing, stored.filter(|bytes| *bytes > 0).count() as u64);
            prop_assert_eq!(&senders.held, &expected);
        }
    }
}
