//! The rest of a file that has a checkpoint: what remains to be sent, and in which stream.
//!
//! ```text
//!   the file        |--------- pinned by the checkpoint's stream ---------|-- appended since --|
//!   acknowledged    |------------------->                                 |                    |
//!   this run                             |--- the rest, the same stream --|--- the next one ---|
//! ```

use ciphermq_client::resume::StreamState;

use super::digest::FileDigest;
use super::file_scan::FileScan;
use super::lines::InputPosition;

/// The way in which sending resumes from a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResumePlan {
    /// Everything is sent and acknowledged.
    Complete,
    /// The checkpoint's stream continues at `from`. If lines were appended since, the next stream
    /// begins with them, at `next_stream_at`.
    Continue {
        from: InputPosition,
        next_stream_at: Option<InputPosition>,
    },
    /// The checkpoint's stream is complete; the next stream begins at `from`.
    NextStream { from: InputPosition },
}

/// The difference between a file and the one that its checkpoint describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// The file has fewer bytes.
    Truncated,
    /// A byte within the pinned length has changed.
    Modified,
    /// The last line had no ending and was sent without one; it has been extended since.
    LastLineExtended,
}

impl ResumePlan {
    /// Compares a file with its checkpoint. The scan must have prefixes at both of the checkpoint's
    /// offsets.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] if the file does not begin with what the checkpoint pins.
    pub(super) fn compare(
        state: &StreamState,
        pinned: &FileDigest,
        scan: &FileScan,
    ) -> Result<Self, Mismatch> {
        let end = scan.prefix(pinned.bytes).ok_or(Mismatch::Truncated)?;
        if end.digest != *pinned {
            return Err(Mismatch::Modified);
        }
        let place = state.place.min(pinned.bytes);
        let begin = scan.prefix(place).ok_or(Mismatch::Truncated)?;
        // The last line may have been incomplete when it was pinned. Unless it was sent like that,
        // the stream ends before it.
        let (appended, is_all) = match end.next_line() {
            Some(appended) => (appended, state.complete && end.last_message_end <= place),
            None if place <= end.line().bytes => (end.line(), end.last_whole_message_end <= place),
            None => return Err(Mismatch::LastLineExtended),
        };
        let next_stream_at = (scan.last_message_end > appended.bytes).then_some(appended);
        Ok(match (is_all, next_stream_at, begin.next_line()) {
            (true, Some(from), _) => Self::NextStream { from },
            (true, None, _) => Self::Complete,
            (false, next_stream_at, Some(from)) => Self::Continue {
                from,
                next_stream_at,
            },
            // An earlier version took the end of a file that was truncated while it was sent for
            // the end of the stream, and sent the beginning of a line as a message. That line is
            // sent whole, under a new id.
            (false, _, None) => Self::NextStream { from: begin.line() },
        })
    }

