//! What is to be done with a file of which a checkpoint tells: which stream carries what of it.
//!
//! ```text
//!   the file        |--------- pinned by the checkpoint's stream ---------|-- appended since --|
//!   acknowledged    |------------------->                                 |                    |
//!   this run                             |--- the rest, the same stream --|--- the next one ---|
//! ```

use ciphermq_client::resume::StreamState;

use super::lines::Start;
use super::pinned::Pinned;
use super::survey::Survey;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// All is sent and acknowledged.
    Sent,
    /// The checkpoint's stream goes on here. What was appended, if anything was, begins at `then`.
    GoOn { at: Start, then: Option<Start> },
    /// The checkpoint's stream has carried what it can: the next one begins here.
    Next { at: Start },
}

/// How a file differs from the one that the checkpoint tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Other {
    /// It has fewer bytes.
    Shorter,
    /// Something in it is not what it was.
    Changed,
    /// Its last line had no ending, and was sent as it was; now it goes on.
    LastLineGoesOn,
}

impl Course {
    /// Compares a file with what its checkpoint tells. The survey has marks at both of the
    /// checkpoint's places.
    pub(super) fn of(state: &StreamState, pinned: &Pinned, survey: &Survey) -> Result<Self, Other> {
        let end = survey.mark(pinned.bytes).ok_or(Other::Shorter)?;
        if end.before != *pinned {
            return Err(Other::Changed);
        }
        let place = state.place.min(pinned.bytes);
        let begin = survey.mark(place).ok_or(Other::Shorter)?;
        // Somebody was writing the last line when it was pinned. Unless it was sent as it was, the
        // stream ends before it.
        let (appended, is_all) = match end.next_line() {
            Some(appended) => (appended, state.complete && end.last_message <= place),
            None if place <= end.line().bytes => (end.line(), end.last_whole_message <= place),
            None => return Err(Other::LastLineGoesOn),
        };
        let then = (survey.last_message > appended.bytes).then_some(appended);
        Ok(match (is_all, then, begin.next_line()) {
            (true, Some(at), _) => Self::Next { at },
            (true, None, _) => Self::Sent,
            (false, then, Some(at)) => Self::GoOn { at, then },
            // A version before this one took the end of a file that was cut while it was sent for
            // the end of all, and sent what was left of a line as a message. That line is sent
            // whole, under a new id.
            (false, _, None) => Self::Next { at: begin.line() },
        })
    }

