use bytes::BytesMut;
use ciphermq_protocol::LineDecoder;

/// Checks that decoded lines do not depend on how their bytes are split, contain no line ending,
/// and respect the limit.
///
/// The first byte of the input is the maximum length of a line, the second the length of the pieces
/// less one.
pub fn line(data: &[u8]) {
    let [limit, piece, stream @ ..] = data else {
        return;
    };
    let (limit, piece) = (usize::from(*limit), usize::from(*piece) + 1);
    let whole = lines(limit, stream, stream.len().max(1));
    assert_eq!(
        whole,
        lines(limit, stream, piece),
        "pieces of {piece} bytes"
    );
    assert_eq!(whole, lines(limit, stream, 1), "one byte at a time");

    let (lines, refused) = whole;
    let mut expected = stream.split(|byte| *byte == b'\n');
    for line in &lines {
        let expected = expected.next().expect("no more lines than line endings");
        assert_eq!(
            line.as_slice(),
            expected.strip_suffix(b"\r").unwrap_or(expected)
        );
        assert!(
            line.len() <= limit,
            "{} bytes pass a limit of {limit}",
            line.len()
        );
    }
    let rest = expected.next();
    let is_whole = expected.next().is_some();
    if refused {
        let rest = rest.expect("there is a line that is too long");
        assert!(
            rest.len() > limit,
            "{} bytes were refused by a limit of {limit}",
            rest.len()
        );
    } else {
        assert!(!is_whole, "a complete line was not decoded");
    }
}

/// Decodes a stream in pieces of this length. Returns the lines, and whether one was too long.
fn lines(limit: usize, stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = LineDecoder::new(limit);
    let (mut buffer, mut lines) = (BytesMut::new(), Vec::new());
    for piece in stream.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(line)) => lines.push(line.to_vec()),
                Ok(None) => break,
                Err(_) => return (lines, true),
            }
        }
    }
    (lines, false)
}
