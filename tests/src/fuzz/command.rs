use bytes::{Bytes, BytesMut};
use ciphermq_protocol::{Command, Reply};

use super::one_line;

/// Checks that a line is either a command, which round-trips and has at least one line of reply, or
/// an error, whose replies can be parsed.
pub fn command(data: &[u8]) {
    let line = one_line(data);
    match Command::parse(&line) {
        Ok(command) => {
            let written = encoded(|out| command.encode(out));
            let again = Command::parse(&written)
                .unwrap_or_else(|error| panic!("{written:?} of {line:?} is refused: {error}"));
            // A carriage return cannot be part of a line, so it is written as a space.
            if !line.contains(&b'\r') {
                assert_eq!(again, command, "{written:?} of {line:?}");
            }
            assert!(command.reply_lines() >= 1);
        }
        Err(error) => {
            let replies = error.replies();
            assert!(!replies.is_empty());
            for reply in replies {
                let written = encoded(|out| reply.encode(out));
                Reply::parse(&written)
                    .unwrap_or_else(|error| panic!("in answer to {line:?}: {error}"));
            }
        }
    }
}

/// Encodes into exactly one line, and returns it without its ending.
pub(super) fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    encode(&mut out);
    assert_eq!(
        out.iter().filter(|byte| **byte == b'\n').count(),
        1,
        "{out:?}"
    );
    assert_eq!(out.last(), Some(&b'\n'), "{out:?}");
    out.truncate(out.len() - 1);
    out.freeze()
}
