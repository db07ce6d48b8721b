//! Message ids of this implementation: UUIDv8 (RFC 9562, section 5.8), sorted by time, naming their
//! stream.
//!
//! ```text
//!   48 bits  Unix milliseconds of the stream's start
//!    4 bits  version, 8
//!   12 bits  random, of the stream
//!    2 bits  variant, binary 10
//!   22 bits  random, of the stream
//!   40 bits  position in the stream, from 0
//! ```
//!
//! Ids of one stream differ only in their position. So they sort in the order of sending, a
//! restarted sender can make the same ids again, and a set of them is a few intervals.

use std::fmt;

use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::name::MessageId;

/// The number of positions in a stream: 2^40.
pub const POSITIONS: u64 = 1 << 40;

const VERSION: u128 = 8 << 76;
const VERSION_MASK: u128 = 0xf << 76;
const VARIANT: u128 = 0b10 << 62;
const VARIANT_MASK: u128 = 0b11 << 62;
const POSITION_MASK: u128 = (POSITIONS - 1) as u128;

/// The id of a stream of messages: a message id without its position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u128);

impl StreamId {
    /// Creates the id of a stream that starts at `unix_millis`, of which 48 bits are used.
    ///
    /// 34 bits of `random` distinguish it from other streams of the same millisecond.
    #[must_use]
    pub fn new(unix_millis: u64, random: u64) -> Self {
        let time = u128::from(unix_millis & ((1 << 48) - 1)) << 80;
        let high = u128::from(random >> 22 & 0xfff) << 64;
        let low = u128::from(random & 0x3f_ffff) << 40;
        Self(time | VERSION | high | VARIANT | low)
    }

    /// Returns the id of the message at `position`; `None` from [`POSITIONS`] on, where the stream
    /// ends.
    #[must_use]
    pub fn message_id(self, position: u64) -> Option<MessageId> {
        (position < POSITIONS)
            .then(|| text(self.0 | u128::from(position)))
            .and_then(|id| MessageId::new(&id).ok())
    }

    /// Splits an id of this form into stream and position; `None` for other clients' ids.
    #[must_use]
    pub fn split(id: &MessageId) -> Option<(Self, u64)> {
        let value = parse(id.as_str())?;
        let ours = value & VERSION_MASK == VERSION && value & VARIANT_MASK == VARIANT;
        let position = u64::try_from(value & POSITION_MASK).ok()?;
        ours.then_some((Self(value & !POSITION_MASK), position))
    }

    /// Returns the start of the stream by its sender's clock, in Unix milliseconds.
    #[must_use]
    pub fn started_millis(self) -> u64 {
        u64::try_from(self.0 >> 80).unwrap_or_default()
    }

    /// Returns the id as a number: the message id at position 0, big-endian.
    #[must_use]
    pub fn to_u128(self) -> u128 {
        self.0
    }

    /// Converts a number of [`StreamId::to_u128`]; `None` for any other.
    #[must_use]
    pub fn from_u128(value: u128) -> Option<Self> {
        let ours = value & VERSION_MASK == VERSION
            && value & VARIANT_MASK == VARIANT
            && value & POSITION_MASK == 0;
        ours.then_some(Self(value))
    }
}

/// Writes the message id at position 0.
impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text(self.0))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

/// Formats a UUID canonically: lower-case hexadecimal, 8-4-4-4-12 (RFC 9562, section 4).
fn text(value: u128) -> String {
    Uuid::from_u128(value).to_string()
}

/// Parses the canonical text only.
///
/// An id with two spellings would let a replay pass under the other one.
fn parse(text: &str) -> Option<u128> {
    let is_canonical =
        text.len() == Hyphenated::LENGTH && !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let uuid = is_canonical.then(|| Uuid::try_parse(text).ok())??;
    Some(uuid.as_u128())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_have_the_layout_of_uuid_v8() {
        let stream = StreamId::new(0x0199_2a3b_4c5d, 0x3_ffff_ffff);
        assert_eq!(
            stream.message_id(0).unwrap().as_str(),
            "01992a3b-4c5d-8fff-bfff-ff0000000000"
        );
        assert_eq!(
            stream.message_id(0x12_3456_789a).unwrap().as_str(),
            "01992a3b-4c5d-8fff-bfff-ff123456789a"
        );
        assert_eq!(
            StreamId::new(0, 0).message_id(1).unwrap().as_str(),
            "00000000-0000-8000-8000-000000000001"
        );
        assert_eq!(stream.message_id(POSITIONS), None);
    }

    #[test]
    fn other_ids_have_no_stream() {
        for id in [
            "bf9c702b-0b6d-4e49-b4ac-f77efb0be277",
            "sender_1-1a2b3c4d-receiver_1",
            "01992A3B-4C5D-8FFF-BFFF-FF0000000000",
            "01992a3b-4c5d-8fff-ffff-ff0000000000",
            "01992a3b4c5d8fffbfffff0000000000",
            "01992a3b-4c5d-8fff-bfffff-0000000000",
        ] {
            assert_eq!(StreamId::split(&MessageId::new(id).unwrap()), None, "{id}");
        }
    }

    proptest! {
        #[test]
        fn stream_and_position_round_trip(millis in 0u64..1 << 48, random: u64, position in 0..POSITIONS) {
            let stream = StreamId::new(millis, random);
            let id = stream.message_id(position).unwrap();
            prop_assert_eq!(StreamId::split(&id), Some((stream, position)));
            prop_assert_eq!(stream.started_millis(), millis);
            prop_assert_eq!(StreamId::from_u128(stream.to_u128()), Some(stream));
        }

        #[test]
        fn ids_sort_by_position(millis in 0u64..1 << 48, random: u64, a in 0..POSITIONS, b in 0..POSITIONS) {
            let stream = StreamId::new(millis, random);
            prop_assert_eq!(stream.message_id(a).cmp(&stream.message_id(b)), a.cmp(&b));
        }
    }
}
