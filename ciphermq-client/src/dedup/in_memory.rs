//! A record in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};

use ciphermq_protocol::{ClientId, MessageId, StreamId};

use super::{Deduplication, Intervals, RecordError, StreamGaps};

/// Remembers processed messages for the lifetime of the process.
///
/// Ids of this SDK's publishers are remembered indefinitely: a stream that was processed without
/// gaps takes a few bytes, whatever its length. Of other clients' ids the last ones are remembered,
/// 100,000 by default.
#[derive(Debug, Clone)]
pub struct InMemory {
    named: BTreeMap<ClientId, BTreeMap<StreamId, Intervals>>,
    unnamed: BTreeMap<StreamId, Intervals>,
    others: RecentIds,
}

#[derive(Debug, Clone)]
struct RecentIds {
    limit: usize,
    order: VecDeque<(Option<ClientId>, MessageId)>,
    /// The senders of the messages with each id.
    known: HashMap<MessageId, Vec<Option<ClientId>>>,
}

impl InMemory {
    /// Creates an empty record that remembers the last `other_ids` ids of clients whose ids are not
    /// derived from streams.
    #[must_use]
    pub fn new(other_ids: usize) -> Self {
        let others = RecentIds {
            limit: other_ids.max(1),
            order: VecDeque::new(),
            known: HashMap::new(),
        };
        Self {
            named: BTreeMap::new(),
            unnamed: BTreeMap::new(),
            others,
        }
    }

    /// Returns the number of remembered messages.
    #[must_use]
    pub fn messages(&self) -> u64 {
        let others = u64::try_from(self.others.order.len()).unwrap_or(u64::MAX);
        self.named
            .values()
            .chain([&self.unnamed])
            .flat_map(BTreeMap::values)
            .fold(others, |sum, positions| {
                sum.saturating_add(positions.count())
            })
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.others.limit);
    }

    /// Records a range of positions of a stream.
    pub(super) fn record_positions(
        &mut self,
        sender: Option<&ClientId>,
        stream: StreamId,
        first: u64,
        last: u64,
    ) {
        self.positions_mut(sender, stream).insert_range(first, last);
    }

    /// Returns every remembered stream with its sender.
    pub(super) fn all_streams(
        &self,
    ) -> impl Iterator<Item = (Option<&ClientId>, StreamId, &Intervals)> {
        let named = self
            .named
            .iter()
            .map(|(sender, streams)| (Some(sender), streams));
        named
            .chain([(None, &self.unnamed)])
            .flat_map(|(sender, streams)| {
                streams
                    .iter()
                    .map(move |(&stream, positions)| (sender, stream, positions))
            })
    }

    /// Returns the remembered ids of other clients, oldest first.
    pub(super) fn all_others(&self) -> impl Iterator<Item = (Option<&ClientId>, &MessageId)> {
        self.others
            .order
            .iter()
            .map(|(sender, id)| (sender.as_ref(), id))
    }

    fn positions_mut(&mut self, sender: Option<&ClientId>, stream: StreamId) -> &mut Intervals {
        let streams = match sender {
            None => &mut self.unnamed,
            Some(sender) => {
                // The lookup avoids a clone for every message.
                if !self.named.contains_key(sender) {
                    self.named.insert(sender.clone(), BTreeMap::new());
                }
                match self.named.get_mut(sender) {
                    Some(streams) => streams,
                    None => &mut self.unnamed,
                }
            }
        };
        streams.entry(stream).or_default()
    }

    fn streams(&self, sender: Option<&ClientId>) -> Option<&BTreeMap<StreamId, Intervals>> {
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
            None => self.others.contains(sender, message_id),
        }
    }

    fn is_any_processed(&self, message_id: &MessageId) -> bool {
        match StreamId::split(message_id) {
            Some((stream, position)) => self
                .named
                .values()
                .chain([&self.unnamed])
                .filter_map(|streams| streams.get(&stream))
                .any(|positions| positions.contains(position)),
            None => self.others.known.contains_key(message_id),
        }
    }

    fn record(
        &mut self,
        sender: Option<&ClientId>,
        message_id: &MessageId,
    ) -> Result<(), RecordError> {
        match StreamId::split(message_id) {
            Some((stream, position)) => {
                self.positions_mut(sender, stream).insert(position);
            }
            None => self.others.insert((sender.cloned(), message_id.clone())),
        }
        Ok(())
    }

    fn gaps(&self) -> Vec<StreamGaps> {
        self.all_streams()
            .filter_map(|(sender, stream, positions)| {
                let missing = positions.missing();
                let sender = sender.filter(|_| !missing.is_empty())?.clone();
                Some(StreamGaps {
                    sender,
                    stream,
                    missing,
                })
            })
            .collect()
    }
}

impl RecentIds {
    fn contains(&self, sender: Option<&ClientId>, message_id: &MessageId) -> bool {
        self.known
            .get(message_id)
            .is_some_and(|senders| senders.iter().any(|known| known.as_ref() == sender))
    }

    fn insert(&mut self, id: (Option<ClientId>, MessageId)) {
        let (sender, message_id) = &id;
        if self.contains(sender.as_ref(), message_id) {
            return;
        }
        let senders = self.known.entry(message_id.clone()).or_default();
        senders.push(sender.clone());
        self.order.push_back(id);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, (sender, message_id): &(Option<ClientId>, MessageId)) {
        if let Some(senders) = self.known.get_mut(message_id) {
            senders.retain(|known| known != sender);
            if senders.is_empty() {
                self.known.remove(message_id);
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
        for message in [
            StreamId::new(1, 2).message_id(3).unwrap(),
            id("a-12345678-r"),
        ] {
            dedup.record(Some(&a), &message).unwrap();
            assert!(dedup.is_processed(Some(&a), &message));
            assert!(!dedup.is_processed(Some(&b), &message));
            assert!(!dedup.is_processed(None, &message));
            dedup.record(None, &message).unwrap();
            assert!(dedup.is_processed(None, &message));
        }
    }

    #[test]
    fn an_id_is_known_for_any_sender_until_forgotten() {
        let mut dedup = InMemory::new(2);
        for message in [StreamId::new(1, 2).message_id(3).unwrap(), id("z-1")] {
            assert!(!dedup.is_any_processed(&message));
            for sender in [Some(&client("a")), Some(&client("b")), None] {
                dedup.record(sender, &message).unwrap();
                assert!(dedup.is_any_processed(&message));
            }
        }
        assert!(
            !dedup.is_processed(Some(&client("a")), &id("z-1")),
            "the oldest"
        );
        dedup.record(None, &id("z-2")).unwrap();
        assert!(dedup.is_any_processed(&id("z-1")));
        dedup.record(None, &id("z-3")).unwrap();
        assert!(!dedup.is_any_processed(&id("z-1")));
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
