//! What each sender holds of the store.

use std::collections::HashMap;
use std::sync::Arc;

use ciphermq_protocol::ClientId;
use parking_lot::{Mutex, RwLock};

use super::rejections::Rejections;
use super::share::is_above_share;
use super::{Excess, Quota, Quotas, Room, Rooms};
use crate::model::{Held, HeldBySender, Made, SenderHeld, Time};

/// The limits of all clients, and what each sender holds.
///
/// It begins with what the store counts at the start, and follows its commits, in their order.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Read under the lock of the senders where both matter.
    quotas: RwLock<Arc<Quotas>>,
    senders: Mutex<Senders>,
}

#[derive(Debug, Default)]
struct Senders {
    /// Senders that hold nothing have no entry.
    held: HashMap<ClientId, Sender>,
    /// The bytes that all of them have stored.
    stored: i64,
    /// The number of those that have stored any.
    storing: u64,
}

/// What one sender holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sender {
    sum: Held,
    rejections: Rejections,
}

impl Ledger {
    /// Creates a ledger of what the store holds.
    #[must_use]
    pub fn new(quotas: Quotas, held: HeldBySender) -> Self {
        let ledger = Self {
            quotas: RwLock::new(Arc::new(quotas)),
            senders: Mutex::default(),
        };
        ledger.apply(&held);
        ledger
    }

    /// Returns the limits of all clients.
    #[must_use]
    pub fn quotas(&self) -> Arc<Quotas> {
        Arc::clone(&self.quotas.read())
    }

    /// Replaces the limits of all clients. What a sender holds beyond a new limit stays, and
    /// counts.
    pub fn replace(&self, quotas: Quotas) {
        let quotas = Arc::new(quotas);
        let mut senders = self.senders.lock();
        for (sender, held) in &mut senders.held {
            held.rejections.limit(quotas.of(sender));
        }
        *self.quotas.write() = quotas;
    }