    /// Where reading begins; `None` if nothing is to be sent.
    pub(super) fn start(&self) -> Option<Start> {
        match *self {
            Self::Sent => None,
            Self::GoOn { at, .. } | Self::Next { at } => Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ciphermq_client::{ClientId, ExchangeName, RoutingKey};
    use std::collections::BTreeSet;
    use std::io::Write as _;

    fn survey(text: &[u8], places: impl IntoIterator<Item = u64>) -> Survey {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        Survey::of(&mut file, 0, &places.into_iter().collect::<BTreeSet<_>>()).unwrap()
    }

    /// What is to be done when `before` was pinned and acknowledged up to `place`, and now the file
    /// is `after`.
    fn course(before: &str, place: u64, complete: bool, after: &[u8]) -> Result<Course, Other> {
        let pinned = survey(before.as_bytes(), []).whole;
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
        Course::of(
            &state,
            &pinned,
            &survey(after, [place.min(pinned.bytes), pinned.bytes]),
        )
    }

    fn start(bytes: u64, lines: u64) -> Start {
        Start { bytes, lines }
    }

    fn go_on(at: Start, then: Option<Start>) -> Result<Course, Other> {
        Ok(Course::GoOn { at, then })
    }

    fn next(at: Start) -> Result<Course, Other> {
        Ok(Course::Next { at })
    }

    #[test]
    fn an_unchanged_file_goes_on_at_its_place_until_it_is_sent() {
        let text = "a\nbc\nd\n";
        assert_eq!(
            course(text, 5, false, text.as_bytes()),
            go_on(start(5, 2), None)
        );
        assert_eq!(
            course(text, 7, false, text.as_bytes()),
            go_on(start(7, 3), None)
        );
        assert_eq!(course(text, 7, true, text.as_bytes()), Ok(Course::Sent));
        assert_eq!(course("", 0, false, b""), go_on(start(0, 0), None));
        assert_eq!(course("", 0, true, b""), Ok(Course::Sent));
    }

    #[test]
    fn what_was_appended_is_for_the_next_stream() {
        let text = "a\nb\n";
        assert_eq!(course(text, 4, true, b"a\nb\nc"), next(start(4, 2)));
        assert_eq!(
            course(text, 2, false, b"a\nb\nc"),
            go_on(start(2, 1), Some(start(4, 2)))
        );
        assert_eq!(course("", 0, true, b"a\n"), next(start(0, 0)));
        // Empty lines are no messages.
        assert_eq!(course(text, 4, true, b"a\nb\n\n\r\n"), Ok(Course::Sent));
        assert_eq!(
            course(text, 2, false, b"a\nb\n\n"),
            go_on(start(2, 1), None)
        );
    }

    #[test]
    fn a_last_line_without_ending_may_get_one() {
        assert_eq!(course("a\nb", 3, true, b"a\nb"), Ok(Course::Sent));
        assert_eq!(course("a\nb", 3, true, b"a\nb\n"), Ok(Course::Sent));
        assert_eq!(course("a\nb", 3, true, b"a\nb\nc"), next(start(4, 2)));
        assert_eq!(
            course("a\nb", 2, false, b"a\nb\r\nc"),
            go_on(start(2, 1), Some(start(5, 2)))
        );
        for after in [&b"a\nbc"[..], b"a\nb\rc\n", b"a\nb\r"] {
            assert_eq!(course("a\nb", 3, true, after), Err(Other::LastLineGoesOn));
        }
        assert_eq!(
            course("a\nb\r", 4, true, b"a\nb\r\n"),
            Err(Other::LastLineGoesOn)
        );
    }

    #[test]
    fn a_last_line_that_goes_on_and_was_not_sent_is_for_the_next_stream() {
        for complete in [false, true] {
            for after in [&b"a\nb and more\n"[..], b"a\nb and more", b"a\nb\rc\nd"] {
                assert_eq!(
                    course("a\nb", 0, complete, after),
                    go_on(start(0, 0), Some(start(2, 1)))
                );
                assert_eq!(course("a\nb", 2, complete, after), next(start(2, 1)));
            }
            assert_eq!(course("b", 0, complete, b"bc\n"), next(start(0, 0)));
            // Cut between the two bytes of its ending.
            assert_eq!(
                course("a\nb\r", 2, complete, b"a\nb\r\n"),
                next(start(2, 1))
            );
            assert_eq!(course("a\n\r", 2, complete, b"a\n\r\n"), Ok(Course::Sent));
            assert_eq!(
                course("a\n\n\r", 2, complete, b"a\n\n\r\nb"),
                next(start(3, 2))
            );
        }
        for place in [3, 4] {
            assert_eq!(
                course("a\nbc", place, false, b"a\nbcd\n"),
                Err(Other::LastLineGoesOn)
            );
        }
    }

    #[test]
    fn every_changed_byte_is_noticed_before_and_behind_the_place() {
        let text = "one\ntwo\nthree\n";
        for at in 0..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] ^= 1;
            assert_eq!(
                course(text, 8, false, &changed),
                Err(Other::Changed),
                "{at}"
            );
            changed.extend_from_slice(b"four\n");
            assert_eq!(course(text, 8, true, &changed), Err(Other::Changed), "{at}");
        }
        for end in 0..text.len() {
            assert_eq!(
                course(text, 8, false, &text.as_bytes()[..end]),
                Err(Other::Shorter),
                "{end}"
            );
        }
    }

    #[test]
    fn a_file_that_was_called_complete_and_is_not_goes_on() {
        let text = "one\ntwo\nthree\n";
        assert_eq!(
            course(text, 4, true, text.as_bytes()),
            go_on(start(4, 1), None)
        );
        let longer = b"one\ntwo\nthree\nfour";
        assert_eq!(
            course(text, 4, true, longer),
            go_on(start(4, 1), Some(start(14, 3)))
        );
        // Only empty lines were left.
        assert_eq!(course("one\n\n\n", 4, true, b"one\n\n\n"), Ok(Course::Sent));
    }

    #[test]
    fn a_line_of_which_the_beginning_was_sent_as_a_message_is_sent_whole() {
        let text = "one\ntwo\nthree\n";
        for place in [5, 6] {
            assert_eq!(
                course(text, place, true, text.as_bytes()),
                next(start(4, 1))
            );
            assert_eq!(
                course(text, place, false, text.as_bytes()),
                next(start(4, 1))
            );
        }
    }
}
