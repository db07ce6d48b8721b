//! Public keys are sealed at rest: in the database they stand encrypted and bound to their client id.
//!
//! Whoever can read or change the database, but does not have the key, can neither read a public key nor put
//! another in its place, nor give one client's row to another. (Such a person can delete rows, or put an
//! older row of the same client back. Senders that verify signed keys notice that.)
//!
//! - `key`: the 32-byte key, and where it comes from;
//! - this file: sealing and opening.
//!
//! # Form of a row
//!
//! AEAD with the configured key, a random 96-bit nonce and a 128-bit tag, both the defaults of AES-256-GCM
//! (NIST SP 800-38D) and ChaCha20-Poly1305 (RFC 8439). Associated data: the text `CipherMQ public key at
//! rest v1`, a zero byte, the algorithm's name, a zero byte, the client id. Ciphertext, nonce and tag are each
//! kept as base64 (RFC 4648, section 4), and the algorithm's name beside them.
//!
//! # Rows of older servers
//!
//! They have no algorithm, and were sealed with AES-256-GCM under the same key without associated data. They
//! are opened, and reported as [`Opened::legacy`] so that the caller seals them anew.
//!
//! One key seals at most a few public keys a client, far below the 2^32 random nonces of one key that
//! SP 800-38D allows, and the two algorithms share no state under it.

use std::fmt;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chacha20poly1305::ChaCha20Poly1305;
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

mod key;

pub use key::{AtRestKey, InvalidKey, KeyError, KeySource, MAKE_KEY};

const DOMAIN: &[u8] = b"CipherMQ public key at rest v1\0";
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// An X25519 public key, the only thing that older servers sealed.
const LEGACY_KEY_BYTES: usize = 32;

/// How public keys are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// AES-256-GCM.
    #[default]
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
}

impl Algorithm {
    /// The name that stands in a row.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// The algorithm of a row, by its exact name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Aes256Gcm, Self::ChaCha20Poly1305]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    /// The algorithm that a configuration means, its text in lower case. Older ones name
    /// `x25519_chacha20_poly1305`, by which their servers sealed with AES-256-GCM: it means what it did.
    pub(crate) fn from_setting(text: &str) -> Option<Self> {
        match text {
            "aes-256-gcm" | "aes_256_gcm" | "aes256gcm" | "x25519_chacha20_poly1305" => Some(Self::Aes256Gcm),
            "chacha20-poly1305" | "chacha20_poly1305" | "chacha20poly1305" => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A sealed key, as the columns of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// What it was sealed with, by [`Algorithm::name`]. `None` (NULL) in rows of older servers.
    pub algorithm: Option<String>,
    /// Base64 of the ciphertext, as long as what was sealed.
    pub ciphertext: String,
    /// Base64 of the 12-byte nonce.
    pub nonce: String,
    /// Base64 of the 16-byte tag.
    pub tag: String,
}

/// What stood in a sealed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What was sealed. For a legacy row the 32 raw bytes of the key, whether the older server had sealed
    /// those or their base64.
    pub bytes: Vec<u8>,
    /// The row is an older server's: seal the key anew and replace the row.
    pub legacy: bool,
}

/// Seals public keys for the database and opens them again. Cheap to clone, and free of interior state.
#[derive(Debug, Clone)]
pub struct Sealer {
    key: AtRestKey,
    algorithm: Algorithm,
}

/// Why a row could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system gave no random bytes for a nonce.
    #[error(
        "the operating system's random number generator failed: {0}\nTry again; without it nothing can be sealed."
    )]
    Random(#[source] rand::rngs::SysError),

    /// The key is too long to be sealed, which takes more than 64 GiB.
    #[error(
        "the public key of client '{client_id}' is too long to be sealed\nRegister a public key, not data."
    )]
    TooLong {
        /// Whose key.
        client_id: String,
    },

    /// The row names an algorithm that this version does not have.
    #[error(
        "the stored public key of client '{client_id}' is sealed with the unknown algorithm '{algorithm}'\n\
         Run the version of the server that wrote it, or let the client register its key again."
    )]
    UnknownAlgorithm {
        /// Whose key.
        client_id: String,
        /// What the row names.
        algorithm: String,
    },

    /// A column of the row does not have the form that it must have.
    #[error(
        "the stored public key of client '{client_id}' is damaged: {column} is not base64 of the right length\n\
         Restore the row from a backup, or let the client register its key again."
    )]
    Damaged {
        /// Whose key.
        client_id: String,
        /// Which column.
        column: &'static str,
    },

    /// The row was sealed under another key or for another client, or was changed.
    #[error(
        "the stored public key of client '{client_id}' does not fit the key configured\n\
         Configure the [encryption] aes_key or aes_key_file that it was sealed with; if that is lost, or the row \
         was altered, let the client register its key again."
    )]
    Refused {
        /// Whose key.
        client_id: String,
    },

    /// A legacy row opened, and what was in it is no X25519 public key.
    #[error(
        "the stored public key of client '{client_id}' is no X25519 key, though it was sealed under this key\n\
         Let the client register its key again."
    )]
    NoKey {
        /// Whose key.
        client_id: String,
    },
}

