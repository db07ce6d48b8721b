//! Splitting of a byte stream into lines, and the bytes that follow some of them.

use bytes::{Bytes, BytesMut};

use crate::envelope::binary;

/// An error about a line that exceeds the limit.
///
/// The rest of the stream cannot be decoded: close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {limit} bytes")]
pub struct LineTooLong {
    /// The limit, in bytes, without the line ending.
    pub limit: usize,
}

/// A decoder that splits a growing buffer into lines and examines every byte once.
///
/// A line ends with `\n` or `\r\n`. A line of messages in the binary form says how many bytes
/// follow it, and is returned with them, its own ending between. The caller owns the buffer and can
/// read from a socket directly into it.
#[derive(Debug, Clone)]
pub struct LineDecoder {
    limit: usize,
    /// Length of the buffer's start that is known to contain no `\n`.
    searched: usize,
    /// Length of the line at the buffer's start with its ending and the bytes after it, if bytes
    /// follow it.
    whole: Option<usize>,
}

impl LineDecoder {
    /// Creates a decoder for lines of at most `limit` bytes, without the line ending.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            searched: 0,
            whole: None,
        }
    }

    /// Removes the next complete line from the front of `buffer`; `None` if there is none yet.
    ///
    /// The returned line lacks its ending unless bytes follow it, and shares the buffer's memory.
    ///
    /// # Errors
    ///
    /// [`LineTooLong`] as soon as the line, with the bytes after it and as a text, exceeds the
    /// limit, even if its end has not arrived.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, LineTooLong> {
        if let Some(whole) = self.whole {
            return Ok(self.take_whole(whole, buffer));
        }
        let unsearched = buffer.get(self.searched..).unwrap_or_default();
        let Some(offset) = memchr::memchr(b'\n', unsearched) else {
            self.searched = buffer.len();
            // The first byte past the limit may be the `\r` of an ending.
            let longest = self.limit + usize::from(buffer.last() == Some(&b'\r'));
            return if buffer.len() > longest {
                Err(LineTooLong { limit: self.limit })
            } else {
                Ok(None)
            };
        };
        let end = self.searched + offset;
        self.searched = 0;
        if let Some(header) = buffer.get(..end).and_then(binary::Header::read) {
            let whole = end.saturating_add(1).saturating_add(header.bytes);
            if whole - 1 > self.limit || header.min_text() > self.limit {
                return Err(LineTooLong { limit: self.limit });
            }
            return Ok(self.take_whole(whole, buffer));
        }
        let mut line = buffer.split_to(end + 1);
        line.truncate(end);
        if line.last() == Some(&b'\r') {
            line.truncate(end - 1);
        }
        if line.len() > self.limit {
            Err(LineTooLong { limit: self.limit })
        } else {
            Ok(Some(line.freeze()))
        }
    }

    /// Removes a line and the bytes after it, if all of them have arrived.
    fn take_whole(&mut self, whole: usize, buffer: &mut BytesMut) -> Option<Bytes> {
        let has_all = buffer.len() >= whole;
        self.whole = (!has_all).then_some(whole);
        has_all.then(|| buffer.split_to(whole).freeze())
    }
}

/// Returns an upper bound of the number of messages that a command line names, without parsing it.
///
/// What a server keeps for each of them takes far more memory than their shortest text.
#[must_use]
pub fn messages_at_most(line: &[u8]) -> usize {
    if let Some(messages) = binary::messages_at_most(line) {
        return messages;
    }
    // Every id of an `ack` follows a space, and every envelope begins with a brace.
    let before = if line.starts_with(b"ack ") {
        b' '
    } else {
        b'{'
    };
    memchr::memchr_iter(before, line).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes `pieces` one after the other and collects the lines.
    fn lines_of(limit: usize, pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let mut decoder = LineDecoder::new(limit);
        let mut buffer = BytesMut::new();
        let mut lines = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(line) = decoder.decode(&mut buffer)? {
                lines.push(line.to_vec());
            }
        }
        Ok(lines)
    }

    #[test]
    fn both_endings_and_empty_lines() {
        let lines = lines_of(10, &[b"a\r\n\nb", b"c\n\r", b"\n", b"rest"]).unwrap();
        assert_eq!(lines, [&b"a"[..], b"", b"bc", b""]);
    }

    #[test]
    fn the_limit_counts_the_line_without_its_ending() {
        assert_eq!(lines_of(3, &[b"abc\r\n"]).unwrap(), [b"abc"]);
        assert_eq!(lines_of(3, &[b"abc\r", b"\n"]).unwrap(), [b"abc"]);
        assert_eq!(lines_of(3, &[b"abcd\n"]), Err(LineTooLong { limit: 3 }));
        assert_eq!(lines_of(3, &[b"ab", b"cd"]), Err(LineTooLong { limit: 3 }));
        assert_eq!(
            lines_of(3, &[b"abc\r", b"x\n"]),
            Err(LineTooLong { limit: 3 })
        );
    }

    #[test]
    fn messages_of_a_line_are_counted_without_parsing() {
        assert_eq!(messages_at_most(b"ack a b c"), 3);
        assert_eq!(
            messages_at_most(br#"publish_batch e k [{"a":1}, {"b":{}}]"#),
            3
        );
        assert_eq!(messages_at_most(b"ping"), 0);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_the_pieces(
            lines in proptest::collection::vec(proptest::collection::vec(any::<u8>().prop_filter("ending", |b| !b"\r\n".contains(b)), 0..40), 0..20),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        ) {
            let mut whole = Vec::new();
            for line in &lines {
                whole.extend_from_slice(line);
                whole.push(b'\n');
            }
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
            ends.push(whole.len());
            ends.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for end in ends {
                pieces.push(&whole[start..end]);
                start = end;
            }
            prop_assert_eq!(lines_of(40, &pieces).unwrap(), lines);
        }
    }
}
