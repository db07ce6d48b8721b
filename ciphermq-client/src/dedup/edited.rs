//! An output of lines that went through an editor.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};

use sha2::{Digest as _, Sha256};

use super::checkpointed::ANCHOR_BYTES;

/// What some editors put at the beginning of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How many bytes are kept before those that are no longer needed are let go of.
const WINDOW_BYTES: usize = 64 * 1024;

/// Where the first `offset` bytes of an output end in it now that an editor may have put a byte
/// order mark before them, changed their line endings to `\r\n`, or taken away the last one.
/// `anchor` is the hash of the last ones of them. `None` if it is not that output.
pub(super) fn find(output: &File, offset: u64, anchor: &[u8; 32]) -> io::Result<Option<u64>> {
    let mut reader = BufReader::with_capacity(256 * 1024, output);
    reader.seek(SeekFrom::Start(0))?;
    let mut original = Original::default();
    // How many bytes of the output were read.
    let mut place = 0;
    if reader.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
        reader.consume(BYTE_ORDER_MARK.len());
        place = BYTE_ORDER_MARK.len() as u64;
    }
    loop {
        let bytes = reader.fill_buf()?;
        let taken = bytes
            .iter()
            .take_while(|&&byte| original.is_before(offset, byte) && original.push(byte))
            .count();
        let is_done = taken < bytes.len() || bytes.is_empty();
        reader.consume(taken);
        place += taken as u64;
        if is_done {
            break;
        }
        original.trim();
    }
    if original.length.checked_add(1) == Some(offset) {
        original.push(b'\n');
    }
    let is_it = original.length == offset && original.anchor() == *anchor;
    Ok(is_it.then_some(place))
}

/// The last bytes as they were before the editor.
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

    /// Whether this byte ends a line together with the last one.
    fn is_ended_by(&self, byte: u8) -> bool {
        byte == b'\n' && self.last.last() == Some(&b'\r')
    }

    /// Takes a byte; always `true`.
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
        // One more, for it may be taken back.
        self.last.len().saturating_sub(needed.saturating_add(1))
    }

    fn anchor(&self) -> [u8; 32] {
        let needed = usize::try_from(ANCHOR_BYTES).unwrap_or(usize::MAX);
        let start = self.last.len().saturating_sub(needed);
        Sha256::digest(self.last.get(start..).unwrap_or_default()).into()
    }
}
