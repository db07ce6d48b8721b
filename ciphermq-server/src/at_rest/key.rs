//! The key that seals public keys at rest, and the sources that provide it.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ciphermq_files::{Access, Draft, create_folder, parent, sync_found_name};
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

use crate::private_file;

const KEY_BYTES: usize = 32;

/// The size limit of a key file: a key needs 44 bytes, and white space may surround it.
const MAX_FILE_BYTES: u64 = 4096;

/// The command that generates a key, for error messages.
pub const MAKE_KEY: &str = "openssl rand -base64 32";

/// A 32-byte key. Its memory is wiped on drop, and `Debug` does not reveal it.
#[derive(Clone, PartialEq, Eq)]
pub struct AtRestKey(Zeroizing<[u8; KEY_BYTES]>);

/// The reason why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The text is not base64.
    #[error("the key is not base64")]
    NotBase64,
    /// The text encodes another number of bytes.
    #[error("the key has {0} bytes, and must have 32")]
    Length(usize),
}

impl AtRestKey {
    /// Decodes padded base64 (RFC 4648, section 4) of 32 bytes, ignoring white space around it.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] if the text is anything else.
    pub fn from_base64(text: &str) -> Result<Self, InvalidKey> {
        let bytes = Zeroizing::new(
            BASE64_STANDARD
                .decode(text.trim())
                .map_err(|_| InvalidKey::NotBase64)?,
        );
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if bytes.len() != KEY_BYTES {
            return Err(InvalidKey::Length(bytes.len()));
        }
        key.copy_from_slice(&bytes);
        Ok(Self(key))
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Generates a key with the operating system's random number generator.
    fn random() -> Result<Self, rand::rngs::SysError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        SysRng.try_fill_bytes(key.as_mut_slice())?;
        Ok(Self(key))
    }

    fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64_STANDARD.encode(self.0.as_slice()))
    }
}

impl fmt::Debug for AtRestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtRestKey([secret])")
    }
}

/// The source of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The configuration contains the key.
    Inline(AtRestKey),
    /// A separate file contains the key, in base64.
    File {
        /// The path of the file.
        path: PathBuf,
        /// Whether to create the file with a new key if it is missing. Only the default file is
        /// created: a missing file that the configuration names is more likely a mistake, and a
        /// new key would not open the existing rows.
        create_if_missing: bool,
    },
}

/// The reason why the key cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The configuration names a key file that does not exist.
    #[error(
        "the key file {} ([encryption] aes_key_file) does not exist\n\
         Restore the file that the database's keys were sealed with. For a new database, create \
         one: `(umask 077; {MAKE_KEY} > {})`.",
        path.display(), path.display()
    )]
    Missing {
        /// The path of the file.
        path: PathBuf,
    },

    /// The file cannot be read.
    #[error("cannot read the key file {}: {source}\nMake it readable by the server's user \
             only.", path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },

    /// The file could not be created.
    #[error(
        "cannot create the key file {}: {source}\n\
         {}, or set [encryption] aes_key_file to a file made with `(umask 077; {MAKE_KEY} > \
         FILE)`.",
        path.display(), make_advice(source)
    )]
    Make {
        /// The path of the file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },

    /// The file exists, but its name could not be made durable.
    #[error(
        "cannot sync the folder of the key file {}: {source}\n\
         Check the disk: if a power failure removed the key, no row could be opened any more.",
        path.display()
    )]
    Sync {
        /// The path of the file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },

    /// Users other than the owner can read or write the file.
    #[error("the key file {0}")]
    Exposed(#[source] private_file::Exposed),

    /// The contents of the file are not a key.
    #[error(
        "{} holds no key: {source}\n\
         Restore the file that the database's keys were sealed with. For a new database, create \
         one: `(umask 077; {MAKE_KEY} > {})`.",
        path.display(), path.display()
    )]
    Invalid {
        /// The path of the file.
        path: PathBuf,
        /// The reason why they are not.
        source: InvalidKey,
    },
}

impl KeySource {
    /// Checks that [`KeySource::load`] can read the key, or that it may create it, without
    /// creating anything.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if the file is missing and may not be created, cannot be read, is accessible
    /// to users other than its owner, or does not contain a key.
    pub fn check(&self) -> Result<(), KeyError> {
        match self {
            Self::Inline(_) => Ok(()),
            Self::File {
                path,
                create_if_missing,
            } => match read(path)? {
                None if !create_if_missing => Err(KeyError::Missing { path: path.clone() }),
                _ => Ok(()),
            },
        }
    }

    /// Reads the key, or generates it at the first start, which is logged.
    ///
    /// A new key file has mode 0600 and appears complete or not at all; if another process creates
    /// it at the same time, both use the same key.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if the file is missing and may not be created, cannot be read or created, is
    /// accessible to users other than its owner, or does not contain a key.
    pub fn load(&self) -> Result<AtRestKey, KeyError> {
        let (path, create_if_missing) = match self {
            Self::Inline(key) => return Ok(key.clone()),
            Self::File {
                path,
                create_if_missing,
            } => (path, *create_if_missing),
        };
        match (read(path)?, create_if_missing) {
            (Some(key), _) => {
                // The process that created it may have been killed before it synced the name.
                sync_found_name(path).map_err(|source| KeyError::Sync {
                    path: path.clone(),
                    source,
                })?;
                Ok(key)
            }
            (None, false) => Err(KeyError::Missing { path: path.clone() }),
            (None, true) => {
                let created = create(path).map_err(|source| KeyError::Make {
                    path: path.clone(),
                    source,
                })?;
                if created {
                    tracing::info!(
                        path = %path.display(),
                        "Created a new key for sealing public keys in the database; keep a copy of \
                         the file"
                    );
                }
                // Read back rather than kept: if another process was faster, its key is the one to
                // use.
                read(path)?.ok_or_else(|| KeyError::Missing { path: path.clone() })
            }
        }
    }
}

fn make_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Free space on that disk",
        _ => "Allow the server's user to write there",
    }
}

/// Reads the key from the file; `None` if the file does not exist.
fn read(path: &Path) -> Result<Option<AtRestKey>, KeyError> {
    let failed = |source| KeyError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match private_file::refuse_exposed(path, &file) {
        Ok(()) => {}
        Err(private_file::Error::Exposed(exposed)) => return Err(KeyError::Exposed(exposed)),
        Err(private_file::Error::Unknown(source)) => return Err(failed(source)),
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => KeyError::Invalid {
                path: path.to_owned(),
                source: InvalidKey::NotBase64,
            },
            _ => failed(error),
        })?;
    AtRestKey::from_base64(&text)
        .map(Some)
        .map_err(|source| KeyError::Invalid {
            path: path.to_owned(),
            source,
        })
}

/// Creates the key file, and returns `false` if it already exists.
///
/// It is created atomically and durably, because rows will be sealed under this key; an existing
/// file is never overwritten. A dangling link counts as existing: the key's disk may be unmounted.
fn create(path: &Path) -> io::Result<bool> {
    // The folder is private because it also contains the database.
    create_folder(parent(path), Access::Private)?;
    let mut text = AtRestKey::random().map_err(io::Error::other)?.to_base64();
    text.push('\n');
    match Draft::write(path, text.as_bytes(), Access::Private)?.place_new(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}