impl Sealer {
    /// A sealer that seals with `algorithm` and opens both.
    pub fn new(key: AtRestKey, algorithm: Algorithm) -> Self {
        Self { key, algorithm }
    }

    /// Seals any bytes, such as a bare public key or a signed one, for the row of `client_id`.
    ///
    /// # Errors
    ///
    /// [`Error::Random`], if the operating system has no random bytes; [`Error::TooLong`].
    pub fn seal(&self, client_id: &str, public_key: &[u8]) -> Result<SealedKey, Error> {
        let mut nonce = [0; NONCE_BYTES];
        SysRng.try_fill_bytes(&mut nonce).map_err(Error::Random)?;
        let aad = associated_data(self.algorithm, client_id);
        let payload = Payload {
            msg: public_key,
            aad: &aad,
        };
        let sealed = match self.algorithm {
            Algorithm::Aes256Gcm => Aes256Gcm::new(self.key.bytes().into()).encrypt(&nonce.into(), payload),
            Algorithm::ChaCha20Poly1305 => {
                ChaCha20Poly1305::new(self.key.bytes().into()).encrypt(&nonce.into(), payload)
            }
        };
        let too_long = || Error::TooLong {
            client_id: client_id.to_owned(),
        };
        let sealed = sealed.map_err(|_| too_long())?;
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or_else(too_long)?;
        Ok(SealedKey {
            algorithm: Some(self.algorithm.name().to_owned()),
            ciphertext: BASE64_STANDARD.encode(ciphertext),
            nonce: BASE64_STANDARD.encode(nonce),
            tag: BASE64_STANDARD.encode(tag),
        })
    }

    /// Opens the row of `client_id`, whichever algorithm sealed it.
    ///
    /// # Errors
    ///
    /// When the row was sealed under another key, for another client, by an unknown algorithm, or is damaged.
    pub fn open(&self, client_id: &str, row: &SealedKey) -> Result<Opened, Error> {
        let (algorithm, legacy) = match row.algorithm.as_deref() {
            None | Some("") => (Algorithm::Aes256Gcm, true),
            Some(name) => match Algorithm::from_name(name) {
                Some(algorithm) => (algorithm, false),
                None => {
                    let algorithm = name.to_owned();
                    return Err(Error::UnknownAlgorithm {
                        client_id: client_id.to_owned(),
                        algorithm,
                    });
                }
            },
        };
        let damaged = |column| Error::Damaged {
            client_id: client_id.to_owned(),
            column,
        };
        let decode = |text: &str, column| BASE64_STANDARD.decode(text.trim()).map_err(|_| damaged(column));
        let nonce: [u8; NONCE_BYTES] = decode(&row.nonce, "nonce")?
            .try_into()
            .map_err(|_| damaged("nonce"))?;
        let tag: [u8; TAG_BYTES] = decode(&row.tag, "tag")?.try_into().map_err(|_| damaged("tag"))?;
        let mut sealed = decode(&row.ciphertext, "public_key_ciphertext")?;
        sealed.extend_from_slice(&tag);

        let aad = if legacy {
            Vec::new()
        } else {
            associated_data(algorithm, client_id)
        };
        let payload = Payload {
            msg: &sealed,
            aad: &aad,
        };
        let opened = match algorithm {
            Algorithm::Aes256Gcm => Aes256Gcm::new(self.key.bytes().into()).decrypt(&nonce.into(), payload),
            Algorithm::ChaCha20Poly1305 => {
                ChaCha20Poly1305::new(self.key.bytes().into()).decrypt(&nonce.into(), payload)
            }
        };
        let bytes = opened.map_err(|_| Error::Refused {
            client_id: client_id.to_owned(),
        })?;
        let bytes = if legacy {
            legacy_key(bytes).ok_or_else(|| Error::NoKey {
                client_id: client_id.to_owned(),
            })?
        } else {
            bytes
        };
        Ok(Opened { bytes, legacy })
    }
}

/// What is authenticated beside the key. The algorithm's name holds no zero byte, so the parts cannot shift.
fn associated_data(algorithm: Algorithm, client_id: &str) -> Vec<u8> {
    [DOMAIN, algorithm.name().as_bytes(), b"\0", client_id.as_bytes()].concat()
}

/// The raw key in a legacy row: some older servers sealed the 32 bytes, some the text that clients send.
fn legacy_key(bytes: Vec<u8>) -> Option<Vec<u8>> {
    if bytes.len() == LEGACY_KEY_BYTES {
        return Some(bytes);
    }
    let text = Zeroizing::new(String::from_utf8(bytes).ok()?);
    BASE64_STANDARD
        .decode(text.trim())
        .ok()
        .filter(|key| key.len() == LEGACY_KEY_BYTES)
}

#[cfg(test)]
mod tests;
