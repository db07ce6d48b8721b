//! Reads a file again for sending, and verifies that it has not changed since the first pass.
//!
//! A file is read twice, first to pin it, then to send it. Content that changes in between, or
//! while it is sent, must not be sent under ids that stand for the pinned content. So the file is
//! read in blocks, and each block's hash is verified before any of its lines is sent.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use sha2::{Digest as _, Sha256};

/// The block size. It costs 32 bytes of memory for each MiB of the file.
pub(super) const BLOCK_BYTES: usize = 1024 * 1024;

/// The SHA-256 of every block of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockDigests {
    base: u64,
    end: u64,
    hashes: Vec<[u8; 32]>,
}

/// A change of the input since sending began.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InputChange {
    /// The file is shorter than it was.
    #[error(
        "the input has become shorter: it had {had} bytes when sending began, and has {has} now"
    )]
    Truncated {
        /// The former length in bytes.
        had: u64,
        /// The current length in bytes.
        has: u64,
    },
    /// A block has another hash.
    #[error("the input was changed between the bytes {from} and {to} since sending began")]
    Modified {
        /// The offset of the block.
        from: u64,
        /// The offset of the block's end.
        to: u64,
    },
}

impl InputChange {
    /// The change that caused an I/O error of [`VerifiedReader`], if one did.
    pub(super) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl BlockDigests {
    /// Creates the digests of a file's blocks from `base` to `end`.
    pub(super) fn new(base: u64, end: u64, hashes: Vec<[u8; 32]>) -> Self {
        Self { base, end, hashes }
    }

    /// The range of offsets that the blocks cover.
    pub(super) fn range(&self) -> std::ops::Range<u64> {
        self.base..self.end
    }

    /// The block that contains an offset: its hash, and the offsets of its beginning and end.
    fn containing(&self, offset: u64) -> Option<(&[u8; 32], u64, u64)> {
        let size = u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX);
        let number = offset.checked_sub(self.base)? / size;
        let hash = self.hashes.get(usize::try_from(number).ok()?)?;
        let from = self.base + number * size;
        Some((hash, from, from.saturating_add(size).min(self.end)))
    }
}

/// A reader that verifies each block of a file before it returns any of its bytes.
#[derive(Debug)]
pub(super) struct VerifiedReader {
    file: File,
    blocks: BlockDigests,
    /// The offset of the next byte to return.
    offset: u64,
    /// The current block, verified.
    block: Vec<u8>,
    /// The number of bytes of `block` that were returned.
    used: usize,
}

impl VerifiedReader {
    /// Creates a reader from `offset` to the end that the file had during the first pass.
    pub(super) fn new(file: File, blocks: BlockDigests, offset: u64) -> Self {
        Self {
            file,
            blocks,
            offset,
            block: Vec::new(),
            used: 0,
        }
    }

    /// Reads and verifies the block with the next byte. Returns whether there is one.
    fn next_block(&mut self) -> io::Result<bool> {
        let Some((hash, from, to)) = self
            .blocks
            .containing(self.offset)
            .filter(|(.., to)| self.offset < *to)
        else {
            return Ok(false);
        };
        let length = usize::try_from(to - from).unwrap_or(BLOCK_BYTES);
        self.block.resize(length, 0);
        self.file.seek(SeekFrom::Start(from))?;
        let mut filled = 0;
        while let Some(rest) = self.block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read(rest) {
                Ok(0) => {
                    let has = from + u64::try_from(filled).unwrap_or_default();
                    self.block.clear();
                    self.used = 0;
                    return Err(io::Error::other(InputChange::Truncated {
                        had: self.blocks.end,
                        has,
                    }));
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.block.clear();
                    self.used = 0;
                    return Err(error);
                }
            }
        }
        if Sha256::digest(&self.block).as_slice() != hash {
            self.block.clear();
            self.used = 0;
            return Err(io::Error::other(InputChange::Modified { from, to }));
        }
        self.used = usize::try_from(self.offset - from).unwrap_or_default();
        Ok(true)
    }
}

