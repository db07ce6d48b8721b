//! A file as it was when sending it began: how long, and what stood in it.
//!
//! What may have been sent under an id must not change, or the same id would be another message. So before anything is
//! sent the checkpoint holds the length and the SHA-256 of the whole file, as `<bytes> <64 hexadecimal>`. When sending
//! goes on, the file must begin with just that; what follows may have been appended, and is described anew before it is
//! sent.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use sha2::{Digest as _, Sha256};

use super::lines::Start;

/// A file's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pinned {
    /// How many bytes it has.
    pub(super) bytes: u64,
    /// SHA-256 of them, in hexadecimal.
    sha256: String,
}

/// How a file compares with what was pinned of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// It begins with what was pinned. This is all of it now, and where sending goes on.
    Same { now: Pinned, start: Start },
    /// It has fewer bytes.
    Shorter,
    /// Something in it is not what it was.
    Changed,
    /// Its last line had no ending, and was sent; now it goes on.
    LastLineGoesOn,
}

impl Pinned {
    /// Reads the text that the checkpoint holds.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (bytes, sha256) = text.split_once(' ')?;
        let is_hash = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then_some(Self {
            bytes: bytes.parse().ok()?,
            sha256: sha256.to_owned(),
        })
    }

    /// Pins all of a file.
    pub(super) fn of(file: &mut File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let mut hashed = Hashed::new(file);
        hashed.go_to(u64::MAX)?;
        Ok(hashed.pinned())
    }

    /// Compares a file with what was pinned of it, of which everything before `place` is acknowledged.
    pub(super) fn compare(&self, file: &mut File, place: u64) -> io::Result<Compared> {
        file.seek(SeekFrom::Start(0))?;
        let mut hashed = Hashed::new(file);
        hashed.go_to(place.min(self.bytes))?;
        let start = Start {
            bytes: hashed.bytes,
            lines: hashed.lines,
        };
        hashed.go_to(self.bytes)?;
        if hashed.bytes < self.bytes {
            return Ok(Compared::Shorter);
        }
        if hashed.pinned() != *self {
            return Ok(Compared::Changed);
        }
        let last = hashed.last;
        let mut beginning = [0; 2];
        let length = hashed.peek(&mut beginning)?;
        let appended = beginning.get(..length).unwrap_or_default();
        // A line that was sent without an ending is the same message if it has got one since.
        let is_same = match last {
            None | Some(b'\n') => true,
            // It was a part of the message, and would be one of the ending now.
            Some(b'\r') => appended.is_empty(),
            Some(_) => matches!(appended, [] | [b'\n', ..] | b"\r\n"),
        };
        if !is_same {
            return Ok(Compared::LastLineGoesOn);
        }
        hashed.go_to(u64::MAX)?;
        Ok(Compared::Same {
            now: hashed.pinned(),
            start,
        })
    }
}

/// The text that the checkpoint holds.
impl std::fmt::Display for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.bytes, self.sha256)
    }
}

/// Reads a file and hashes it.
struct Hashed<'a> {
    file: &'a mut File,
    hash: Sha256,
    bytes: u64,
    lines: u64,
    last: Option<u8>,
}

impl<'a> Hashed<'a> {
    fn new(file: &'a mut File) -> Self {
        Self {
            file,
            hash: Sha256::new(),
            bytes: 0,
            lines: 0,
            last: None,
        }
    }

    /// Reads on until so many bytes are read, or to the end.
    fn go_to(&mut self, end: u64) -> io::Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        while self.bytes < end {
            let wanted = usize::try_from(end - self.bytes)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let read = self.file.read(buffer.get_mut(..wanted).unwrap_or_default())?;
            let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else {
                return Ok(());
            };
            self.hash.update(piece);
            self.bytes += u64::try_from(read).unwrap_or_default();
            let endings = piece.iter().filter(|byte| **byte == b'\n').count();
            self.lines += u64::try_from(endings).unwrap_or_default();
            self.last = piece.last().copied();
        }
        Ok(())
    }

    /// The bytes that follow, without going there; how many there are.
    fn peek(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        while let Some(rest) = out.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match self.file.read(rest)? {
                0 => break,
                read => length += read,
            }
        }
        self.file.seek(SeekFrom::Start(self.bytes))?;
        Ok(length)
    }

    fn pinned(&self) -> Pinned {
        let hash = self.hash.clone().finalize();
        let sha256 = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Pinned {
            bytes: self.bytes,
            sha256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file
    }

    fn compare(before: &[u8], place: u64, after: &[u8]) -> Compared {
        let pinned = Pinned::of(&mut file(before)).unwrap();
        assert_eq!(Pinned::read(&pinned.to_string()), Some(pinned.clone()));
        pinned.compare(&mut file(after), place).unwrap()
    }

    fn same(text: &[u8], bytes: u64, lines: u64) -> Compared {
        Compared::Same {
            now: Pinned::of(&mut file(text)).unwrap(),
            start: Start { bytes, lines },
        }
    }

    #[test]
    fn the_text_is_length_and_hash() {
        let pinned = Pinned::of(&mut file(b"abc")).unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            pinned.to_string(),
            "3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        for text in [
            "",
            "3",
            "3 ba78",
            "x ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ] {
            assert_eq!(Pinned::read(text), None);
        }
    }

    #[test]
    fn an_unchanged_file_goes_on_at_its_place() {
        assert_eq!(
            compare(b"a\nbc\nd\n", 5, b"a\nbc\nd\n"),
            same(b"a\nbc\nd\n", 5, 2)
        );
        assert_eq!(compare(b"", 0, b""), same(b"", 0, 0));
    }

    #[test]
    fn what_was_appended_is_no_change() {
        assert_eq!(compare(b"a\nb\n", 4, b"a\nb\nc\n"), same(b"a\nb\nc\n", 4, 2));
        for after in [&b"a\nb\nc"[..], b"a\nb\r\nc", b"a\nb\n"] {
            assert_eq!(compare(b"a\nb", 3, after), same(after, 3, 1));
        }
    }

    #[test]
    fn every_changed_byte_is_noticed_before_and_behind_the_place() {
        let text = b"one\ntwo\nthree\n";
        for at in 0..text.len() {
            let mut changed = text.to_vec();
            changed[at] ^= 1;
            assert_eq!(compare(text, 8, &changed), Compared::Changed, "{at}");
            changed.extend_from_slice(b"four\n");
            assert_eq!(compare(text, 8, &changed), Compared::Changed, "{at}");
        }
        for end in 0..text.len() {
            assert_eq!(compare(text, 8, &text[..end]), Compared::Shorter, "{end}");
        }
    }

    #[test]
    fn a_line_that_was_sent_without_its_ending_must_not_go_on() {
        for after in [&b"a\nbc"[..], b"a\nb\rc\n", b"a\nb\r"] {
            assert_eq!(compare(b"a\nb", 3, after), Compared::LastLineGoesOn);
        }
        assert_eq!(compare(b"a\nb\r", 4, b"a\nb\r\n"), Compared::LastLineGoesOn);
    }
}
