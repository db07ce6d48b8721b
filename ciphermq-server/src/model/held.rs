//! What clients hold of the store.

use std::collections::HashMap;
use std::ops::AddAssign;

use ciphermq_protocol::ClientId;

use crate::quota::Quota;

/// What the messages of one sender take, or a change of that.
///
/// A message counts once, however many queues it waits in. Its bytes are those of the envelopes as
/// they are stored: they are there until all messages that are stored with them are settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Messages that wait.
    pub waiting_messages: i64,
    /// The bytes of stored envelopes of which a message waits.
    pub waiting_bytes: i64,
    /// Messages that were rejected.
    pub rejected_messages: i64,
    /// Their bytes.
    pub rejected_bytes: i64,
}

impl Held {
    /// Returns the bytes on the disk.
    #[must_use]
    pub fn stored_bytes(&self) -> i64 {
        self.waiting_bytes + self.rejected_bytes
    }

    /// Returns what counts for a quota; 0 for one that is about something else.
    #[must_use]
    pub fn of(&self, quota: Quota) -> u64 {
        let held = match quota {
            Quota::WaitingMessages => self.waiting_messages,
            Quota::WaitingBytes => self.waiting_bytes,
            Quota::RejectedMessages => self.rejected_messages,
            Quota::RejectedBytes => self.rejected_bytes,
            _ => 0,
        };
        u64::try_from(held).unwrap_or_default()
    }
}

/// A number of messages with their bytes, or a change of that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Messages.
    pub messages: i64,
    /// The bytes of their envelopes.
    pub bytes: i64,
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

impl AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        self.waiting_messages += other.waiting_messages;
        self.waiting_bytes += other.waiting_bytes;
        self.rejected_messages += other.rejected_messages;
        self.rejected_bytes += other.rejected_bytes;
    }
}

/// What one sender holds, or a change of that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SenderHeld {
    /// All of it.
    pub sum: Held,
    /// The rejected part, by receiver.
    pub rejected: HashMap<ClientId, Amount>,
}

/// What each sender holds, or a change of that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldBySender(HashMap<ClientId, SenderHeld>);

impl HeldBySender {
    /// Adds to what waits of a sender. What no client can have sent does not count.
    pub fn add_waiting(&mut self, sender: &str, amount: Amount) {
        if let Some(held) = entry(&mut self.0, sender) {
            held.sum.waiting_messages += amount.messages;
            held.sum.waiting_bytes += amount.bytes;
        }
    }

    /// Adds to what was rejected of a sender's messages to a receiver. What no client can have sent
    /// or rejected does not count.
    pub fn add_rejected(&mut self, sender: &str, receiver: &str, amount: Amount) {
        let Some(held) = entry(&mut self.0, sender) else {
            return;
        };
        if let Some(of_receiver) = entry(&mut held.rejected, receiver) {
            *of_receiver += amount;
            held.sum.rejected_messages += amount.messages;
            held.sum.rejected_bytes += amount.bytes;
        }
    }

    /// Creates the sums of what was counted: sender, messages and bytes of what waits; sender,
    /// receiver, messages and bytes of what was rejected.
    pub(crate) fn counted(
        waiting: Vec<(String, i64, i64)>,
        rejected: Vec<(String, String, i64, i64)>,
    ) -> Self {
        let mut sums = Self::default();
        for (sender, messages, bytes) in waiting {
            sums.add_waiting(&sender, Amount { messages, bytes });
        }
        for (sender, receiver, messages, bytes) in rejected {
            sums.add_rejected(&sender, &receiver, Amount { messages, bytes });
        }
        sums
    }

    /// Adds the changes of another commit.
    pub fn extend(&mut self, other: Self) {
        for (sender, held) in other.0 {
            let own = self.0.entry(sender).or_default();
            own.sum += held.sum;
            for (receiver, amount) in held.rejected {
                *own.rejected.entry(receiver).or_default() += amount;
            }
        }
    }

    /// Returns whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the senders.
    pub fn iter(&self) -> impl Iterator<Item = (&ClientId, &SenderHeld)> {
        self.0.iter()
    }

    /// Returns what a sender holds.
    #[must_use]
    pub fn of(&self, sender: &ClientId) -> Held {
        self.0.get(sender).map(|held| held.sum).unwrap_or_default()
    }
}

/// Returns the entry of a client, new if there was none; `None` if no client can have this id.
fn entry<'a, V: Default>(entries: &'a mut HashMap<ClientId, V>, id: &str) -> Option<&'a mut V> {
    // Without a copy of the id in most cases.
    if !entries.contains_key(id) {
        entries.insert(ClientId::new(id).ok()?, V::default());
    }
    entries.get_mut(id)
}

/// What a client has made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    /// Queues.
    pub queues: u64,
    /// Exchanges.
    pub exchanges: u64,
    /// Bindings.
    pub bindings: u64,
}

impl Made {
    /// Returns what counts for a quota; 0 for one that is about something else.
    #[must_use]
    pub fn of(self, quota: Quota) -> u64 {
        match quota {
            Quota::Queues => self.queues,
            Quota::Exchanges => self.exchanges,
            Quota::Bindings => self.bindings,
            _ => 0,
        }
    }
}
