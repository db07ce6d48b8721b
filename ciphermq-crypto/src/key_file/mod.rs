//! Key files, of one line each.
//!
//! A newline is written at the end, and is optional when read.
//!
//! ```text
//!   receiver_private.key                            X25519: base64 of 32 bytes
//!   receiver_public.key                             X25519: base64 of 32 bytes
//!   receiver_xwing_private.key                      `XWING `, base64 of the seed, 32 bytes
//!   receiver_xwing_public.key                       `XWING `, base64 of 1,216 bytes
//!   receiver_private.<key id>.key                   older keys, which still open messages
//!   receiver_xwing_private.<key id>.key
//! ```
//!
//! The names of all other files derive from that of the X25519 private key, in the same folder.
//!
//! - [`KeyNames`]: the names of the files
//! - [`read_private`], [`read_x_wing_private`] ...: reading one file
//! - [`write_pairs`]: writing new keys, all files or none; [`complete_pair`]: repair after a power
//!   cut
//! - [`read_keyring`]: reading all private keys of a receiver
//! - [`rotate()`]: replacing keys, while keeping the old private ones

mod error;
mod keyring;
mod names;
mod rotate;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub use error::KeyFileError;
pub use keyring::read_keyring;
pub use names::KeyNames;
pub use rotate::{Rotated, Rotation, rotate};

use crate::keys::{KeyError, PrivateKey, PublicKey, XWingPrivateKey, XWingPublicKey};
use ciphermq_files::{Access, Existing, FileError, NewFiles, exposed_mode, sync_found_name};

/// The usual name of a receiver's private key file.
pub const PRIVATE_KEY_FILE: &str = "receiver_private.key";
/// The usual name of a receiver's public key file.
pub const PUBLIC_KEY_FILE: &str = "receiver_public.key";

/// The text before the base64 of an X-Wing key. Base64 contains no space.
const X_WING_MARK: &str = "XWING ";

/// The limit of bytes to read, above that of any key file.
const MAX_FILE_BYTES: u64 = 4096;

/// The kind of a key in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// An X25519 key.
    X25519,
    /// An X-Wing key.
    XWing,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::X25519 => "X25519",
            Self::XWing => "X-Wing",
        })
    }
}

/// Reads an X25519 private key from a file.
///
/// # Errors
///
/// [`KeyFileError`]; among others if the file's mode permits anybody but its owner to read it (Unix
/// only), or if it holds the public key in the file beside it.
pub fn read_private(path: &Path) -> Result<PrivateKey, KeyFileError> {
    let file = open_private(path)?;
    let key = parse(path, file, Kind::X25519, PrivateKey::from_base64)?;
    // Any 32 bytes are a private key. Those of the public one are known to everybody.
    if let Some(public) = KeyNames::find(path).map(|names| names.public())
        && read_public(&public).is_ok_and(|public| public.as_bytes() == key.as_bytes())
    {
        return Err(KeyFileError::HoldsPublic {
            path: path.to_owned(),
            public,
        });
    }
    Ok(key)
}

/// Reads an X25519 public key from a file.
///
/// # Errors
///
/// [`KeyFileError`].
pub fn read_public(path: &Path) -> Result<PublicKey, KeyFileError> {
    parse(path, open(path)?, Kind::X25519, PublicKey::from_base64)
}

/// Reads an X-Wing private key from a file.
///
/// # Errors
///
/// As [`read_private`].
pub fn read_x_wing_private(path: &Path) -> Result<XWingPrivateKey, KeyFileError> {
    let file = open_private(path)?;
    parse(path, file, Kind::XWing, XWingPrivateKey::from_base64)
}

/// Reads an X-Wing public key from a file.
///
/// # Errors
///
/// [`KeyFileError`].
pub fn read_x_wing_public(path: &Path) -> Result<XWingPublicKey, KeyFileError> {
    parse(path, open(path)?, Kind::XWing, XWingPublicKey::from_base64)
}

/// Writes the missing public key of a private key, as a power cut may have prevented it.
///
/// Returns its file; `None` if both files exist, or neither.
///
/// # Errors
///
/// [`KeyFileError`] if the private key cannot be read, or the public one cannot be written.
pub fn complete_pair(names: &KeyNames, kind: Kind) -> Result<Option<PathBuf>, KeyFileError> {
    let (private, public) = match kind {
        Kind::X25519 => (names.private(), names.public()),
        Kind::XWing => (names.x_wing_private(), names.x_wing_public()),
    };
    if public.symlink_metadata().is_ok() || private.symlink_metadata().is_err() {
        return Ok(None);
    }
    let mut files = NewFiles::new();
    match kind {
        Kind::X25519 => {
            stage_public(
                &mut files,
                &public,
                read_private(&private)?.public_key(),
                Existing::Keep,
            )?;
        }
        Kind::XWing => {
            let key = read_x_wing_private(&private)?;
            stage_x_wing_public(&mut files, &public, key.public_key(), Existing::Keep)?;
        }
    }
    files.commit()?;
    Ok(Some(public))
}

