//! Small files that survive crashes: the state that a process needs again after it was killed.
//!
//! ```text
//!   ciphermq-processed 1\n        kind, and version of the format
//!   ...\n                         lines of text
//!   sha256 <64 hexadecimal>\n     of every byte before this line
//! ```
//!
//! A checkpoint is replaced as a whole, under a lock, and synced together with its folder
//! ([`CheckpointFile`]): after a crash it is either the old or the new one. Every flipped byte and
//! every truncation is detected on reading.
//!
//! - [`dedup`](crate::dedup): the record of processed messages
//! - [`resume`](crate::resume): the acknowledged part of a stream

mod file;

use std::io;
use std::path::PathBuf;

use ciphermq_files::advice;
use sha2::{Digest as _, Sha256};

pub use file::CheckpointFile;

/// Length of the last line: `sha256 `, 64 digits, the line ending.
const TRAILER: usize = 7 + 64 + 1;

/// The kind of a checkpoint, written with the version in its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// One word, such as `ciphermq-processed`.
    pub name: &'static str,
    /// The newest version that this program reads, and the one that it writes.
    pub version: u32,
}

/// The fewest bytes by which a first line without its beginning is recognised.
const MIN_REST: usize = 8;
/// The most altered bytes of a first line that is still recognised.
const MAX_ALTERED: usize = 2;

impl Kind {
    /// Whether a file with these bytes is a checkpoint of this kind, was one before it was damaged,
    /// or is empty.
    ///
    /// Nothing else may be moved or replaced: it is somebody's data. A power failure can leave
    /// zeros in place of bytes.
    #[must_use]
    pub fn recognises(&self, bytes: &[u8]) -> bool {
        let name = self.name.as_bytes();
        let (start, text) = match bytes.iter().position(|&byte| byte != 0) {
            None => return true,
            Some(start) => (start, bytes.get(start..).unwrap_or_default()),
        };
        if start > 0 && has_trailer(bytes) {
            return true;
        }
        let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let whole = format!("{} {}", self.name, self.version);
        let altered = name
            .iter()
            .zip(first)
            .filter(|(ours, theirs)| ours != theirs)
            .count();
        // Altered in places, or truncated at its end or its beginning.
        (first.len() >= name.len() && altered <= MAX_ALTERED)
            || name.starts_with(text)
            || (first.len() >= MIN_REST && whole.as_bytes().ends_with(first))
    }
}

/// Whether the last line is a checksum of any content.
fn has_trailer(bytes: &[u8]) -> bool {
    let last = bytes
        .len()
        .checked_sub(TRAILER)
        .and_then(|split| bytes.get(split..));
    last.and_then(|last| last.strip_prefix(b"sha256 ")?.strip_suffix(b"\n"))
        .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// The reason why an operation on a checkpoint failed.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file or its folder cannot be created, opened or read.
    #[error("The checkpoint {} cannot be opened: {source}", path.display())]
    Open {
        /// The checkpoint.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process holds the checkpoint's lock.
    #[error("Another process holds the checkpoint {}", .0.display())]
    Locked(PathBuf),
    /// The file cannot be written or synced. The old content remains.
    #[error("The checkpoint {} cannot be written: {source}", path.display())]
    Write {
        /// The checkpoint.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another file took the checkpoint's place while this process used it.
    #[error("The checkpoint {} was replaced while it was in use", .0.display())]
    Replaced(PathBuf),
    /// The file was moved away or removed while this process used it.
    #[error("The checkpoint {} was moved away or removed while it was in use", .0.display())]
    Removed(PathBuf),
    /// The next stream cannot begin: the current one is not completely acknowledged, or is the same
    /// one.
    #[error("The stream of the checkpoint {} is not complete, so no other one can take its \
             place", .0.display())]
    Incomplete(PathBuf),
    /// The file's content cannot be used.
    #[error("The checkpoint {} cannot be used: {reason}", path.display())]
    Unreadable {
        /// The checkpoint.
        path: PathBuf,
        /// The cause.
        reason: Unreadable,
    },
}

ciphermq_protocol::debug_as_report!(CheckpointError, |error| Some(error.advice().to_owned()));

/// The reason why the content of a checkpoint cannot be used.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// The content was truncated or altered: the checksum does not match.
    #[error("it is damaged")]
    Damaged,
    /// The file belongs to another program or another command.
    #[error("it is not a `{0}` checkpoint")]
    OtherKind(&'static str),
    /// A newer version of this program wrote the file.
    #[error("it was written by a newer version of this program (form {0})")]
    TooNew(u32),
    /// A line is malformed, although the file is intact.
    #[error("its line {0} is malformed")]
    Line(usize),
}

ciphermq_protocol::debug_as_report!(Unreadable);

impl CheckpointError {
    /// Returns what to do.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Open { source, .. } | Self::Write { source, .. } => advice(source).unwrap_or(
                "Check that the folder is yours to write, or let the checkpoint stand elsewhere.",
            ),
            Self::Locked(_) => "End the other process, or wait for its end.",
            Self::Replaced(_) => {
                "The next start uses the file that is there now. If the other one was right, put \
                 it back first. Touch a checkpoint only while nothing works with it."
            }
            Self::Removed(_) => {
                "Put it back, then start again. Without it nothing is known of earlier runs: a \
                 sender would send everything again, as new messages, and a receiver could process \
                 messages again. Touch a checkpoint only while nothing works with it."
            }
            Self::Incomplete(_) => {
                "Publish the rest of it first, under its own ids; when all is acknowledged, \
                 complete it."
            }
            Self::Unreadable {
                reason: Unreadable::TooNew(_),
                ..
            } => "Use the newer version.",
            Self::Unreadable {
                reason: Unreadable::OtherKind(_),
                ..
            } => "It stays as it is. Name another file for the checkpoint.",
            Self::Unreadable { .. } => {
                "Put back a copy of it from a backup, or move it away: then nothing is known of \
                 earlier runs."
            }
        }
    }
}

