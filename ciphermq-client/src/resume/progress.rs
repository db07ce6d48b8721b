//! The contiguously acknowledged beginning of a stream.

use std::collections::VecDeque;

use ciphermq_protocol::{MessageId, StreamId};

use super::StreamState;
use crate::dedup::Intervals;

/// Tracks the position before which all messages of a stream are acknowledged.
///
/// It stores one place per message in flight, which the publisher's window bounds. Once a message
/// has failed, no later one can count, so none of them is stored.
#[derive(Debug)]
pub(super) struct Progress {
    stream: StreamId,
    /// The first position that is not acknowledged, and its place in the input.
    acknowledged: (u64, u64),
    /// Later messages that were sent, each with the place of the one after it.
    sent: VecDeque<(u64, u64)>,
    /// Later positions that are acknowledged.
    settled: Intervals,
    /// The first position that has failed.
    failed: u64,
}

impl Progress {
    /// Returns the progress that a state records.
    pub(super) fn of(state: &StreamState) -> Self {
        Self::new(state.stream, state.acknowledged, state.place)
    }

    fn new(stream: StreamId, position: u64, place: u64) -> Self {
        Self {
            stream,
            acknowledged: (position, place),
            sent: VecDeque::new(),
            settled: Intervals::default(),
            failed: u64::MAX,
        }
    }

    /// Returns the first position that is not known to be acknowledged, and its place.
    pub(super) fn acknowledged(&self) -> (u64, u64) {
        self.acknowledged
    }

    pub(super) fn sent(&mut self, position: u64, place: u64) {
        if position < self.failed {
            self.sent.push_back((position, place));
            self.advance();
        }
    }

    pub(super) fn settled(&mut self, message_id: &MessageId, is_acknowledged: bool) {
        let Some((stream, position)) = StreamId::split(message_id) else {
            return;
        };
        if stream != self.stream || position >= self.failed {
            return;
        }
        if is_acknowledged {
            self.settled.insert(position);
            self.advance();
        } else {
            self.failed = position;
            while self
                .sent
                .pop_back_if(|(sent, _)| *sent >= position)
                .is_some()
            {}
        }
    }

    fn advance(&mut self) {
        let end = self
            .settled
            .first_gap(self.acknowledged.0)
            .unwrap_or(u64::MAX)
            .min(self.failed);
        while let Some((position, place)) = self.sent.pop_front_if(|(position, _)| *position < end)
        {
            self.acknowledged = (position + 1, place);
        }
        self.settled.forget_below(self.acknowledged.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(position: u64) -> MessageId {
        StreamId::new(1, 1).message_id(position).unwrap()
    }

    #[test]
    fn an_early_acknowledgement_counts_once_the_message_is_noted() {
        let mut progress = Progress::new(StreamId::new(1, 1), 3, 30);
        progress.settled(&id(3), true);
        assert_eq!(progress.acknowledged(), (3, 30));
        progress.sent(3, 40);
        assert_eq!(progress.acknowledged(), (4, 40));
    }

    #[test]
    fn nothing_after_a_failure_counts_or_is_stored() {
        let mut progress = Progress::new(StreamId::new(1, 1), 0, 0);
        for position in 0..4 {
            progress.sent(position, position + 1);
        }
        progress.settled(&id(1), false);
        for position in 4..1000 {
            progress.sent(position, position + 1);
            progress.settled(&id(position), true);
        }
        progress.settled(&id(0), true);
        assert_eq!(progress.acknowledged(), (1, 1));
        assert!(progress.sent.is_empty() && progress.settled.count() == 0);
    }

    #[test]
    fn other_streams_are_ignored() {
        let mut progress = Progress::new(StreamId::new(1, 1), 0, 0);
        progress.sent(0, 1);
        progress.settled(&StreamId::new(1, 2).message_id(0).unwrap(), true);
        progress.settled(&MessageId::new("m").unwrap(), true);
        assert_eq!(progress.acknowledged(), (0, 0));
    }

    proptest! {
        /// Whatever the order of events, only the beginning without gap or failure counts.
        #[test]
        fn counts_exactly_the_acknowledged_beginning(
            order in Just((0u64..30).collect::<Vec<_>>()).prop_shuffle(),
            settled in 0usize..=30,
            failures in proptest::collection::btree_set(0u64..40, 0..2),
        ) {
            let mut progress = Progress::new(StreamId::new(1, 1), 0, 0);
            for position in 0..30 {
                progress.sent(position, position * 7 + 7);
            }
            let settled = &order[..settled];
            for &position in settled {
                progress.settled(&id(position), !failures.contains(&position));
            }
            let expected = (0..).find(|position| !settled.contains(position) || failures.contains(position)).unwrap();
            prop_assert_eq!(progress.acknowledged(), (expected, expected * 7));
        }
    }
}
