//! Recognises an output by the hash of its last bytes, also after an editor has changed its lines.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};

use sha2::{Digest as _, Sha256};

/// Bytes before the offset that are hashed to recognise an output.
const ANCHOR_BYTES: u64 = 4096;

/// The mark that some editors put at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes that are buffered before the obsolete ones are discarded.
const WINDOW_BYTES: usize = 64 * 1024;

/// Returns the SHA-256 of the last bytes before `offset`.
pub(super) fn before(output: &File, offset: u64) -> io::Result<[u8; 32]> {
    let start = offset.saturating_sub(ANCHOR_BYTES);
    let mut bytes = Vec::new();
    let mut reader = output;
    reader.seek(SeekFrom::Start(start))?;
    reader.take(offset - start).read_to_end(&mut bytes)?;
    Ok(Sha256::digest(&bytes).into())
}

/// Returns the current end of the first `offset` bytes of an output to which an editor may have
/// added a byte order mark, whose line endings it may have changed to `\r\n`, or whose last one it
/// may have removed, or all but its `\r`. `None` if it is another output. `anchor` is the hash of
/// the last of these bytes.
pub(super) fn find_edited(
    output: &File,
    offset: u64,
    anchor: &[u8; 32],
) -> io::Result<Option<u64>> {
    let mut reader = BufReader::with_capacity(256 * 1024, output);
    reader.seek(SeekFrom::Start(0))?;
    let mut original = Original::default();
    // Bytes of the output that were read.
    let mut place = 0;
    if reader.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
        reader.consume(BYTE_ORDER_MARK.len());
        place = BYTE_ORDER_MARK.len() as u64;
    }
    let is_at_end = loop {
        let bytes = reader.fill_buf()?;
        let taken = bytes
            .iter()
            .take_while(|&&byte| original.is_before(offset, byte) && original.push(byte))
            .count();
        let is_at_end = bytes.is_empty();
        let is_done = taken < bytes.len() || is_at_end;
        reader.consume(taken);
        place += taken as u64;
        if is_done {
            break is_at_end;
        }
        original.trim();
    };
    // The last line has lost its ending, or has only the `\r` of one.
    if original.length.checked_add(1) == Some(offset)
        || is_at_end && original.length == offset && original.is_ended_by(b'\n')
    {
        original.push(b'\n');
    }
    let is_it = original.length == offset && original.anchor() == *anchor;
    Ok(is_it.then_some(place))
}

/// The last bytes as they were before the edit.
#[derive(Default)]
struct Original {
    length: u64,
    last: Vec<u8>,
}

impl Original {
    /// Whether this byte, the next one, is before an offset.
    fn is_before(&self, offset: u64, byte: u8) -> bool {
        self.length < offset || self.length == offset && self.is_ended_by(byte)
    }

    /// Whether this byte ends a line together with the previous one.
    fn is_ended_by(&self, byte: u8) -> bool {
        byte == b'\n' && self.last.last() == Some(&b'\r')
    }

    /// Appends a byte; always returns `true`.
    fn push(&mut self, byte: u8) -> bool {
        if self.is_ended_by(byte) {
            self.last.pop();
        } else {
            self.length += 1;
        }
        self.last.push(byte);
        true
    }

    fn trim(&mut self) {
        if self.last.len() > WINDOW_BYTES {
            self.last.drain(..self.unneeded());
        }
    }

    fn unneeded(&self) -> usize {
        let needed = usize::try_from(ANCHOR_BYTES).unwrap_or(usize::MAX);
        // One more, because it may be removed again.
        self.last.len().saturating_sub(needed.saturating_add(1))
    }

    fn anchor(&self) -> [u8; 32] {
        let needed = usize::try_from(ANCHOR_BYTES).unwrap_or(usize::MAX);
        let start = self.last.len().saturating_sub(needed);
        Sha256::digest(self.last.get(start..).unwrap_or_default()).into()
    }
}
