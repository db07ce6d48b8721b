//! Reading a file again for sending: nothing of it is handed on that is not what it was during the
//! first pass.
//!
//! A file is read twice, first to pin it, then to send it. What changes in between, or while it is
//! sent, must not go out under ids that stand for what was pinned: so it is read a block at a time,
//! and each block is compared before any of its lines is sent.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use sha2::{Digest as _, Sha256};

/// How much is compared at once: 32 bytes of memory for each MiB of the file.
pub(super) const BLOCK_BYTES: usize = 1024 * 1024;

/// The SHA-256 of every block of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocks {
    base: u64,
    end: u64,
    hashes: Vec<[u8; 32]>,
}

/// How a file differs from what it was when sending began.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Difference {
    /// It ends before the length that it had.
    #[error(
        "the input has become shorter, it had {had} bytes when sending began, and has {has} now"
    )]
    Shorter {
        /// How many bytes it had.
        had: u64,
        /// How many it has.
        has: u64,
    },
    /// Something in a block is not what it was.
    #[error("the input was changed, between the bytes {from} and {to}, since sending began")]
    Changed {
        /// Where the block begins.
        from: u64,
        /// Where it ends.
        to: u64,
    },
}

impl Difference {
    /// The difference that made reading fail, if it was one.
    pub(super) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl Blocks {
    /// The blocks of a file from `base` to `end`.
    pub(super) fn new(base: u64, end: u64, hashes: Vec<[u8; 32]>) -> Self {
        Self { base, end, hashes }
    }

    /// Where the file began to be read, and its end.
    pub(super) fn range(&self) -> std::ops::Range<u64> {
        self.base..self.end
    }

    /// The block with this byte: its hash, and where it begins and ends.
    fn at(&self, place: u64) -> Option<(&[u8; 32], u64, u64)> {
        let size = u64::try_from(BLOCK_BYTES).unwrap_or(u64::MAX);
        let number = place.checked_sub(self.base)? / size;
        let hash = self.hashes.get(usize::try_from(number).ok()?)?;
        let from = self.base + number * size;
        Some((hash, from, from.saturating_add(size).min(self.end)))
    }
}

/// A file whose bytes are compared before they are handed on.
#[derive(Debug)]
pub(super) struct Compared {
    file: File,
    blocks: Blocks,
    /// The next byte to hand on.
    place: u64,
    /// What is compared and not handed on, and where in it the next byte is.
    block: Vec<u8>,
    used: usize,
}

impl Compared {
    /// Reads from `place` to the end that the file had.
    pub(super) fn new(file: File, blocks: Blocks, place: u64) -> Self {
        Self {
            file,
            blocks,
            place,
            block: Vec::new(),
            used: 0,
        }
    }

    /// Reads and compares the block with the next byte; whether there is one.
    fn next_block(&mut self) -> io::Result<bool> {
        let Some((hash, from, to)) = self
            .blocks
            .at(self.place)
            .filter(|(.., to)| self.place < *to)
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
                    return Err(io::Error::other(Difference::Shorter {
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
            return Err(io::Error::other(Difference::Changed { from, to }));
        }
        self.used = usize::try_from(self.place - from).unwrap_or_default();
        Ok(true)
    }
}

impl Read for Compared {
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
        self.place += u64::try_from(count).unwrap_or_default();
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::survey::Survey;
    use super::*;
    use std::collections::BTreeSet;
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    const BLOCK: u64 = 1024 * 1024;

    /// A file of two and a half blocks, and what is known of it from `base` on.
    fn file(base: u64) -> (File, Blocks, Vec<u8>) {
        let text: Vec<u8> = (0..u32::try_from(BLOCK * 5 / 8).unwrap())
            .flat_map(u32::to_le_bytes)
            .collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&text).unwrap();
        let blocks = Survey::of(&mut file, base, &BTreeSet::new())
            .unwrap()
            .blocks;
        (file, blocks, text)
    }

    /// What is handed on, and what ended the reading.
    fn read(file: &File, blocks: &Blocks, place: u64) -> (Vec<u8>, Option<Difference>) {
        let mut out = Vec::new();
        let read =
            Compared::new(file.try_clone().unwrap(), blocks.clone(), place).read_to_end(&mut out);
        (
            out,
            read.err()
                .map(|error| Difference::of(&error).unwrap().clone()),
        )
    }

    #[test]
    fn an_unchanged_file_is_read_from_anywhere_and_growth_is_left_out() {
        let (mut file, blocks, text) = file(0);
        file.write_all(b"more").unwrap();
        for place in [
            0,
            1,
            BLOCK - 1,
            BLOCK,
            BLOCK + 7,
            BLOCK * 5 / 2 - 1,
            BLOCK * 5 / 2,
        ] {
            let expected = &text[usize::try_from(place).unwrap()..];
            let (out, error) = read(&file, &blocks, place);
            assert!(out == expected && error.is_none(), "{place}");
        }
        let (file, blocks, text) = self::file(5);
        assert!(read(&file, &blocks, 5) == (text[5..].to_vec(), None));
    }

    #[test]
    fn a_change_is_noticed_before_anything_of_its_block_is_handed_on() {
        for at in [0, BLOCK - 1, BLOCK, BLOCK * 2, BLOCK * 5 / 2 - 1] {
            let (file, blocks, text) = file(0);
            file.write_all_at(&[text[usize::try_from(at).unwrap()] ^ 1], at)
                .unwrap();
            let (out, error) = read(&file, &blocks, 0);
            let from = at / BLOCK * BLOCK;
            assert_eq!(u64::try_from(out.len()).unwrap(), from);
            let to = (from + BLOCK).min(BLOCK * 5 / 2);
            assert_eq!(error, Some(Difference::Changed { from, to }));
        }
    }

    #[test]
    fn an_earlier_end_is_no_end() {
        for has in [0, 1, BLOCK - 1, BLOCK, BLOCK * 2, BLOCK * 5 / 2 - 1] {
            let (file, blocks, _) = file(0);
            file.set_len(has).unwrap();
            let (out, error) = read(&file, &blocks, 0);
            assert_eq!(u64::try_from(out.len()).unwrap(), has / BLOCK * BLOCK);
            let had = BLOCK * 5 / 2;
            assert_eq!(error, Some(Difference::Shorter { had, has }));
        }
    }

    #[test]
    fn a_file_that_was_cut_and_has_grown_again_is_another() {
        let (file, blocks, text) = file(0);
        file.set_len(BLOCK).unwrap();
        file.set_len(u64::try_from(text.len()).unwrap()).unwrap();
        let (out, error) = read(&file, &blocks, 0);
        assert!(out == text[..usize::try_from(BLOCK).unwrap()]);
        assert!(matches!(
            error,
            Some(Difference::Changed { from: BLOCK, .. })
        ));
    }
}