    /// Returns what a sender holds.
    #[must_use]
    pub fn held(&self, sender: &ClientId) -> Held {
        self.senders.lock().sum(sender)
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
        let quotas = self.quotas();
        for (sender, change) in changes.iter() {
            senders.apply(sender, change, &quotas);
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
        let quotas = self.quotas();
        for sender in senders {
            rooms.get_or_insert_with(sender, || {
                let limits = quotas.of(sender);
                let sum = held.sum(sender);
                let left = |quota: Quota| Room::left(quota.limit(limits), sum.of(quota));
                let rejections = held.held.get(sender).map(|of| &of.rejections);
                let refuses = match rejections.and_then(|rejections| rejections.reached(limits)) {
                    Some(quota) => Some(Excess::Quota(quota)),
                    None if is_short && held.is_above_share(sum) => Some(Excess::DiskShare),
                    None => None,
                };
                let refuses_for = rejections.filter(|_| refuses.is_none());
                Room {
                    messages: left(Quota::WaitingMessages),
                    bytes: left(Quota::WaitingBytes),
                    refuses_for: refuses_for
                        .map(|of| of.exhausted().clone())
                        .unwrap_or_default(),
                    refuses,
                    ..Room::default()
                }
            });
        }
        drop(held);
        for (maker, made) in makers {
            let limits = quotas.of(maker);
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
        let quotas = self.quotas();
        let rejected = senders
            .held
            .iter()
            .filter(|(_, held)| held.sum.rejected_messages > 0);
        rejected
            .filter_map(|(sender, _)| {
                let age = quotas.of(sender).rejected_age?;
                Some((sender.clone(), now.before(age)?))
            })
            .collect()
    }
}

impl Senders {
    fn sum(&self, sender: &ClientId) -> Held {
        self.held
            .get(sender)
            .map(|held| held.sum)
            .unwrap_or_default()
    }

    fn apply(&mut self, sender: &ClientId, change: &SenderHeld, quotas: &Quotas) {
        let held = match self.held.get_mut(sender) {
            Some(held) => held,
            None => self.held.entry(sender.clone()).or_default(),
        };
        let before = held.sum.stored_bytes();
        held.sum += change.sum;
        let after = held.sum.stored_bytes();
        if !change.rejected.is_empty() {
            let limits = quotas.of(sender);
            for (receiver, amount) in &change.rejected {
                held.rejections.apply(receiver, *amount, limits);
            }
        }
        if *held == Sender::default() {
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
    use crate::model::Amount;

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

    fn waits(number: u8, messages: i64, bytes: i64) -> HeldBySender {
        let mut changes = HeldBySender::default();
        changes.add_waiting(client(number).as_str(), Amount { messages, bytes });
        changes
    }

    fn rejected(sender: u8, receiver: u8, messages: i64, bytes: i64) -> HeldBySender {
        let mut changes = HeldBySender::default();
        let (sender, receiver) = (client(sender), client(receiver));
        let amount = Amount { messages, bytes };
        changes.add_rejected(sender.as_str(), receiver.as_str(), amount);
        changes
    }

    #[test]
    fn beyond_the_rejected_ones_nothing_is_taken() {
        let ledger = ledger(ClientLimits {
            rejected_messages: 8,
            rejected_age: Some(Duration::from_secs(10)),
            ..ClientLimits::default()
        });
        ledger.apply(&rejected(1, 11, 1, 0));
        let take = |receiver| {
            let mut rooms = ledger.rooms([&client(1)], [], false);
            rooms.take_message(&client(1), &client(receiver), 1)
        };
        assert_eq!(take(11), Ok(()));
        let now = "2025-09-08T07:03:00Z".parse::<jiff::Timestamp>().unwrap();
        let before = "2025-09-08T07:02:50Z".parse::<jiff::Timestamp>().unwrap();
        assert_eq!(
            ledger.rejected_before(now.into()),
            [(client(1), before.into())]
        );
        // One receiver stops only what is sent to it, whatever it rejects; here also the sender.
        ledger.apply(&rejected(1, 11, 1, 0));
        ledger.apply(&rejected(1, 1, 20, 0));
        let quota = Quota::RejectedMessages;
        for receiver in [11, 1] {
            let refused = Err(Excess::Receiver(quota, client(receiver)));
            assert_eq!(take(receiver), refused);
        }
        assert_eq!(take(12), Ok(()));
        assert_eq!(ledger.held(&client(1)).rejected_messages, 22);
        let mut rooms = ledger.rooms([&client(2)], [], false);
        assert_eq!(rooms.take_message(&client(2), &client(11), 1), Ok(()));
        // Several together reach the whole limit.
        ledger.apply(&rejected(1, 12, 3, 0));
        ledger.apply(&rejected(1, 13, 1, 0));
        assert_eq!(take(14), Ok(()));
        ledger.apply(&rejected(1, 13, 1, 0));
        assert_eq!(take(14), Err(Excess::Quota(quota)));
        ledger.apply(&rejected(1, 11, -2, 0));
        assert_eq!(take(14), Ok(()));
        assert_eq!(take(11), Ok(()));
        for (receiver, messages) in [(1, -20), (12, -3), (13, -2)] {
            ledger.apply(&rejected(1, receiver, messages, 0));
        }
        assert_eq!(take(12), Ok(()));
        assert!(ledger.rejected_before(now.into()).is_empty());
        assert!(ledger.senders().is_empty());
    }

    #[test]
    fn other_limits_count_what_is_held() {
        let limited = |rejected_messages, waiting_messages| ClientLimits {
            rejected_messages,
            waiting_messages,
            ..ClientLimits::default()
        };
        let ledger = ledger(limited(100, 10));
        ledger.apply(&rejected(1, 11, 2, 0));
        ledger.apply(&waits(1, 5, 0));
        let take = |receiver| {
            let mut rooms = ledger.rooms([&client(1)], [], false);
            rooms.take_message(&client(1), &client(receiver), 1)
        };
        let replace = |limits| {
            ledger.replace(Quotas {
                default: Arc::new(limits),
                entries: Vec::new(),
            });
        };
        assert_eq!(take(11), Ok(()));
        replace(limited(8, 10));
        let quota = Quota::RejectedMessages;
        assert_eq!(take(11), Err(Excess::Receiver(quota, client(11))));
        assert_eq!(take(12), Ok(()));
        replace(limited(8, 4));
        assert_eq!(take(12), Err(Excess::Quota(Quota::WaitingMessages)));
        assert_eq!(ledger.held(&client(1)).waiting_messages, 5, "it stays");
        replace(limited(100, 10));
        assert_eq!(take(11), Ok(()));
        // What counted by the old limits does not count any more.
        ledger.apply(&rejected(1, 11, -2, 0));
        ledger.apply(&waits(1, -5, 0));
        assert!(ledger.senders().is_empty());
    }

    #[test]
    fn when_the_disk_is_short_who_holds_most_waits() {
        let ledger = ledger(ClientLimits::default());
        ledger.apply(&waits(1, 1, 100));
        ledger.apply(&waits(2, 1, 10));
        let take = |number, is_short| {
            let mut rooms = ledger.rooms([&client(number)], [], is_short);
            rooms.take_message(&client(number), &client(9), 1)
        };
        assert_eq!(take(1, false), Ok(()));
        assert_eq!(take(1, true), Err(Excess::DiskShare));
        assert_eq!(take(2, true), Ok(()));
        assert_eq!(take(3, true), Ok(()), "one that stores nothing");
        ledger.apply(&waits(1, 1, -95));
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
            for (number, bytes, of_rejected) in changes {
                let held = expected.entry(client(number)).or_default();
                // Every second change removes everything.
                let change = match held.waiting_messages {
                    0 => Held {
                        waiting_messages: 1,
                        waiting_bytes: bytes,
                        rejected_messages: 1,
                        rejected_bytes: of_rejected,
                    },
                    _ => Held {
                        waiting_messages: -held.waiting_messages,
                        waiting_bytes: -held.waiting_bytes,
                        rejected_messages: -held.rejected_messages,
                        rejected_bytes: -held.rejected_bytes,
                    },
                };
                *held += change;
                let mut changes = waits(number, change.waiting_messages, change.waiting_bytes);
                let (messages, bytes) = (change.rejected_messages, change.rejected_bytes);
                changes.extend(rejected(number, 9, messages, bytes));
                ledger.apply(&changes);
            }
            expected.retain(|_, held| *held != Held::default());
            let senders = ledger.senders.lock();
            let stored = expected.values().map(Held::stored_bytes);
            prop_assert_eq!(senders.stored, stored.clone().sum::<i64>());
            prop_assert_eq!(senders.storing, stored.filter(|bytes| *bytes > 0).count() as u64);
            let sums = senders.held.iter().map(|(sender, held)| (sender.clone(), held.sum));
            prop_assert_eq!(sums.collect::<HashMap<_, _>>(), expected);
        }
    }
}
