//! Small files that survive crashes: what a process must know again after it was killed.
//!
//! ```text
//!   ciphermq-processed 1\n        what it is, and the version of its form
//!   ...\n                         lines of text
//!   sha256 <64 hexadecimal>\n     of every byte before this line
//! ```
//!
//! A checkpoint is replaced as a whole, under a lock, and synced together with its folder
//! ([`CheckpointFile`]): after a crash there is the old one or the new one. Every flipped byte and
//! every cut is noticed when it is read.
//!
//! - [`dedup`](crate::dedup) keeps what was processed in one
//! - [`resume`](crate::resume) keeps how far a stream was acknowledged in one

mod file;

use std::io;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

pub use file::CheckpointFile;

/// How long the last line is: `sha256 `, 64 digits, the line ending.
const TRAILER: usize = 7 + 64 + 1;

/// Which checkpoint a file is: the first line is this and the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// One word, such as `ciphermq-processed`.
    pub name: &'static str,
    /// The newest version that this program reads, and the one that it writes.
    pub version: u32,
}

/// What is left of a first line that lost its beginning is recognised from so many bytes on.
const MIN_REST: usize = 8;
/// So many bytes of a first line may be altered.
const MAX_ALTERED: usize = 2;

impl Kind {
    /// Whether a file with these bytes is, or was before it was damaged, a checkpoint of this kind,
    /// or holds nothing.
    ///
    /// Nothing else may be moved or replaced: it is somebody's data. A power cut can leave zeros in
    /// place of bytes.
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
        // Altered here and there, cut at its end, or at its beginning.
        (first.len() >= name.len() && altered <= MAX_ALTERED)
            || name.starts_with(text)
            || (first.len() >= MIN_REST && whole.as_bytes().ends_with(first))
    }
}

/// Whether the last line is a checksum, of whatever.
fn has_trailer(bytes: &[u8]) -> bool {
    let last = bytes
        .len()
        .checked_sub(TRAILER)
        .and_then(|split| bytes.get(split..));
    last.and_then(|last| last.strip_prefix(b"sha256 ")?.strip_suffix(b"\n"))
        .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// What can go wrong with a checkpoint.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file or its folder cannot be made, opened or read.
    #[error("The checkpoint {} cannot be opened: {source}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process works with it.
    #[error("Another process holds the checkpoint {}", .0.display())]
    Locked(PathBuf),
    /// It cannot be written or synced. The old one stands.
    #[error("The checkpoint {} cannot be written: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody moved, removed or replaced it while this process worked with it.
    #[error("The checkpoint {} was moved or replaced while it was in use", .0.display())]
    Moved(PathBuf),
    /// The next stream cannot begin: not everything of the one in the checkpoint is acknowledged,
    /// or it is the same.
    #[error("The stream of the checkpoint {} is not complete, so no other one can take its \
             place", .0.display())]
    Incomplete(PathBuf),
    /// What stands in it cannot be used.
    #[error("The checkpoint {} cannot be used: {reason}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: Unreadable,
    },
}

ciphermq_protocol::debug_as_report!(CheckpointError, |error| Some(error.advice().to_owned()));

/// Why the content of a checkpoint cannot be used.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// It was cut or altered: the checksum is not that of its content.
    #[error("it is damaged")]
    Damaged,
    /// It is another program's, or another command's.
    #[error("it is something else than a `{0}` checkpoint")]
    OtherKind(&'static str),
    /// A newer version of this program has written it.
    #[error("it was written by a newer version of this program (form {0})")]
    TooNew(u32),
    /// It is whole, but a line in it makes no sense.
    #[error("line {0} of it makes no sense")]
    Line(usize),
}

ciphermq_protocol::debug_as_report!(Unreadable);

impl CheckpointError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Open { .. } | Self::Write { .. } => {
                "Check that the folder is yours to write and has room, or let the checkpoint stand \
                 elsewhere."
            }
            Self::Locked(_) => "End the other process, or wait for its end.",
            Self::Moved(_) => "Start again. Touch a checkpoint only while nothing works with it.",
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

/// The bytes of a checkpoint with these lines, each with its ending.
#[must_use]
pub fn encode(kind: Kind, lines: &str) -> Vec<u8> {
    let mut out = format!("{} {}\n{lines}", kind.name, kind.version);
    let sum = hex(&Sha256::digest(out.as_bytes()));
    out.push_str("sha256 ");
    out.push_str(&sum);
    out.push('\n');
    out.into_bytes()
}

/// The lines in the bytes of a checkpoint.
///
/// # Errors
///
/// [`Unreadable`], but not [`Unreadable::Line`].
pub fn decode(kind: Kind, bytes: &[u8]) -> Result<&str, Unreadable> {
    decode_version(kind, bytes).map(|(_, lines)| lines)
}

/// The version and the lines in the bytes of a checkpoint: for kinds whose older versions have
/// other lines.
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
    let expected = format!("sha256 {}\n", hex(&Sha256::digest(content)));
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

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
            // Writing to a text cannot fail.
            let _ = write!(out, "{byte:02x}");
            out
        })
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
            format!("sha256 {}\n", hex(&Sha256::digest(content)))
        );
        assert_eq!(decode(KIND, text.as_bytes()), Ok("a b\n"));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
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
    fn strangers_files_are_told_from_damaged_ones_of_ours() {
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
    fn other_kinds_and_newer_versions_are_told_from_damage() {
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
