use bytes::{Bytes, BytesMut};
use ciphermq_protocol::envelope::{EnvelopeBytes, EnvelopeReader};
use ciphermq_protocol::{Command, Delivery, Envelope, PackedLines, Reply};

/// Checks that a line with bytes after it is a command or a reply that round-trips, or is refused,
/// and that each envelope in it is the same one as its text.
pub fn binary(data: &[u8]) {
    let line = Bytes::copy_from_slice(data);
    match Command::parse(&line) {
        Ok(command) => {
            let written = encoded(|out| command.encode(out));
            assert_eq!(Command::parse(&written).ok(), Some(command), "{line:?}");
        }
        Err(error) => assert!(!error.replies().is_empty()),
    }
    let Ok(reply) = Reply::parse(&line) else {
        return;
    };
    let Reply::Messages(deliveries) = reply else {
        return;
    };
    if deliveries
        .iter()
        .all(|delivery| delivery.envelope.is_binary())
    {
        let written = encoded(|out| Delivery::encode_packed(&deliveries, PackedLines::ALL, out));
        let mut again = Vec::new();
        for line in lines(written) {
            match Reply::parse(&line) {
                Ok(Reply::Messages(deliveries)) => again.extend(deliveries),
                other => panic!("{other:?} of {line:?}"),
            }
        }
        assert_eq!(again, deliveries, "{line:?}");
    }
    for delivery in &deliveries {
        has_its_text(&delivery.envelope);
    }
}

fn has_its_text(bytes: &EnvelopeBytes) {
    let text = bytes.to_bytes();
    assert_eq!(bytes.len(), text.len());
    assert_eq!(*bytes, bytes.with_text());
    let mut reader = EnvelopeReader::default();
    if let Ok((envelope, fields)) = reader.read(bytes) {
        let whole = Envelope::parse(text).expect("the text of an envelope is one");
        assert_eq!(envelope, whole);
        assert_eq!(fields, whole.fields().expect("it was parsed"));
    }
}

/// Encodes into a line, and returns it without its ending unless bytes follow it.
fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    encode(&mut out);
    let first = out.iter().position(|byte| *byte == b'\n');
    if first == Some(out.len() - 1) {
        out.truncate(out.len() - 1);
    }
    out.freeze()
}

/// Splits deliveries into their lines, with the bytes after each.
fn lines(written: Bytes) -> Vec<Bytes> {
    let mut decoder = ciphermq_protocol::LineDecoder::new(usize::MAX / 2);
    let (mut buffer, mut lines) = (BytesMut::from(&written[..]), Vec::new());
    while let Ok(Some(line)) = decoder.decode(&mut buffer) {
        lines.push(line);
    }
    assert!(buffer.is_empty(), "{buffer:?}");
    lines
}
