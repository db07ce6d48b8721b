//! Gaps in the streams that were received.
//!
//! A publisher numbers its messages: their ids are consecutive positions of a stream, from 0 on,
//! and nobody but the sender can assign them in a session that it has signed. So a position that is
//! missing although a later one has arrived was dropped, is delayed, or went elsewhere. The
//! positions do not show the reason:
//!
//! - the server (or whoever has its database) has dropped it, or withholds it
//! - the server refused it, which the sender knows, and the position is used up
//! - it was rejected because it could not be opened; or it was delivered and is not acknowledged
//!   yet
//! - another receiver that shares the queue has it
//! - it is older than the record, if the positions are missing at the beginning
//! - it is being retried, and was overtaken by others
//!
//! The last one resolves itself, so a gap is worth reporting once it has persisted for a while:
//! [`GapWatch`]. A missing end of a stream cannot be detected.

use std::collections::{BTreeMap, BTreeSet};

use ciphermq_protocol::{ClientId, MessageId, StreamId};

use super::Intervals;

/// The gaps in one verified sender's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamGaps {
    /// The verified sender.
    pub sender: ClientId,
    /// The stream.
    pub stream: StreamId,
    /// The positions that were not processed, although a later one was.
    pub missing: Intervals,
}

impl StreamGaps {
    /// Returns the number of positions that are missing before the first processed one. They mean
    /// nothing if the record is younger than the stream.
    #[must_use]
    pub fn missing_at_start(&self) -> u64 {
        match self.missing.iter().next() {
            Some((0, last)) => last.saturating_add(1),
            _ => 0,
        }
    }

    fn key(&self) -> (ClientId, StreamId) {
        (self.sender.clone(), self.stream)
    }
}

/// Detects gaps that persist.
///
/// It has no clock: call [`check`](Self::check) at a steady interval. It reports a position once,
/// when it was missing at two consecutive checks, so after one to two intervals.
#[derive(Debug, Default)]
pub struct GapWatch {
    /// The streams from which a message has arrived.
    streams: BTreeSet<(ClientId, StreamId)>,
    /// The missing positions at the last check.
    before: BTreeMap<(ClientId, StreamId), Intervals>,
    reported: BTreeMap<(ClientId, StreamId), Intervals>,
}

/// The changes since the last check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GapChanges {
    /// Positions that have been missing for long enough now, and were not reported yet.
    pub missing: Vec<StreamGaps>,
    /// Positions that were reported missing and have arrived since.
    pub filled: Vec<StreamGaps>,
}

impl GapWatch {
    /// Notes that a message of this sender has arrived. Only streams with at least one arrival are
    /// watched: earlier gaps in other streams are not news.
    pub fn saw(&mut self, sender: &ClientId, message_id: &MessageId) {
        if let Some((stream, _)) = StreamId::split(message_id) {
            self.streams.insert((sender.clone(), stream));
        }
    }

    /// Returns the gaps in the watched streams.
    #[must_use]
    pub fn watched(&self, gaps: Vec<StreamGaps>) -> Vec<StreamGaps> {
        let mut gaps = gaps;
        gaps.retain(|gap| self.streams.contains(&gap.key()));
        gaps
    }

    /// Compares the [current gaps](super::Deduplication::gaps) with those of the previous check.
    pub fn check(&mut self, gaps: Vec<StreamGaps>) -> GapChanges {
        let mut changes = GapChanges::default();
        let mut now: BTreeMap<_, _> = self
            .watched(gaps)
            .into_iter()
            .map(|gap| (gap.key(), gap.missing))
            .collect();
        for (key, reported) in &mut self.reported {
            let filled = match now.get(key) {
                Some(missing) => reported.minus(missing),
                None => reported.clone(),
            };
            if !filled.is_empty() {
                *reported = reported.minus(&filled);
                changes.filled.push(named(key, filled));
            }
        }
        self.reported.retain(|_, reported| !reported.is_empty());
        for (key, missing) in &now {
            let Some(before) = self.before.get(key) else {
                continue;
            };
            let standing = missing.intersection(before);
            let reported = self.reported.entry(key.clone()).or_default();
            let news = standing.minus(reported);
            for (first, last) in news.iter() {
                reported.insert_range(first, last);
            }
            if !news.is_empty() {
                changes.missing.push(named(key, news));
            }
        }
        std::mem::swap(&mut self.before, &mut now);
        changes
    }
}

