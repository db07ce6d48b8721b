//! Errors of key files.

use std::io;
use std::path::{Path, PathBuf};

use super::Kind;
use crate::keys::{KeyError, KeyId};
use crate::random::RandomError;
use ciphermq_files::FileError;
use ciphermq_protocol::text::{holds_key, shown};

/// The reason why a key file was not read or written.
///
/// `Display` says what happened, [`KeyFileError::advice`] what to do.
#[derive(thiserror::Error)]
pub enum KeyFileError {
    /// The file does not exist.
    #[error("there is no key file {}", shown(.0))]
    NotFound(PathBuf),
    /// The file cannot be read.
    #[error("cannot read the key file {}: {source}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The folder of a private key cannot be synced: the key could be gone after a power failure,
    /// and what was sealed for it could never be opened.
    #[error(
        "cannot sync the folder of the private key file {}: {source}",
        shown(path)
    )]
    Sync {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The folder of older keys cannot be read.
    #[error("cannot look for older keys in {}: {source}", shown(path))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// Others than the owner may read the private key file.
    #[error(
        "the private key file {} may be read by others than its owner (mode \
             {mode:04o})",
        shown(path)
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// The permission bits.
        mode: u32,
    },
    /// The file holds something other than a key.
    #[error("the key file {} holds no {kind} key: {source}", shown(path))]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The expected kind.
        kind: Kind,
        /// The error of the key.
        source: KeyError,
    },
    /// The private key file holds the public key of the pair.
    #[error(
        "the private key file {} holds the public key of {}",
        shown(path),
        shown(public)
    )]
    HoldsPublic {
        /// The file of the private key.
        path: PathBuf,
        /// The file of the public key.
        public: PathBuf,
    },
    /// The file holds no UTF-8 text, or too much of it.
    #[error(
        "the key file {} holds no {kind} key: it is not a short text",
        shown(path)
    )]
    NoText {
        /// The file.
        path: PathBuf,
        /// The expected kind.
        kind: Kind,
    },
    /// The file holds a key of another kind.
    #[error(
        "the key file {} holds an {found} key, and an {expected} key was \
             expected",
        shown(path)
    )]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// The kind of the key in the file.
        found: Kind,
        /// The expected kind.
        expected: Kind,
    },
    /// The file of an older key is named after another key.
    #[error(
        "the key file {} is named after the key `{named}`, but holds the key \
             `{found}`",
        shown(path)
    )]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// The key id in its name.
        named: KeyId,
        /// The id of the key that it holds.
        found: KeyId,
    },
    /// The name of the private key file lacks the ending from which those of the other files
    /// derive.
    #[error("the private key file {} does not have a name like \
             {}", shown(.0), super::PRIVATE_KEY_FILE)]
    Unnamed(PathBuf),
    /// The operating system has no randomness for new keys.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Writing the files failed.
    #[error(transparent)]
    Write(#[from] FileError),
}

ciphermq_protocol::debug_as_report!(KeyFileError, |error| Some(error.advice()));

/// Returns advice to replace the pair of a damaged file. `keygen` alone refuses existing files.
fn replace(path: &Path, kind: Kind) -> String {
    let is_usual = path.file_name().is_some_and(|name| {
        [
            "receiver_private.key",
            "receiver_public.key",
            "receiver_xwing_private.key",
            "receiver_xwing_public.key",
        ]
        .iter()
        .any(|usual| name == *usual)
    });
    if !is_usual {
        return "make a new pair in another folder with `keygen --out FOLDER`".to_owned();
    }
    let post_quantum = match kind {
        Kind::X25519 => "",
        Kind::XWing => " --post-quantum",
    };
    format!(
        "replace the pair: `keygen --force{post_quantum} --out {}`, after which messages that were \
         sealed for the old key can no longer be opened",
        shown(folder_of(path))
    )
}

/// Returns the folder of a file for a command.
fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

impl KeyFileError {
    /// Returns what to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::NotFound(path) | Self::Read { path, .. } if holds_key(path) => {
                "name the file that holds your key, not the key itself".to_owned()
            }
            Self::NotFound(path) => format!(
                "make a key pair with `keygen --out {}`, or name the file where your key is",
                shown(folder_of(path))
            ),
            Self::Read { .. } => "check that the file is there and that you may read it".to_owned(),
            Self::Sync { .. } => "check the disk, or move the key to another one".to_owned(),
            Self::Folder { .. } => "check that you may read the folder in which the private key \
                                    is"
            .to_owned(),
            Self::Exposed { path, .. } => format!("run: chmod 600 {}", shown(path)),
            Self::HoldsPublic { path, .. } => {
                format!(
                    "restore the private key from a backup, or {}",
                    replace(path, Kind::X25519)
                )
            }
            Self::NoKey { path, kind, .. } | Self::NoText { path, kind } => {
                let holds = match kind {
                    Kind::X25519 => "base64 of 32 bytes, 44 characters",
                    Kind::XWing => {
                        "`XWING`, a space and base64: of 32 bytes if it is private, of \
                                    1216 if it is public"
                    }
                };
                format!(
                    "the file should hold {holds}; restore it from a backup, or {}",
                    replace(path, *kind)
                )
            }
            Self::OtherKind { .. } => {
                "name the right file: X-Wing keys stand in files with `_xwing_` in their name, \
                 X25519 keys in those without"
                    .to_owned()
            }
            Self::Misnamed { path, named, found } => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                format!(
                    "restore the key `{named}` from a backup; or, if this is the key that you \
                     mean, rename the file to {}",
                    name.replace(&named.to_string(), &found.to_string())
                )
            }
            Self::Unnamed(_) => format!(
                "rename it to {}, or another name that ends with _private.key",
                super::PRIVATE_KEY_FILE
            ),
            Self::Random(_) => "this should not happen; look at the machine's logs".to_owned(),
            Self::Write(FileError::Exists(_)) => {
                "make new keys with `keygen rotate`, which keeps the old ones, choose another \
                 folder, \
                 or replace it with --force, after which messages that were sealed for the old key \
                 can no longer be opened"
                    .to_owned()
            }
            Self::Write(FileError::Io { .. }) => {
                "check that the folder is there, that you may write to it, and that the disk is \
                 not full"
                    .to_owned()
            }
        }
    }
}
