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

impl AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        self.waiting_messages += other.waiting_messages;
        self.waiting_bytes += other.waiting_bytes;
        self.rejected_messages += other.rejected_messages;
        self.rejected_bytes += other.rejected_bytes;
    }
}

/// What each sender holds, or a change of that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldBySender(HashMap<ClientId, Held>);

impl HeldBySender {
    /// Adds to what a sender holds. What no client can have sent does not count.
    pub fn add(&mut self, sender: &str, held: Held) {
        if let Some(sum) = self.0.get_mut(sender) {
            *sum += held;
        } else if let Ok(sender) = ClientId::new(sender) {
            self.0.insert(sender, held);
        }
    }

    /// Creates the sums of what was counted: sender, messages and bytes each.
    pub(crate) fn counted(
        waiting: Vec<(String, i64, i64)>,
        rejected: Vec<(String, i64, i64)>,
    ) -> Self {
        let mut sums = Self::default();
        for (sender, messages, bytes) in waiting {
            let held = Held {
                waiting_messages: messages,
                waiting_bytes: bytes,
                ..Held::default()
            };
            sums.add(&sender, held);
        }
        for (sender, messages, bytes) in rejected {
            let held = Held {
                rejected_messages: messages,
                rejected_bytes: bytes,
                ..Held::default()
            };
            sums.add(&sender, held);
        }
        sums
    }

    /// Adds the changes of another commit.
    pub fn extend(&mut self, other: Self) {
        for (sender, held) in other.0 {
            *self.0.entry(sender).or_default() += held;
        }
    }

    /// Returns whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the senders.
    pub fn iter(&self) -> impl Iterator<Item = (&ClientId, &Held)> {
        self.0.iter()
    }

    /// Returns what a sender holds.
    #[must_use]
    pub fn of(&self, sender: &ClientId) -> Held {
        self.0.get(sender).copied().unwrap_or_default()
    }
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