/// Returns the bytes of a checkpoint with these lines, each including its ending.
#[must_use]
pub fn encode(kind: Kind, lines: &str) -> Vec<u8> {
    let mut out = format!("{} {}\n{lines}", kind.name, kind.version);
    let sum = hex::encode(Sha256::digest(out.as_bytes()));
    out.push_str("sha256 ");
    out.push_str(&sum);
    out.push('\n');
    out.into_bytes()
}

/// Returns the lines in the bytes of a checkpoint.
///
/// # Errors
///
/// [`Unreadable`], but not [`Unreadable::Line`].
pub fn decode(kind: Kind, bytes: &[u8]) -> Result<&str, Unreadable> {
    decode_version(kind, bytes).map(|(_, lines)| lines)
}

/// Returns the version and the lines in the bytes of a checkpoint: for kinds whose older versions
/// have other lines.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_version(kind: Kind, bytes: &[u8]) -> Result<(u32, &str), Unreadable> {
    let damaged = || match kind.recognises(bytes) {
        true => Unreadable::Damaged,
        false => Unreadable::OtherKind(kind.name),
    };
    let split = bytes.len().checked_sub(TRAILER).ok_or_else(damaged)?;
    let (content, trailer) = bytes.split_at_checked(split).ok_or_else(damaged)?;
    let expected = format!("sha256 {}\n", hex::encode(Sha256::digest(content)));
    if trailer != expected.as_bytes() {
        return Err(damaged());
    }
    let content = std::str::from_utf8(content).map_err(|_| damaged())?;
    let (first, lines) = content.split_once('\n').ok_or_else(damaged)?;
    let version = first
        .strip_prefix(kind.name)
        .and_then(|rest| rest.strip_prefix(' '))
        .and_then(|version| version.parse::<u32>().ok())
        .ok_or(Unreadable::OtherKind(kind.name))?;
    if version > kind.version {
        return Err(Unreadable::TooNew(version));
    }
    Ok((version, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        name: "ciphermq-test",
        version: 2,
    };

    #[test]
    fn the_form_is_the_documented_one() {
        // `printf 'ciphermq-test 2\na b\n' | sha256sum`
        let text = String::from_utf8(encode(KIND, "a b\n")).unwrap();
        let (content, trailer) = text.split_at(text.len() - 72);
        assert_eq!(content, "ciphermq-test 2\na b\n");
        assert_eq!(
            trailer,
            format!("sha256 {}\n", hex::encode(Sha256::digest(content)))
        );
        assert_eq!(decode(KIND, text.as_bytes()), Ok("a b\n"));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_detected() {
        let whole = encode(KIND, "stream a 0-3\nother b c\n");
        for end in 0..whole.len() {
            assert_eq!(
                decode(KIND, &whole[..end]),
                Err(Unreadable::Damaged),
                "cut at {end}"
            );
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(
                    decode(KIND, &flipped),
                    Err(Unreadable::Damaged),
                    "bit {bit} of {at}"
                );
            }
        }
        assert_eq!(
            decode(KIND, &[&whole[..], b"\n"].concat()),
            Err(Unreadable::Damaged)
        );
    }

    #[test]
    fn other_files_are_distinguished_from_damaged_checkpoints() {
        let whole = encode(KIND, "stream a 0-3\n");
        let hole = [&[0; 20][..], &whole[20..]].concat();
        for ours in [
            &whole[..],
            &whole[..5],
            &whole[1..],
            &whole[4..],
            &hole,
            &[],
            &[0; 9],
        ] {
            assert!(KIND.recognises(ours), "{}", ours.escape_ascii());
        }
        let other = encode(
            Kind {
                name: "ciphermq-other",
                ..KIND
            },
            "",
        );
        for theirs in [
            &b"dear diary\n"[..],
            b"{}\n",
            b"x",
            b"\x7fELF",
            &[0, 1, 2],
            b"ciphermq\n",
            &other,
        ] {
            assert!(!KIND.recognises(theirs), "{}", theirs.escape_ascii());
            assert_eq!(decode(KIND, theirs), Err(Unreadable::OtherKind(KIND.name)));
        }
    }

    #[test]
    fn other_kinds_and_newer_versions_are_distinguished_from_damage() {
        let newer = Kind { version: 3, ..KIND };
        assert_eq!(decode(KIND, &encode(newer, "")), Err(Unreadable::TooNew(3)));
        let older = Kind { version: 1, ..KIND };
        assert_eq!(decode(KIND, &encode(older, "x\n")), Ok("x\n"));
        assert_eq!(decode_version(KIND, &encode(older, "x\n")), Ok((1, "x\n")));
        let other = Kind {
            name: "ciphermq-other",
            ..KIND
        };
        assert_eq!(
            decode(KIND, &encode(other, "")),
            Err(Unreadable::OtherKind("ciphermq-test"))
        );
    }
}
