//! One pass over a file before it is sent: its hash, the hashes of its blocks, and what checkpoints
//! want to know of it.
//!
//! ```text
//!   file ──► whole, hashed ──► what the checkpoint pins
//!        ├─► blocks, hashed ──► what is read again for sending is compared with these
//!        └─► marks at the places that checkpoints name ──► is it the same file, and where does sending go on
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use sha2::{Digest as _, Sha256};

use super::blocks::{BLOCK_BYTES, Blocks};
use super::lines::Start;
use super::pinned::Pinned;

/// A file as it was during the pass.
#[derive(Debug)]
pub(super) struct Survey {
    /// All of it.
    pub(super) whole: Pinned,
    /// The hashes of its blocks.
    pub(super) blocks: Blocks,
    /// Where the last line ends that is not empty; 0 if there is none.
    pub(super) last_message: u64,
    marks: Vec<Mark>,
}

/// What stood before a place, and just behind it.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    /// What stood before it.
    pub(super) before: Pinned,
    /// Where the last line before it that is not empty ends, if the file ended here.
    pub(super) last_message: u64,
    /// How many line endings stood before it.
    lines: u64,
    /// Where the line began that it is in, or follows.
    line: u64,
    /// Where the last whole line before it ends that is not empty.
    pub(super) last_whole_message: u64,
    last: Option<u8>,
    after: Vec<u8>,
}

impl Survey {
    /// Reads all of a file from `base` on, and marks these places in it. It may grow meanwhile:
    /// what comes behind the length that it had at first is left out.
    pub(super) fn of(file: &mut File, base: u64, places: &BTreeSet<u64>) -> io::Result<Self> {
        // The system's own files (`/proc`) claim to be empty.
        let end = match file.metadata()?.len() {
            0 => u64::MAX,
            length => length.max(base),
        };
        file.seek(SeekFrom::Start(base))?;
        let mut scan = Scan::new(base);
        let mut marks: Vec<Mark> = Vec::new();
        let mut places = places
            .iter()
            .copied()
            .filter(|place| *place >= base)
            .peekable();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            while places.next_if_eq(&scan.bytes).is_some() {
                marks.push(scan.mark());
            }
            let stop = places.peek().copied().unwrap_or(u64::MAX).min(end);
            let wanted = usize::try_from(stop - scan.bytes)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let read = match file.read(buffer.get_mut(..wanted).unwrap_or_default()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else {
                break;
            };
            for mark in marks
                .iter_mut()
                .rev()
                .take_while(|mark| mark.after.len() < 2)
            {
                mark.after.extend(piece.iter().take(2 - mark.after.len()));
            }
            scan.take(piece);
        }
        Ok(Self {
            last_message: scan.last_message(),
            whole: Pinned::new(scan.bytes, scan.hash),
            blocks: Blocks::new(base, scan.bytes, scan.blocks.finish()),
            marks,
        })
    }

    /// The mark at a place; `None` if the file is shorter.
    pub(super) fn mark(&self, place: u64) -> Option<&Mark> {
        self.marks.iter().find(|mark| mark.before.bytes == place)
    }
}

impl Mark {
    /// Where the next line begins, if the line before the place is whole: if it has its ending, or
    /// gets it just here, or nothing follows.
    pub(super) fn next_line(&self) -> Option<Start> {
        let ending = ending(self.last, &self.after)?;
        Some(Start {
            bytes: self.before.bytes + ending,
            lines: self.lines + u64::from(ending > 0),
        })
    }

    /// Where the line begins that the place is in.
    pub(super) fn line(&self) -> Start {
        Start {
            bytes: self.line,
            lines: self.lines,
        }
    }
}

/// How long the ending is that a line gets from what follows its last byte; `None` if the line goes
/// on. One that is at the end of everything is whole without any.
pub(super) fn ending(last: Option<u8>, after: &[u8]) -> Option<u64> {
    match (last, after) {
        (None | Some(b'\n'), _) | (_, []) => Some(0),
        // It was a part of the message, and would be one of the ending now.
        (Some(b'\r'), _) => None,
        (_, [b'\n', ..]) => Some(1),
        (_, [b'\r', b'\n', ..]) => Some(2),
        _ => None,
    }
}

