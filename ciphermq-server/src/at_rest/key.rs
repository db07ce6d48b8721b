//! The key that public keys are sealed with, and where it comes from.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ciphermq_files::{Access, Draft, create_folder, parent, resolve, sync_found_name};
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

use crate::private_file;

const KEY_BYTES: usize = 32;

/// More than a key file can hold: its key, and some white space.
const MAX_FILE_BYTES: u64 = 4096;

/// The command that makes a key, for error texts.
pub const MAKE_KEY: &str = "openssl rand -base64 32";

/// A 32-byte key. Its memory is wiped when dropped, and `Debug` shows nothing of it.
#[derive(Clone)]
pub struct AtRestKey(Zeroizing<[u8; KEY_BYTES]>);

/// A text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It is not base64.
    #[error("the key is not base64")]
    NotBase64,
    /// It is base64 of something else.
    #[error("the key has {0} bytes, and must have 32")]
    Length(usize),
}

impl AtRestKey {
    /// Reads base64 (RFC 4648, section 4, padded) of 32 bytes, with white space around it if need
    /// be.
    ///
    /// # Errors
    ///
    /// When the text is something else.
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

    /// A fresh key, from the operating system's random number generator.
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

/// Where the key comes from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// It stands in the configuration.
    Given(AtRestKey),
    /// It stands in a file of its own, as base64.
    File {
        /// The file.
        path: PathBuf,
        /// Make the file, with a fresh key, if it is not there. Only so when nobody named the file:
        /// a named file that is missing is rather a mistake, and a fresh key would open none of the
        /// rows there are.
        make: bool,
    },
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The configuration names a key file that is not there.
    #[error(
        "the key file {} ([encryption] aes_key_file) does not exist\n\
         Put back the file that the database's keys were sealed with. For a new database make one: \
         `(umask 077; {MAKE_KEY} > {})`.",
        path.display(), path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },

    /// The file cannot be read.
    #[error("cannot read the key file {}: {source}\nMake it readable for the server's user, and \
             for nobody else.", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The file was to be made and could not be.
    #[error(
        "cannot make the key file {}: {source}\n\
         {}, or set [encryption] aes_key_file to a file made with `(umask 077; {MAKE_KEY} > \
         FILE)`.",
        path.display(), make_advice(source)
    )]
    Make {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The file is there, and its name may not be on the disk.
    #[error(
        "cannot sync the folder of the key file {}: {source}\n\
         Check its disk: without the key nobody could read what it seals after a power failure.",
        path.display()
    )]
    Sync {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// Others than the owner can read or write the file.
    #[error("the key file {0}")]
    Exposed(#[source] private_file::Exposed),

    /// What stands in the file is no key.
    #[error(
        "{} holds no key: {source}\n\
         Put back the file that the database's keys were sealed with. For a new database make one: \
         `(umask 077; {MAKE_KEY} > {})`.",
        path.display(), path.display()
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: InvalidKey,
    },
}

impl KeySource {
    /// Reads the key, or makes it on the first start, which a log line tells.
    ///
    /// A key file that is made has mode 0600 and appears complete or not at all; if another process
    /// makes it in the same moment, both end up with the same key.
    ///
    /// # Errors
    ///
    /// When the file is missing and must not be made, cannot be read or made, is open to others
    /// than its owner, or holds something else than a key.
    pub fn load(&self) -> Result<AtRestKey, KeyError> {
        let (path, make) = match self {
            Self::Given(key) => return Ok(key.clone()),
            Self::File { path, make } => (path, *make),
        };
        match (read(path)?, make) {
            (Some(key), _) => {
                // Whoever made it may have been killed before its name was synced.
                resolve(path)
                    .and_then(|place| sync_found_name(&place))
                    .map_err(|source| KeyError::Sync {
                        path: path.clone(),
                        source,
                    })?;
                Ok(key)
            }
            (None, false) => Err(KeyError::Missing { path: path.clone() }),
            (None, true) => {
                let made = create(path).map_err(|source| KeyError::Make {
                    path: path.clone(),
                    source,
                })?;
                if made {
                    tracing::info!(
                        path = %path.display(),
                        "Made a new key that public keys are sealed with in the database; keep a \
                         copy of the file"
                    );
                }
                // Read back rather than kept: another process may have been faster, and its key
                // counts.
                read(path)?.ok_or_else(|| KeyError::Missing { path: path.clone() })
            }
        }
    }
}

fn make_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Free space on that disk",
        _ => "Let the server's user write there",
    }
}

/// The key in the file, if the file is there.
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

/// Makes the key file. `false`: it was there already.
///
/// It appears whole or not at all, no key is ever overwritten, and its name survives a power
/// failure: rows are soon sealed under this key. A link that leads nowhere is there: the key's disk
/// may be away.
fn create(path: &Path) -> io::Result<bool> {
    // The folder holds the database too: nobody else's business.
    create_folder(parent(path), Access::Private)?;
    let mut text = AtRestKey::random().map_err(io::Error::other)?.to_base64();
    text.push('\n');
    match Draft::write(path, text.as_bytes(), Access::Private)?.place_new(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}
