//! One pass over a file before it is sent: its hash, the hashes of its blocks, and the prefixes
//! that its checkpoints name.
//!
//! ```text
//!   file ──► the whole, hashed ──► pinned by the checkpoint
//!        ├─► blocks, hashed ──► verified when the file is read again for sending
//!        └─► prefixes that checkpoints name ──► is it the same file, and where does sending resume
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use sha2::{Digest as _, Sha256};

use super::digest::FileDigest;
use super::lines::InputPosition;
use super::verified_reader::{BLOCK_BYTES, BlockDigests};

/// The result of the pass.
#[derive(Debug)]
pub(super) struct FileScan {
    /// Length and hash of the whole file.
    pub(super) digest: FileDigest,
    /// The hashes of its blocks.
    pub(super) blocks: BlockDigests,
    /// The end offset of the last line that is not empty; 0 if there is none.
    pub(super) last_message_end: u64,
    prefixes: Vec<Prefix>,
}

/// The beginning of a file up to an offset, and its relation to the lines there.
#[derive(Debug, Clone)]
pub(super) struct Prefix {
    /// Length and hash of the prefix.
    pub(super) digest: FileDigest,
    /// The end offset of the last line that is not empty, if the file ended with the prefix.
    pub(super) last_message_end: u64,
    /// The number of line endings.
    lines: u64,
    /// The offset of the beginning of the last line, complete or not.
    line_start: u64,
    /// The end offset of the last complete line that is not empty.
    pub(super) last_whole_message_end: u64,
    last_byte: Option<u8>,
    /// Up to two bytes after the prefix.
    following: Vec<u8>,
}

impl FileScan {
    /// Reads a file from `base` to its end, and records the prefixes that end at `offsets`. Bytes
    /// that are appended meanwhile are ignored.
    ///
    /// # Errors
    ///
    /// The system's error if the file cannot be read.
    pub(super) fn read(file: &mut File, base: u64, offsets: &BTreeSet<u64>) -> io::Result<Self> {
        // Virtual files (`/proc`) have a length of 0.
        let end = match file.metadata()?.len() {
            0 => u64::MAX,
            length => length.max(base),
        };
        file.seek(SeekFrom::Start(base))?;
        let mut scanner = Scanner::new(base);
        let mut prefixes: Vec<Prefix> = Vec::new();
        let mut offsets = offsets
            .iter()
            .copied()
            .filter(|offset| *offset >= base)
            .peekable();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            while offsets.next_if_eq(&scanner.bytes).is_some() {
                prefixes.push(scanner.prefix());
            }
            let stop = offsets.peek().copied().unwrap_or(u64::MAX).min(end);
            let wanted = usize::try_from(stop - scanner.bytes)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let read = match file.read(buffer.get_mut(..wanted).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else {
                break;
            };
            for prefix in prefixes
                .iter_mut()
                .rev()
                .take_while(|prefix| prefix.following.len() < 2)
            {
                prefix
                    .following
                    .extend(piece.iter().take(2 - prefix.following.len()));
            }
            scanner.update(piece);
        }
        Ok(Self {
            last_message_end: scanner.last_message_end(),
            digest: FileDigest::new(scanner.bytes, scanner.hash),
            blocks: BlockDigests::new(base, scanner.bytes, scanner.blocks.finish()),
            prefixes,
        })
    }

    /// The recorded prefix of this length; `None` if the file is shorter.
    pub(super) fn prefix(&self, bytes: u64) -> Option<&Prefix> {
        self.prefixes
            .iter()
            .find(|prefix| prefix.digest.bytes == bytes)
    }
}

impl Prefix {
    /// The position of the next line, if the prefix ends with a complete line: one that has its
    /// ending, or whose ending follows, or that is the last one of the file.
    pub(super) fn next_line(&self) -> Option<InputPosition> {
        let ending = ending_length(self.last_byte, &self.following)?;
        Some(InputPosition {
            bytes: self.digest.bytes + ending,
            lines: self.lines + u64::from(ending > 0),
        })
    }

    /// The position of the beginning of the last line, complete or not.
    pub(super) fn line(&self) -> InputPosition {
        InputPosition {
            bytes: self.line_start,
            lines: self.lines,
        }
    }
}

/// The length of the line ending at the beginning of `following`; `None` if the line continues
/// there instead. The last line of a file is complete without an ending.
pub(super) fn ending_length(last_byte: Option<u8>, following: &[u8]) -> Option<u64> {
    match (last_byte, following) {
        (None | Some(b'\n'), _) | (_, []) => Some(0),
        // The `\r` was a part of the message, and would become a part of the ending.
        (Some(b'\r'), _) => None,
        (_, [b'\n', ..]) => Some(1),
        (_, [b'\r', b'\n', ..]) => Some(2),
        _ => None,
    }
}

