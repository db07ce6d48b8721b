//! What was already processed.
//!
//! The server delivers a message until its ack is confirmed: after a lost connection, a crash or a time-out
//! again. A consumer asks its [`Deduplication`] before it hands a message over, and tells it when the
//! application has processed one. What was processed and comes again is acked again, and not handed over.

mod intervals;

use std::collections::{HashMap, HashSet, VecDeque};
use std::error::Error as StdError;

use ciphermq_protocol::{ClientId, MessageId, StreamId};

pub use intervals::Intervals;

/// Why a record of processed messages could not be written.
pub type RecordError = Box<dyn StdError + Send + Sync>;

/// Remembers processed messages by sender and message id. The sender is the one that the envelope names;
/// older clients' envelopes may name none.
///
/// Implementations may be durable. The calls come from the tasks that read and ack messages, one at a time;
/// they may wait for a disk, but not long.
pub trait Deduplication: Send {
    /// Whether the message was recorded.
    fn is_processed(&self, sender: Option<&ClientId>, message_id: &MessageId) -> bool;

    /// Records that the message was processed. Recording it again changes nothing.
    ///
    /// # Errors
    ///
    /// If it cannot be recorded; the message is then not acked.
    fn record(&mut self, sender: Option<&ClientId>, message_id: &MessageId) -> Result<(), RecordError>;

    /// Makes durable what was recorded, if this record is durable at all. Called once for a group of messages,
    /// before they are acked.
    ///
    /// # Errors
    ///
    /// If it cannot be made durable; the messages are then not acked.
    fn sync(&mut self) -> Result<(), RecordError> {
        Ok(())
    }
}

/// Remembers in memory, for as long as the process lives.
///
/// Ids of this SDK's publishers are remembered for ever: a stream that was processed without gaps takes a few
/// bytes, whatever its length. Of other clients' ids the last ones are remembered, 100,000 by default.
#[derive(Debug)]
pub struct InMemory {
    named: HashMap<ClientId, HashMap<StreamId, Intervals>>,
    unnamed: HashMap<StreamId, Intervals>,
    others: RecentIds,
}

#[derive(Debug)]
struct RecentIds {
    limit: usize,
    order: VecDeque<(Option<ClientId>, MessageId)>,
    known: HashSet<(Option<ClientId>, MessageId)>,
}

impl InMemory {
    /// An empty record that remembers the last `other_ids` ids of clients that make their ids another way.
    #[must_use]
    pub fn new(other_ids: usize) -> Self {
        let others = RecentIds {
            limit: other_ids.max(1),
            order: VecDeque::new(),
            known: HashSet::new(),
        };
        Self {
            named: HashMap::new(),
            unnamed: HashMap::new(),
            others,
        }
    }

    fn streams(&self, sender: Option<&ClientId>) -> Option<&HashMap<StreamId, Intervals>> {
        match sender {
            Some(sender) => self.named.get(sender),
            None => Some(&self.unnamed),
        }
    }
}

impl Default for InMemory {
    fn default() -> Self {
        Self::new(100_000)
    }
}

impl Deduplication for InMemory {
    fn is_processed(&self, sender: Option<&ClientId>, message_id: &MessageId) -> bool {
        match StreamId::split(message_id) {
            Some((stream, position)) => self
                .streams(sender)
                .and_then(|streams| streams.get(&stream))
                .is_some_and(|positions| positions.contains(position)),
            None => self.others.known.contains(&(sender.cloned(), message_id.clone())),
        }
    }

    fn record(&mut self, sender: Option<&ClientId>, message_id: &MessageId) -> Result<(), RecordError> {
        match StreamId::split(message_id) {
            Some((stream, position)) => {
                let streams = match sender {
                    None => &mut self.unnamed,
                    // Looked up first: a clone for every message would be waste.
                    Some(sender) if self.named.contains_key(sender) => self
                        .named
                        .get_mut(sender)
                        .ok_or("the sender's streams are gone")?,
                    Some(sender) => self.named.entry(sender.clone()).or_default(),
                };
                streams.entry(stream).or_default().insert(position);
            }
            None => self.others.insert((sender.cloned(), message_id.clone())),
        }
        Ok(())
    }
}

impl RecentIds {
    fn insert(&mut self, id: (Option<ClientId>, MessageId)) {
        if self.known.insert(id.clone()) {
            self.order.push_back(id);
            if self.order.len() > self.limit
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> MessageId {
        MessageId::new(text).unwrap()
    }

    fn client(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    #[test]
    fn the_same_id_of_another_sender_is_another_message() {
        let mut dedup = InMemory::default();
        let (a, b) = (client("a"), client("b"));
        for message in [StreamId::new(1, 2).message_id(3).unwrap(), id("a-12345678-r")] {
            dedup.record(Some(&a), &message).unwrap();
            assert!(dedup.is_processed(Some(&a), &message));
            assert!(!dedup.is_processed(Some(&b), &message));
            assert!(!dedup.is_processed(None, &message));
            dedup.record(None, &message).unwrap();
            assert!(dedup.is_processed(None, &message));
        }
    }

    #[test]
    fn other_clients_ids_are_forgotten_oldest_first() {
        let mut dedup = InMemory::new(3);
        for name in ["1", "2", "3", "1", "4"] {
            dedup.record(None, &id(name)).unwrap();
        }
        let known: Vec<_> = ["1", "2", "3", "4"]
            .map(|name| dedup.is_processed(None, &id(name)))
            .to_vec();
        assert_eq!(known, [false, true, true, true]);
    }

    #[test]
    fn a_stream_without_gaps_is_one_interval() {
        let mut dedup = InMemory::default();
        let (sender, stream) = (client("a"), StreamId::new(7, 7));
        for position in (0..1000).rev() {
            dedup
                .record(Some(&sender), &stream.message_id(position).unwrap())
                .unwrap();
        }
        assert_eq!(
            dedup.named[&sender][&stream].iter().collect::<Vec<_>>(),
            [(0, 999)]
        );
        assert!(!dedup.is_processed(Some(&sender), &stream.message_id(1000).unwrap()));
    }
}
