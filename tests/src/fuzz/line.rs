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
    let mut rest = stream;
    for line in &lines {
        let expected = next(&mut rest, limit).expect("no more lines than line endings");
        assert_eq!(line.as_slice(), expected.line);
        assert!(
            expected.length <= limit,
            "{line:?} passes a limit of {limit}"
        );
    }
    match next(&mut rest, limit) {
        Some(next) if refused => assert!(next.length > limit, "{next:?} was refused by {limit}"),
        Some(next) => panic!("{next:?} was not decoded"),
        None if refused => assert!(rest.len() > limit, "{rest:?} was refused by {limit}"),
        None => {}
    }
}

/// A line as the decoder should return it, and the length that is limited.
#[derive(Debug)]
struct Expected<'a> {
    line: &'a [u8],
    length: usize,
}

/// Removes the next line from a stream; `None` if it is not complete. A line that says that too
/// many bytes follow it is complete.
fn next<'a>(stream: &mut &'a [u8], limit: usize) -> Option<Expected<'a>> {
    let whole: &[u8] = stream;
    let end = whole.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = (&whole[..end], &whole[end + 1..]);
    if let Some(after) = bytes_after(line) {
        let taken = rest.len().min(after);
        let length = end.saturating_add(after);
        if taken < after && length <= limit {
            return None;
        }
        *stream = &rest[taken..];
        return Some(Expected {
            line: &whole[..end + 1 + taken],
            length,
        });
    }
    *stream = rest;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let length = line.len();
    Some(Expected { line, length })
}

/// How many bytes follow a line, if it says so.
fn bytes_after(line: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(line);
    let rest = ["publish_binary ", "Binary messages: "]
        .iter()
        .find_map(|word| text.strip_prefix(word))?;
    let (digits, _) = rest.split_once(' ')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(usize::MAX))
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
