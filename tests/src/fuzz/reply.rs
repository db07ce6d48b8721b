use ciphermq_protocol::Reply;

use super::command::encoded;
use super::one_line;

/// A line that is a reply is written as one line, and that reads back as itself.
pub fn reply(data: &[u8]) {
    let line = one_line(data);
    let Ok(reply) = Reply::parse(&line) else {
        return;
    };
    let written = encoded(|out| reply.encode(out));
    let again = Reply::parse(&written)
        .unwrap_or_else(|error| panic!("{written:?} of {line:?} is no reply: {error}"));
    let rewritten = encoded(|out| again.encode(out));
    assert_eq!(written, rewritten, "of {line:?}");
    if let (Reply::Message(delivery), Reply::Message(back)) = (&reply, &again) {
        assert_eq!(delivery, back, "a delivery is kept byte for byte");
        // Whatever it holds: an error, not a panic.
        let _ = delivery.parse_envelope();
    }
}
