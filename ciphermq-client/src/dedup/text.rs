//! The text form of a record, for checkpoints and journals.
//!
//! ```text
//! stream <sender> <id at position 0> 0-17516,17518
//! unnamed-stream <id at position 0> 0-3
//! other <sender> <message id>
//! unnamed-other <message id>
//! ```
//!
//! Streams are those of this SDK's publishers; their positions are written as intervals, both ends
//! included, or as a single number. Other ids are in the order in which they were recorded.

use std::fmt::Write as _;

use ciphermq_protocol::{ClientId, MessageId, StreamId};

use super::{Deduplication as _, InMemory};

/// The most altered bytes in the beginning of a torn line.
const MAX_ALTERED: usize = 1;

/// Appends the lines of everything in `record`.
pub(super) fn write(record: &InMemory, out: &mut String) {
    for (sender, stream, positions) in record.all_streams() {
        // Writing to a `String` cannot fail, here and below.
        let _ = match sender {
            Some(sender) => write!(out, "stream {sender} {stream} "),
            None => write!(out, "unnamed-stream {stream} "),
        };
        for (index, (first, last)) in positions.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = if first == last {
                write!(out, "{comma}{first}")
            } else {
                write!(out, "{comma}{first}-{last}")
            };
        }
        out.push('\n');
    }
    for (sender, id) in record.all_others() {
        let _ = match sender {
            Some(sender) => writeln!(out, "other {sender} {id}"),
            None => writeln!(out, "unnamed-other {id}"),
        };
    }
}

/// Adds the content of a line to `record`; `None` if it is malformed.
pub(super) fn read(line: &str, record: &mut InMemory) -> Option<()> {
    let (word, rest) = line.split_once(' ')?;
    match word {
        "stream" => {
            let (sender, rest) = rest.split_once(' ')?;
            read_positions(Some(&ClientId::new(sender).ok()?), rest, record)
        }
        "unnamed-stream" => read_positions(None, rest, record),
        "other" => {
            let (sender, id) = rest.split_once(' ')?;
            let (sender, id) = (ClientId::new(sender).ok()?, MessageId::new(id).ok()?);
            record.record(Some(&sender), &id).ok()
        }
        "unnamed-other" => record.record(None, &MessageId::new(rest).ok()?).ok(),
        _ => None,
    }
}

/// Whether these bytes can be the remains of such lines after a crash: they start like a line, or
/// with zeros for what was not on the disk yet. Other files do not.
pub(super) fn may_be_torn(bytes: &[u8]) -> bool {
    let begins_like = |word: &&str| {
        bytes
            .iter()
            .zip(word.bytes())
            .filter(|&(&theirs, ours)| theirs != ours && theirs != 0)
            .count()
            <= MAX_ALTERED
    };
    ["stream ", "unnamed-stream ", "other ", "unnamed-other "]
        .iter()
        .any(begins_like)
}

fn read_positions(sender: Option<&ClientId>, text: &str, record: &mut InMemory) -> Option<()> {
    let (stream, ranges) = text.split_once(' ')?;
    let (stream, 0) = StreamId::split(&MessageId::new(stream).ok()?)? else {
        return None;
    };
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        // An interval with an impossible end, or one before its start, was not written by this SDK.
        if last < first || last >= ciphermq_protocol::message_id::POSITIONS {
            return None;
        }
        record.record_positions(sender, stream, first, last);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(record: &InMemory) -> String {
        let mut out = String::new();
        write(record, &mut out);
        out
    }

    #[test]
    fn the_lines_are_the_documented_ones() {
        let mut record = InMemory::default();
        let stream = StreamId::new(0x0199_2a3b_4c5d, 0x3_ffff_ffff);
        let sender = ClientId::new("sender_1").unwrap();
        for position in [0, 1, 2, 4, 6, 7] {
            let id = stream.message_id(position).unwrap();
            record.record(Some(&sender), &id).unwrap();
        }
        record.record(None, &stream.message_id(9).unwrap()).unwrap();
        record
            .record(Some(&sender), &MessageId::new("z-1").unwrap())
            .unwrap();
        record
            .record(None, &MessageId::new("a-1").unwrap())
            .unwrap();
        assert_eq!(
            lines(&record),
            "stream sender_1 01992a3b-4c5d-8fff-bfff-ff0000000000 0-2,4,6-7\n\
             unnamed-stream 01992a3b-4c5d-8fff-bfff-ff0000000000 9\n\
             other sender_1 z-1\n\
             unnamed-other a-1\n"
        );
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in [
            "",
            "stream",
            "stream a",
            "stream a 01992a3b-4c5d-8fff-bfff-ff0000000000",
            "stream a 01992a3b-4c5d-8fff-bfff-ff0000000000 ",
            "stream a 01992a3b-4c5d-8fff-bfff-ff0000000001 0",
            "stream a 01992a3b-4c5d-8fff-bfff-ff0000000000 2-1",
            "stream a 01992a3b-4c5d-8fff-bfff-ff0000000000 0-1099511627776",
            "stream a 01992a3b-4c5d-8fff-bfff-ff0000000000 0,",
            "stream a other-id 0",
            "other a",
            "other a b c",
            "something a b",
        ] {
            assert!(read(line, &mut InMemory::default()).is_none(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_wrote(
            messages in proptest::collection::vec((0usize..3, 0u64..3, 0u64..40), 0..100),
            others in proptest::collection::vec((0usize..3, "[a-z#-]{1,8}"), 0..20),
        ) {
            let senders = [None, Some(ClientId::new("a").unwrap()), Some(ClientId::new("-").unwrap())];
            let mut record = InMemory::default();
            for (sender, stream, position) in messages {
                let id = StreamId::new(stream, stream).message_id(position).unwrap();
                record.record(senders[sender].as_ref(), &id).unwrap();
            }
            for (sender, id) in others {
                record.record(senders[sender].as_ref(), &MessageId::new(&id).unwrap()).unwrap();
            }
            let text = lines(&record);
            let mut again = InMemory::default();
            for line in text.lines() {
                prop_assert!(read(line, &mut again).is_some(), "{}", line);
            }
            prop_assert_eq!(lines(&again), text);
            prop_assert_eq!(again.messages(), record.messages());
        }
    }
}
