//! Packed envelopes in the binary form: a line with their number, length and shared part, and their
//! own parts after it.
//!
//! ```text
//!   <word> <bytes> … <count> <shared>\n                 bytes: the length of what follows
//!   length (32 bits, big-endian), own part              for each message
//! ```
//!
//! The own parts contain any bytes, so they are found by the length in the line, not by a line end.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::EnvelopeBytes;
use super::own::{MIN_BINARY, MIN_TEXT};
use super::packed::after_brace;

/// The word of publishes.
pub(crate) const PUBLISH: &str = "publish_binary ";
/// The word of deliveries.
pub(crate) const DELIVER: &str = "Binary messages: ";

/// The bytes before each own part.
const LENGTH: usize = 4;

/// What a line says about the bytes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Their number.
    pub(crate) bytes: usize,
    /// The number of messages; 0 if it is not a number.
    messages: usize,
}

impl Header {
    /// Reads a line without its ending; `None` for lines that no bytes follow.
    pub(crate) fn read(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // The number of arguments between both numbers.
        let (rest, between) = match line.strip_prefix(PUBLISH.as_bytes()) {
            Some(rest) => (rest, 2),
            None => (line.strip_prefix(DELIVER.as_bytes())?, 0),
        };
        let mut words = rest.split(|byte| *byte == b' ');
        let bytes = number(words.next()?)?;
        let messages = words.nth(between).and_then(number).unwrap_or(0);
        Some(Self { bytes, messages })
    }

    /// Returns the length that the messages' own parts have as texts, at least.
    pub(crate) fn min_text(self) -> usize {
        self.messages.saturating_mul(MIN_TEXT)
    }
}

/// Reads decimal digits. A number beyond any memory is the largest one.
fn number(digits: &[u8]) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    Some(text.parse().unwrap_or(usize::MAX))
}

/// Returns an upper bound of the number of messages that follow a line.
pub(crate) fn messages_at_most(line: &[u8]) -> Option<usize> {
    let (header, own) = split_header(line)?;
    Header::read(header).map(|_| own.len() / (LENGTH + MIN_BINARY))
}

/// Splits a line, without its ending, from the bytes after it; `None` if there is no such line.
pub(crate) fn split_header(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, own) = bytes.split_at_checked(memchr::memchr(b'\n', bytes)?)?;
    let header = header.strip_suffix(b"\r").unwrap_or(header);
    Some((header, own.get(1..)?))
}

/// Reads the envelopes that follow a line; `None` if a number, a length or the shared part is
/// wrong.
///
/// Own parts share the memory of `frame`, of which `own` is a part, and are not checked.
pub(crate) fn split(
    frame: &Bytes,
    own: &[u8],
    (bytes, count): (&str, &str),
    shared: &[u8],
) -> Option<Vec<EnvelopeBytes>> {
    let count: usize = count.parse().ok()?;
    if bytes.parse() != Ok(own.len()) {
        return None;
    }
    let shared = after_brace(shared)?;
    let mut envelopes = Vec::new();
    let mut rest = own;
    while let Some((&length, after)) = rest.split_first_chunk::<LENGTH>() {
        let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
        let (part, after) = after.split_at_checked(length)?;
        if length < MIN_BINARY || !super::own::is_binary(part) || envelopes.len() >= count {
            return None;
        }
        envelopes.push(EnvelopeBytes::packed(frame.slice_ref(part), shared.clone()));
        rest = after;
    }
    (rest.is_empty() && count > 0 && envelopes.len() == count).then_some(envelopes)
}

/// Appends a line and the own parts of these envelopes, which have the binary form and this shared
/// part. `route` stands between the lengths, with a space after it.
pub(crate) fn put<'a>(
    word: &str,
    route: &str,
    envelopes: impl ExactSizeIterator<Item = &'a EnvelopeBytes> + Clone,
    shared: &Bytes,
    out: &mut BytesMut,
) {
    let bytes: usize = envelopes
        .clone()
        .map(|envelope| LENGTH + envelope.own().len())
        .sum();
    let count = envelopes.len();
    out.reserve(word.len() + route.len() + shared.len() + bytes + 48);
    out.put_slice(format!("{word}{bytes} {route}{count} {{").as_bytes());
    out.put_slice(shared.get(1..).unwrap_or_default());
    out.put_u8(b'\n');
    for envelope in envelopes {
        // An own part is a part of a line, whose length has fewer bits.
        let length = u32::try_from(envelope.own().len()).unwrap_or(u32::MAX);
        out.put_u32(length);
        out.put_slice(envelope.own());
    }
}

#[cfg(test)]
mod tests;
