use ciphermq_protocol::Reply;

use super::command::encoded;
use super::one_line;

/// Checks that a reply is encoded as one line and round-trips.
pub fn reply(data: &[u8]) {
    let line = one_line(data);
    let Ok(reply) = Reply::parse(&line) else {
        return;
    };
    let written = encoded(|out| reply.encode(out));
    let again = Reply::parse(&written)
        .unwrap_or_else(|error| panic!("{written:?} of {line:?} is not a reply: {error}"));
    let rewritten = encoded(|out| again.encode(out));
    assert_eq!(written, rewritten, "of {line:?}");
    if let (Reply::Message(delivery), Reply::Message(back)) = (&reply, &again) {
        assert_eq!(delivery, back, "a delivery is kept byte for byte");
        // Any content may give an error, but no panic.
        let _ = delivery.parse_envelope();
    }
}