/// Accumulates the properties of a file's beginning.
struct Scanner {
    hash: Sha256,
    blocks: BlockHasher,
    bytes: u64,
    lines: u64,
    /// The offset of the beginning of the current line.
    line_start: u64,
    last_byte: Option<u8>,
    /// The end offset of the last complete line that is not empty.
    last_whole_message_end: u64,
}

impl Scanner {
    fn new(base: u64) -> Self {
        Self {
            hash: Sha256::new(),
            blocks: BlockHasher::default(),
            bytes: base,
            lines: 0,
            line_start: base,
            last_byte: None,
            last_whole_message_end: 0,
        }
    }

    fn update(&mut self, piece: &[u8]) {
        self.hash.update(piece);
        self.blocks.update(piece);
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.bytes += u64::try_from(part.len()).unwrap_or_default();
            if part.ends_with(b"\n") {
                let before = part
                    .len()
                    .checked_sub(2)
                    .and_then(|at| part.get(at).copied());
                let is_crlf =
                    before.or(self.last_byte) == Some(b'\r') && self.bytes - self.line_start > 1;
                if self.bytes - self.line_start > 1 + u64::from(is_crlf) {
                    self.last_whole_message_end = self.bytes;
                }
                self.lines += 1;
                self.line_start = self.bytes;
            }
            self.last_byte = part.last().copied();
        }
    }

    fn last_message_end(&self) -> u64 {
        // A last line without an ending is a message, too.
        if self.bytes > self.line_start {
            self.bytes
        } else {
            self.last_whole_message_end
        }
    }

    fn prefix(&self) -> Prefix {
        Prefix {
            digest: FileDigest::new(self.bytes, self.hash.clone()),
            last_message_end: self.last_message_end(),
            lines: self.lines,
            line_start: self.line_start,
            last_whole_message_end: self.last_whole_message_end,
            last_byte: self.last_byte,
            following: Vec::new(),
        }
    }
}

/// Computes the SHA-256 of every block; the last block may be shorter.
#[derive(Default)]
struct BlockHasher {
    done: Vec<[u8; 32]>,
    block: Sha256,
    filled: usize,
}

impl BlockHasher {
    fn update(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let (now, rest) = piece.split_at(piece.len().min(BLOCK_BYTES - self.filled));
            self.block.update(now);
            self.filled += now.len();
            if self.filled == BLOCK_BYTES {
                self.done.push(self.block.finalize_reset().into());
                self.filled = 0;
            }
            piece = rest;
        }
    }

    fn finish(mut self) -> Vec<[u8; 32]> {
        if self.filled > 0 {
            self.done.push(self.block.finalize().into());
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn scan(text: &[u8], offsets: impl IntoIterator<Item = u64>) -> FileScan {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        FileScan::read(&mut file, 0, &offsets.into_iter().collect()).unwrap()
    }

    #[test]
    fn every_prefix_is_recorded() {
        let text = b"a\nbc\n\nd";
        let scan = scan(text, 0..=9);
        for offset in 0..=text.len() {
            let before = &text[..offset];
            let prefix = scan.prefix(u64::try_from(offset).unwrap()).unwrap();
            assert_eq!(
                prefix.digest,
                FileDigest::new(prefix.digest.bytes, Sha256::new_with_prefix(before))
            );
            assert_eq!(prefix.last_byte, before.last().copied());
            assert_eq!(
                prefix.following,
                text[offset..].iter().take(2).copied().collect::<Vec<_>>()
            );
            let line = before
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            assert_eq!(prefix.line().bytes, u64::try_from(line).unwrap());
        }
        assert!(scan.prefix(8).is_none(), "the file has seven bytes");
        assert_eq!(scan.digest.bytes, 7);
    }

    #[test]
    fn the_last_message_is_the_last_line_that_is_not_empty() {
        for (text, expected) in [
            (&b""[..], 0),
            (b"\n\r\n", 0),
            (b"a", 1),
            (b"a\n\n\r\n", 2),
            (b"a\n\r", 3),
            (b"\r\r\n", 3),
            (b"a\r\n\n", 3),
            (b"a\n\nbc\r\n\n", 7),
        ] {
            assert_eq!(scan(text, []).last_message_end, expected, "{text:?}");
        }
    }

    #[test]
    fn an_empty_line_is_recognised_wherever_the_pieces_are_cut() {
        let text = b"a\r\n\r\n\r\r\n\nb\n\r\n";
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut scanner = Scanner::new(0);
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    scanner.update(piece);
                }
                assert_eq!(
                    (scanner.last_message_end(), scanner.lines),
                    (11, 6),
                    "{first} {second}"
                );
            }
        }
    }

    #[test]
    fn a_file_that_grows_is_read_up_to_its_initial_length() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"a\nb\n").unwrap();
        let mut reading = file.reopen().unwrap();
        let scan = FileScan::read(&mut reading, 2, &BTreeSet::new()).unwrap();
        assert_eq!(
            scan.digest,
            FileDigest::new(4, Sha256::new_with_prefix(b"b\n"))
        );
    }
}