/// Writes an X25519 key pair into an existing folder, both files or none.
///
/// The private key gets mode 0600.
///
/// # Errors
///
/// [`KeyFileError::Write`]; with [`Existing::Keep`] also if one of the files exists.
pub fn write_pair(
    private_path: &Path,
    public_path: &Path,
    key: &PrivateKey,
    existing: Existing,
) -> Result<(), KeyFileError> {
    let mut files = NewFiles::new();
    stage_private(&mut files, private_path, key, existing)?;
    stage_public(&mut files, public_path, key.public_key(), existing)?;
    files.commit()?;
    Ok(())
}

/// Writes key pairs into an existing folder, all files or none, and returns the files.
///
/// Private keys get mode 0600.
///
/// # Errors
///
/// [`KeyFileError::Write`]; with [`Existing::Keep`] also if one of the files exists.
pub fn write_pairs(
    names: &KeyNames,
    key: Option<&PrivateKey>,
    x_wing: Option<&XWingPrivateKey>,
    existing: Existing,
) -> Result<Vec<PathBuf>, KeyFileError> {
    let mut files = NewFiles::new();
    if let Some(key) = key {
        stage_private(&mut files, &names.private(), key, existing)?;
        stage_public(&mut files, &names.public(), key.public_key(), existing)?;
    }
    if let Some(key) = x_wing {
        stage_x_wing_private(&mut files, &names.x_wing_private(), key, existing)?;
        stage_x_wing_public(
            &mut files,
            &names.x_wing_public(),
            key.public_key(),
            existing,
        )?;
    }
    Ok(files.commit()?)
}

fn stage_private(
    files: &mut NewFiles,
    path: &Path,
    key: &PrivateKey,
    existing: Existing,
) -> Result<(), FileError> {
    let line = line("", &key.to_base64());
    files.stage(path, line.as_bytes(), Access::Private, existing)
}

fn stage_public(
    files: &mut NewFiles,
    path: &Path,
    key: &PublicKey,
    existing: Existing,
) -> Result<(), FileError> {
    let line = line("", &key.to_base64());
    files.stage(path, line.as_bytes(), Access::Public, existing)
}

fn stage_x_wing_private(
    files: &mut NewFiles,
    path: &Path,
    key: &XWingPrivateKey,
    existing: Existing,
) -> Result<(), FileError> {
    let line = line(X_WING_MARK, &key.to_base64());
    files.stage(path, line.as_bytes(), Access::Private, existing)
}

fn stage_x_wing_public(
    files: &mut NewFiles,
    path: &Path,
    key: &XWingPublicKey,
    existing: Existing,
) -> Result<(), FileError> {
    let line = line(X_WING_MARK, &key.to_base64());
    files.stage(path, line.as_bytes(), Access::Public, existing)
}

/// Returns the line of a key file, in memory that is wiped and never reallocated.
fn line(mark: &str, base64: &str) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(mark.len() + base64.len() + 1));
    line.push_str(mark);
    line.push_str(base64);
    line.push('\n');
    line
}

fn open(path: &Path) -> Result<File, KeyFileError> {
    File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::NotFound(path.to_owned()),
        _ => KeyFileError::Read {
            path: path.to_owned(),
            source,
        },
    })
}

/// Opens a private key file that only its owner can read, and syncs its name: messages are going to
/// be sealed for the key, and the process that made it may have been killed before it did.
fn open_private(path: &Path) -> Result<File, KeyFileError> {
    let file = open(path)?;
    let path = path.to_owned();
    match exposed_mode(&file) {
        Ok(None) => {}
        Ok(Some(mode)) => return Err(KeyFileError::Exposed { path, mode }),
        Err(source) => return Err(KeyFileError::Read { path, source }),
    }
    match sync_found_name(&path) {
        Ok(()) => Ok(file),
        Err(source) => Err(KeyFileError::Sync { path, source }),
    }
}

fn parse<K>(
    path: &Path,
    file: File,
    kind: Kind,
    key: fn(&str) -> Result<K, KeyError>,
) -> Result<K, KeyFileError> {
    // Enough capacity for the limit: a buffer that grows leaves copies in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(8192));
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| KeyFileError::Read {
            path: path.to_owned(),
            source,
        })?;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) if bytes.len() as u64 <= MAX_FILE_BYTES => text,
        _ => {
            return Err(KeyFileError::NoText {
                path: path.to_owned(),
                kind,
            });
        }
    };
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let no_key = |source| KeyFileError::NoKey {
        path: path.to_owned(),
        kind,
        source,
    };
    let other = |found| KeyFileError::OtherKind {
        path: path.to_owned(),
        found,
        expected: kind,
    };
    match (kind, line.strip_prefix(X_WING_MARK)) {
        (Kind::X25519, None) => key(line).map_err(no_key),
        (Kind::XWing, Some(base64)) => key(base64).map_err(no_key),
        (Kind::X25519, Some(_)) => Err(other(Kind::XWing)),
        (Kind::XWing, None) if PrivateKey::from_base64(line).is_ok() => Err(other(Kind::X25519)),
        (Kind::XWing, None) => Err(no_key(KeyError::NotBase64)),
    }
}

#[cfg(test)]
mod tests;
