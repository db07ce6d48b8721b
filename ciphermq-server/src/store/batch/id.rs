//! Message ids as streams and positions.
//!
//! CipherMQ's own ids end in the message's position in its stream, ten hexadecimal digits. A batch
//! stores the part before them once, and the first position. Any other id has a stream and a batch
//! to itself.

use std::fmt;

use ciphermq_protocol::MessageId;
use ciphermq_protocol::message_id::StreamId;
use ciphermq_protocol::name::NameError;

use super::MAX_MESSAGES;

/// The position of ids that are not CipherMQ's own.
pub(in crate::store) const NO_POSITION: i64 = -1;

/// The number of characters of CipherMQ's own ids that belong to the stream.
const STREAM_LENGTH: usize = 26;

/// The common part of consecutive ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::store) enum Stream {
    /// The stream of CipherMQ's own ids.
    Native(StreamId),
    /// An id of another client.
    Single(MessageId),
}

/// Formats the stream as the databases store it.
impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native(stream) => {
                let text = stream.to_string();
                f.write_str(text.get(..STREAM_LENGTH).unwrap_or(&text))
            }
            Self::Single(id) => f.write_str(id.as_str()),
        }
    }
}

/// Splits an id into its stream and its position.
pub(in crate::store) fn split_id(id: &MessageId) -> (Stream, i64) {
    match StreamId::split(id) {
        // 40 bits.
        Some((stream, position)) => (Stream::Native(stream), position.cast_signed()),
        None => (Stream::Single(id.clone()), NO_POSITION),
    }
}

/// Joins a stream and a position, as the databases store them, to an id.
pub(in crate::store) fn message_id(stream: &str, position: i64) -> Result<MessageId, NameError> {
    if position < 0 {
        MessageId::new(stream)
    } else {
        MessageId::new(&format!("{stream}{position:010x}"))
    }
}

/// Consecutive ids to look up: positions `first` to `last` of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Range {
    pub(in crate::store) stream: Stream,
    pub(in crate::store) first: i64,
    pub(in crate::store) last: i64,
}

impl Range {
    /// Returns the position after which every batch begins that holds one of the ids.
    pub(in crate::store) fn begins_after(&self) -> i64 {
        self.first.saturating_sub(super::count(MAX_MESSAGES))
    }
}

/// Groups consecutive ids, in the order in which they come.
pub(in crate::store) fn ranges<'a>(ids: impl IntoIterator<Item = &'a MessageId>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for id in ids {
        let (stream, position) = split_id(id);
        match ranges.last_mut() {
            Some(range) if range.stream == stream && range.last + 1 == position => {
                range.last = position;
            }
            Some(range)
                if range.stream == stream && (range.first..=range.last).contains(&position) => {}
            _ => ranges.push(Range {
                stream,
                first: position,
                last: position,
            }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> MessageId {
        MessageId::new(text).unwrap()
    }

    #[test]
    fn consecutive_ids_are_grouped() {
        let (a, b) = (StreamId::new(1, 2), StreamId::new(1, 3));
        let ids = [
            a.message_id(7).unwrap(),
            a.message_id(8).unwrap(),
            a.message_id(8).unwrap(),
            id("x"),
            b.message_id(9).unwrap(),
            a.message_id(9).unwrap(),
            a.message_id(11).unwrap(),
        ];
        let found: Vec<(String, i64, i64)> = ranges(&ids)
            .into_iter()
            .map(|range| (range.stream.to_string(), range.first, range.last))
            .collect();
        let text = |stream: StreamId| stream.to_string()[..26].to_owned();
        assert_eq!(
            found,
            [
                (text(a), 7, 8),
                ("x".to_owned(), -1, -1),
                (text(b), 9, 9),
                (text(a), 9, 9),
                (text(a), 11, 11)
            ]
        );
    }

    proptest! {
        #[test]
        fn every_id_survives_splitting_and_joining(
            time: u64, random: u64, position in 0..ciphermq_protocol::message_id::POSITIONS, other in "[!-~]{1,60}"
        ) {
            for id in [StreamId::new(time, random).message_id(position).unwrap(), id(&other)] {
                let (stream, position) = split_id(&id);
                prop_assert_eq!(message_id(&stream.to_string(), position).unwrap(), id);
            }
        }
    }
}