impl Read for VerifiedReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.used >= self.block.len() && !self.next_block()? {
            return Ok(0);
        }
        let rest = self.block.get(self.used..).unwrap_or_default();
        let count = rest.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.used += count;
        self.offset += u64::try_from(count).unwrap_or_default();
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::file_scan::FileScan;
    use super::*;
    use std::collections::BTreeSet;
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    const BLOCK: u64 = 1024 * 1024;

    /// A file of two and a half blocks, and its digests from `base` on.
    fn file(base: u64) -> (File, BlockDigests, Vec<u8>) {
        let text: Vec<u8> = (0..u32::try_from(BLOCK * 5 / 8).unwrap())
            .flat_map(u32::to_le_bytes)
            .collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&text).unwrap();
        let blocks = FileScan::read(&mut file, base, &BTreeSet::new())
            .unwrap()
            .blocks;
        (file, blocks, text)
    }

    /// The bytes that are returned, and the error that ends reading.
    fn read(file: &File, blocks: &BlockDigests, offset: u64) -> (Vec<u8>, Option<InputChange>) {
        let mut out = Vec::new();
        let read = VerifiedReader::new(file.try_clone().unwrap(), blocks.clone(), offset)
            .read_to_end(&mut out);
        (
            out,
            read.err()
                .map(|error| InputChange::of(&error).unwrap().clone()),
        )
    }

    #[test]
    fn an_unchanged_file_is_read_from_any_offset_and_appended_bytes_are_ignored() {
        let (mut file, blocks, text) = file(0);
        file.write_all(b"more").unwrap();
        for offset in [
            0,
            1,
            BLOCK - 1,
            BLOCK,
            BLOCK + 7,
            BLOCK * 5 / 2 - 1,
            BLOCK * 5 / 2,
        ] {
            let expected = &text[usize::try_from(offset).unwrap()..];
            let (out, error) = read(&file, &blocks, offset);
            assert!(out == expected && error.is_none(), "{offset}");
        }
        let (file, blocks, text) = self::file(5);
        assert!(read(&file, &blocks, 5) == (text[5..].to_vec(), None));
    }

    #[test]
    fn a_change_is_detected_before_any_byte_of_its_block_is_returned() {
        for at in [0, BLOCK - 1, BLOCK, BLOCK * 2, BLOCK * 5 / 2 - 1] {
            let (file, blocks, text) = file(0);
            file.write_all_at(&[text[usize::try_from(at).unwrap()] ^ 1], at)
                .unwrap();
            let (out, error) = read(&file, &blocks, 0);
            let from = at / BLOCK * BLOCK;
            assert_eq!(u64::try_from(out.len()).unwrap(), from);
            let to = (from + BLOCK).min(BLOCK * 5 / 2);
            assert_eq!(error, Some(InputChange::Modified { from, to }));
        }
    }

    #[test]
    fn an_earlier_end_is_an_error() {
        for has in [0, 1, BLOCK - 1, BLOCK, BLOCK * 2, BLOCK * 5 / 2 - 1] {
            let (file, blocks, _) = file(0);
            file.set_len(has).unwrap();
            let (out, error) = read(&file, &blocks, 0);
            assert_eq!(u64::try_from(out.len()).unwrap(), has / BLOCK * BLOCK);
            let had = BLOCK * 5 / 2;
            assert_eq!(error, Some(InputChange::Truncated { had, has }));
        }
    }

    #[test]
    fn a_file_that_was_truncated_and_extended_again_is_modified() {
        let (file, blocks, text) = file(0);
        file.set_len(BLOCK).unwrap();
        file.set_len(u64::try_from(text.len()).unwrap()).unwrap();
        let (out, error) = read(&file, &blocks, 0);
        assert!(out == text[..usize::try_from(BLOCK).unwrap()]);
        assert!(matches!(
            error,
            Some(InputChange::Modified { from: BLOCK, .. })
        ));
    }
}