fn named((sender, stream): &(ClientId, StreamId), missing: Intervals) -> StreamGaps {
    StreamGaps {
        sender: sender.clone(),
        stream: *stream,
        missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::{Deduplication as _, InMemory};

    struct Fixture {
        record: InMemory,
        watch: GapWatch,
        sender: ClientId,
        stream: StreamId,
    }

    fn fixture() -> Fixture {
        Fixture {
            record: InMemory::default(),
            watch: GapWatch::default(),
            sender: ClientId::new("sender_1").unwrap(),
            stream: StreamId::new(1, 2),
        }
    }

    type Ranges = Vec<(u64, u64)>;

    impl Fixture {
        fn receive(&mut self, positions: impl IntoIterator<Item = u64>) {
            for position in positions {
                let id = self.stream.message_id(position).unwrap();
                self.record.record(Some(&self.sender), &id).unwrap();
                self.watch.saw(&self.sender, &id);
            }
        }

        /// Returns the reported and the filled positions.
        fn check(&mut self) -> (Ranges, Ranges) {
            let changes = self.watch.check(self.record.gaps());
            let flat = |gaps: Vec<StreamGaps>| {
                gaps.iter()
                    .flat_map(|gap| gap.missing.iter().collect::<Vec<_>>())
                    .collect()
            };
            (flat(changes.missing), flat(changes.filled))
        }
    }

    #[test]
    fn a_persistent_gap_is_reported_once() {
        let mut fixture = fixture();
        fixture.receive([0, 1, 3, 4, 7]);
        assert_eq!(fixture.check(), (vec![], vec![]), "it may only be late");
        fixture.receive([5, 9]);
        assert_eq!(
            fixture.check(),
            (vec![(2, 2), (6, 6)], vec![]),
            "8 may only be late"
        );
        assert_eq!(fixture.check(), (vec![(8, 8)], vec![]));
        assert_eq!(fixture.check(), (vec![], vec![]));
    }

    #[test]
    fn late_positions_are_not_reported_and_very_late_ones_are_reported_filled() {
        let mut fixture = fixture();
        fixture.receive([0, 5]);
        assert_eq!(fixture.check(), (vec![], vec![]));
        fixture.receive([1, 2]);
        assert_eq!(fixture.check(), (vec![(3, 4)], vec![]));
        fixture.receive([4]);
        assert_eq!(fixture.check(), (vec![], vec![(4, 4)]));
        fixture.receive([3]);
        assert_eq!(fixture.check(), (vec![], vec![(3, 3)]));
        assert_eq!(fixture.record.gaps(), []);
    }

    #[test]
    fn gaps_at_the_start_are_distinguished() {
        let mut fixture = fixture();
        fixture.receive([4, 6]);
        let gaps = fixture.record.gaps();
        assert_eq!(
            (gaps[0].missing.count(), gaps[0].missing_at_start()),
            (5, 4)
        );
        fixture.receive(0..4);
        let gaps = fixture.record.gaps();
        assert_eq!(
            (gaps[0].missing.count(), gaps[0].missing_at_start()),
            (1, 0)
        );
    }

    #[test]
    fn only_streams_with_arrivals_and_verified_senders_are_watched() {
        let mut fixture = fixture();
        fixture.receive([0]);
        for position in [0, 2] {
            let other = StreamId::new(9, 9).message_id(position).unwrap();
            fixture
                .record
                .record(Some(&fixture.sender), &other)
                .unwrap();
            fixture.record.record(None, &other).unwrap();
        }
        assert_eq!(fixture.record.gaps().len(), 1);
        assert_eq!(fixture.check(), (vec![], vec![]));
        assert_eq!(fixture.check(), (vec![], vec![]));
    }
}