    /// The position at which reading begins; `None` if nothing is to be sent.
    pub(super) fn start(&self) -> Option<InputPosition> {
        match *self {
            Self::Complete => None,
            Self::Continue { from, .. } | Self::NextStream { from } => Some(from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ciphermq_client::{ClientId, ExchangeName, RoutingKey};
    use std::collections::BTreeSet;
    use std::io::Write as _;

    fn scan(text: &[u8], places: impl IntoIterator<Item = u64>) -> FileScan {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        FileScan::read(&mut file, 0, &places.into_iter().collect::<BTreeSet<_>>()).unwrap()
    }

    /// The plan when `before` was pinned and acknowledged up to `place`, and the file is now
    /// `after`.
    fn plan(
        before: &str,
        place: u64,
        complete: bool,
        after: &[u8],
    ) -> Result<ResumePlan, Mismatch> {
        let pinned = scan(before.as_bytes(), []).digest;
        let state = StreamState {
            stream: ciphermq_client::StreamId::new(1, 1),
            sender: ClientId::new("s").unwrap(),
            receiver: ClientId::new("r").unwrap(),
            exchange: ExchangeName::new("e").unwrap(),
            routing_key: RoutingKey::new("k").unwrap(),
            server: String::new(),
            input: pinned.to_string(),
            earlier: 0,
            begins: 0,
            acknowledged: 1,
            place,
            complete,
        };
        ResumePlan::compare(
            &state,
            &pinned,
            &scan(after, [place.min(pinned.bytes), pinned.bytes]),
        )
    }

    fn position(bytes: u64, lines: u64) -> InputPosition {
        InputPosition { bytes, lines }
    }

    fn continues(
        from: InputPosition,
        next_stream_at: Option<InputPosition>,
    ) -> Result<ResumePlan, Mismatch> {
        Ok(ResumePlan::Continue {
            from,
            next_stream_at,
        })
    }

    fn next_stream(from: InputPosition) -> Result<ResumePlan, Mismatch> {
        Ok(ResumePlan::NextStream { from })
    }

    #[test]
    fn an_unchanged_file_continues_at_its_place_until_it_is_sent() {
        let text = "a\nbc\nd\n";
        assert_eq!(
            plan(text, 5, false, text.as_bytes()),
            continues(position(5, 2), None)
        );
        assert_eq!(
            plan(text, 7, false, text.as_bytes()),
            continues(position(7, 3), None)
        );
        assert_eq!(
            plan(text, 7, true, text.as_bytes()),
            Ok(ResumePlan::Complete)
        );
        assert_eq!(plan("", 0, false, b""), continues(position(0, 0), None));
        assert_eq!(plan("", 0, true, b""), Ok(ResumePlan::Complete));
    }

    #[test]
    fn appended_lines_are_for_the_next_stream() {
        let text = "a\nb\n";
        assert_eq!(plan(text, 4, true, b"a\nb\nc"), next_stream(position(4, 2)));
        assert_eq!(
            plan(text, 2, false, b"a\nb\nc"),
            continues(position(2, 1), Some(position(4, 2)))
        );
        assert_eq!(plan("", 0, true, b"a\n"), next_stream(position(0, 0)));
        // Empty lines are not messages.
        assert_eq!(
            plan(text, 4, true, b"a\nb\n\n\r\n"),
            Ok(ResumePlan::Complete)
        );
        assert_eq!(
            plan(text, 2, false, b"a\nb\n\n"),
            continues(position(2, 1), None)
        );
    }

    #[test]
    fn a_last_line_without_ending_may_get_one() {
        assert_eq!(plan("a\nb", 3, true, b"a\nb"), Ok(ResumePlan::Complete));
        assert_eq!(plan("a\nb", 3, true, b"a\nb\n"), Ok(ResumePlan::Complete));
        assert_eq!(
            plan("a\nb", 3, true, b"a\nb\nc"),
            next_stream(position(4, 2))
        );
        assert_eq!(
            plan("a\nb", 2, false, b"a\nb\r\nc"),
            continues(position(2, 1), Some(position(5, 2)))
        );
        for after in [&b"a\nbc"[..], b"a\nb\rc\n", b"a\nb\r"] {
            assert_eq!(
                plan("a\nb", 3, true, after),
                Err(Mismatch::LastLineExtended)
            );
        }
        assert_eq!(
            plan("a\nb\r", 4, true, b"a\nb\r\n"),
            Err(Mismatch::LastLineExtended)
        );
    }

    #[test]
    fn an_extended_last_line_that_was_not_sent_is_for_the_next_stream() {
        for complete in [false, true] {
            for after in [&b"a\nb and more\n"[..], b"a\nb and more", b"a\nb\rc\nd"] {
                assert_eq!(
                    plan("a\nb", 0, complete, after),
                    continues(position(0, 0), Some(position(2, 1)))
                );
                assert_eq!(
                    plan("a\nb", 2, complete, after),
                    next_stream(position(2, 1))
                );
            }
            assert_eq!(plan("b", 0, complete, b"bc\n"), next_stream(position(0, 0)));
            // Cut between the two bytes of its ending.
            assert_eq!(
                plan("a\nb\r", 2, complete, b"a\nb\r\n"),
                next_stream(position(2, 1))
            );
            assert_eq!(
                plan("a\n\r", 2, complete, b"a\n\r\n"),
                Ok(ResumePlan::Complete)
            );
            assert_eq!(
                plan("a\n\n\r", 2, complete, b"a\n\n\r\nb"),
                next_stream(position(3, 2))
            );
        }
        for place in [3, 4] {
            assert_eq!(
                plan("a\nbc", place, false, b"a\nbcd\n"),
                Err(Mismatch::LastLineExtended)
            );
        }
    }

    #[test]
    fn every_changed_byte_is_detected_before_and_after_the_place() {
        let text = "one\ntwo\nthree\n";
        for at in 0..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] ^= 1;
            assert_eq!(
                plan(text, 8, false, &changed),
                Err(Mismatch::Modified),
                "{at}"
            );
            changed.extend_from_slice(b"four\n");
            assert_eq!(
                plan(text, 8, true, &changed),
                Err(Mismatch::Modified),
                "{at}"
            );
        }
        for end in 0..text.len() {
            assert_eq!(
                plan(text, 8, false, &text.as_bytes()[..end]),
                Err(Mismatch::Truncated),
                "{end}"
            );
        }
    }

    #[test]
    fn a_file_that_was_marked_complete_and_is_not_continues() {
        let text = "one\ntwo\nthree\n";
        assert_eq!(
            plan(text, 4, true, text.as_bytes()),
            continues(position(4, 1), None)
        );
        let longer = b"one\ntwo\nthree\nfour";
        assert_eq!(
            plan(text, 4, true, longer),
            continues(position(4, 1), Some(position(14, 3)))
        );
        // Only empty lines remained.
        assert_eq!(
            plan("one\n\n\n", 4, true, b"one\n\n\n"),
            Ok(ResumePlan::Complete)
        );
    }

    #[test]
    fn a_line_whose_beginning_was_sent_as_a_message_is_sent_whole() {
        let text = "one\ntwo\nthree\n";
        for place in [5, 6] {
            assert_eq!(
                plan(text, place, true, text.as_bytes()),
                next_stream(position(4, 1))
            );
            assert_eq!(
                plan(text, place, false, text.as_bytes()),
                next_stream(position(4, 1))
            );
        }
    }
}