/// What is known of a file up to some byte.
struct Scan {
    hash: Sha256,
    blocks: BlockHashes,
    bytes: u64,
    lines: u64,
    /// Where the line begins that is being read.
    line: u64,
    last: Option<u8>,
    /// Where the last whole line ended that is not empty.
    message: u64,
}

impl Scan {
    fn new(base: u64) -> Self {
        Self {
            hash: Sha256::new(),
            blocks: BlockHashes::default(),
            bytes: base,
            lines: 0,
            line: base,
            last: None,
            message: 0,
        }
    }

    fn take(&mut self, piece: &[u8]) {
        self.hash.update(piece);
        self.blocks.update(piece);
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.bytes += u64::try_from(part.len()).unwrap_or_default();
            if part.ends_with(b"\n") {
                let before = part
                    .len()
                    .checked_sub(2)
                    .and_then(|at| part.get(at).copied());
                let is_crlf = before.or(self.last) == Some(b'\r') && self.bytes - self.line > 1;
                if self.bytes - self.line > 1 + u64::from(is_crlf) {
                    self.message = self.bytes;
                }
                self.lines += 1;
                self.line = self.bytes;
            }
            self.last = part.last().copied();
        }
    }

    fn last_message(&self) -> u64 {
        // A last line without an ending is one, too.
        if self.bytes > self.line {
            self.bytes
        } else {
            self.message
        }
    }

    fn mark(&self) -> Mark {
        Mark {
            before: Pinned::new(self.bytes, self.hash.clone()),
            last_message: self.last_message(),
            lines: self.lines,
            line: self.line,
            last_whole_message: self.message,
            last: self.last,
            after: Vec::new(),
        }
    }
}

/// The SHA-256 of every block, the last one shorter.
#[derive(Default)]
struct BlockHashes {
    done: Vec<[u8; 32]>,
    block: Sha256,
    filled: usize,
}

impl BlockHashes {
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

    fn survey(text: &[u8], places: impl IntoIterator<Item = u64>) -> Survey {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        Survey::of(&mut file, 0, &places.into_iter().collect()).unwrap()
    }

    #[test]
    fn every_place_is_marked_with_what_stood_before_it() {
        let text = b"a\nbc\n\nd";
        let survey = survey(text, 0..=9);
        for place in 0..=text.len() {
            let before = &text[..place];
            let mark = survey.mark(u64::try_from(place).unwrap()).unwrap();
            assert_eq!(
                mark.before,
                Pinned::new(mark.before.bytes, Sha256::new_with_prefix(before))
            );
            assert_eq!(mark.last, before.last().copied());
            assert_eq!(
                mark.after,
                text[place..].iter().take(2).copied().collect::<Vec<_>>()
            );
            let line = before
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1);
            assert_eq!(mark.line().bytes, u64::try_from(line).unwrap());
        }
        assert!(survey.mark(8).is_none(), "the file has seven bytes");
        assert_eq!(survey.whole.bytes, 7);
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
            assert_eq!(survey(text, []).last_message, expected, "{text:?}");
        }
    }

    #[test]
    fn an_empty_line_is_recognised_wherever_the_pieces_are_cut() {
        let text = b"a\r\n\r\n\r\r\n\nb\n\r\n";
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut scan = Scan::new(0);
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    scan.take(piece);
                }
                assert_eq!(
                    (scan.last_message(), scan.lines),
                    (11, 6),
                    "{first} {second}"
                );
            }
        }
    }

    #[test]
    fn a_file_that_grows_meanwhile_counts_as_long_as_it_was() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"a\nb\n").unwrap();
        let mut reading = file.reopen().unwrap();
        let survey = Survey::of(&mut reading, 2, &BTreeSet::new()).unwrap();
        assert_eq!(
            survey.whole,
            Pinned::new(4, Sha256::new_with_prefix(b"b\n"))
        );
    }
}
