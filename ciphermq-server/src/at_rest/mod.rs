//! Encryption at rest of the public keys in the database, each bound to its client id.
//!
//! Anyone who can read or change the database, but does not have the key, can neither read a public
//! key nor replace it by another, nor assign one client's row to another, nor present a signed key
//! as a bare one. (Such an attacker can delete rows, or restore an older row of the same client;
//! senders that verify signed keys detect that.)
//!
//! - `key`: the 32-byte key, and the sources that provide it;
//! - [`adopted`]: the record beside the key that the rows of older servers were adopted;
//! - this file: sealing and opening.
//!
//! # Format of a row
//!
//! AEAD with the configured key, a random 96-bit nonce and a 128-bit tag, both the defaults of
//! AES-256-GCM (NIST SP 800-38D) and ChaCha20-Poly1305 (RFC 8439). Associated data: the text
//! `CipherMQ at rest v2`, a zero byte, the kind of the row (`public key` or `signed key`), a zero
//! byte, the algorithm's name, a zero byte, the client id. Ciphertext, nonce and tag are each kept
//! as base64 (RFC 4648, section 4), together with the algorithm's name.
//!
//! # Rows of older servers
//!
//! The oldest rows state no algorithm, and were sealed with AES-256-GCM under the same key without
//! associated data: they are bound to no client. Later ones have the associated data
//! `CipherMQ public key at rest v1`, a zero byte, the algorithm's name, a zero byte, the client id,
//! regardless of the kind of the row. [`AtRestCipher::open_older`] opens both, for the one-time
//! adoption of an older database; [`AtRestCipher::open`] opens neither.
//!
//! One key seals a few public keys per client, far below the 2^32 random nonces per key that
//! SP 800-38D allows, and the two algorithms share no state under it.

use std::fmt;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chacha20poly1305::ChaCha20Poly1305;
use rand::{TryRng as _, rngs::SysRng};
use zeroize::Zeroizing;

pub mod adopted;
mod key;

use crate::model::{RowKind, SealedRow};
pub use key::{AtRestKey, InvalidKey, KeyError, KeySource, MAKE_KEY};

const DOMAIN: &[u8] = b"CipherMQ at rest v2\0";
const OLDER_DOMAIN: &[u8] = b"CipherMQ public key at rest v1\0";
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// The length of an X25519 public key, the only kind of key that the oldest servers sealed.
const KEY_BYTES: usize = 32;

/// The AEAD algorithm that seals public keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// AES-256-GCM (NIST SP 800-38D).
    #[default]
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305,
}

impl Algorithm {
    /// Returns the name that rows contain.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// Returns the algorithm with exactly this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Aes256Gcm, Self::ChaCha20Poly1305]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    /// Parses the configuration's name of an algorithm, in lower case.
    ///
    /// `x25519_chacha20_poly1305` means AES-256-GCM, as it did to the older servers that had this
    /// setting.
    pub(crate) fn from_setting(text: &str) -> Option<Self> {
        match text {
            "aes-256-gcm" | "aes_256_gcm" | "aes256gcm" | "x25519_chacha20_poly1305" => {
                Some(Self::Aes256Gcm)
            }
            "chacha20-poly1305" | "chacha20_poly1305" | "chacha20poly1305" => {
                Some(Self::ChaCha20Poly1305)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns a kind's name in the associated data.
const fn kind_name(kind: RowKind) -> &'static str {
    match kind {
        RowKind::PublicKey => "public key",
        RowKind::SignedKey => "signed key",
    }
}

/// The policy for rows of older servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OlderRows {
    /// Adopts them at the first start with this key.
    #[default]
    Once,
    /// Never adopts them.
    Refuse,
    /// Adopts them now, whatever was recorded: an older server's database was restored.
    Accept,
}

/// The cipher that seals public keys for the database and opens them again. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AtRestCipher {
    key: AtRestKey,
    algorithm: Algorithm,
}

/// The reason why a row could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system provided no random bytes for a nonce.
    #[error(
        "the operating system's random number generator failed: {0}\nTry again; without it nothing \
         can be sealed."
    )]
    Random(#[source] rand::rngs::SysError),

    /// The key is too long to be sealed, which takes more than 64 GiB.
    #[error(
        "the public key of client '{client_id}' is too long to be sealed\nRegister a public key, \
         not data."
    )]
    TooLong {
        /// The client that the row belongs to.
        client_id: String,
    },

    /// The row names an algorithm that this version does not support.
    #[error(
        "the stored public key of client '{client_id}' is sealed with the unknown algorithm \
         '{algorithm}'\n\
         Run the version of the server that wrote it, or let the client register its key again."
    )]
    UnknownAlgorithm {
        /// The client that the row belongs to.
        client_id: String,
        /// The algorithm's name in the row.
        algorithm: String,
    },

    /// A column of the row is not base64 of the right length.
    #[error(
        "the stored public key of client '{client_id}' is damaged: {column} is not base64 of the \
         right length\n\
         Restore the row from a backup, or let the client register its key again."
    )]
    Damaged {
        /// The client that the row belongs to.
        client_id: String,
        /// The column's name.
        column: &'static str,
    },

    /// The row was sealed under another key or for another client, or was altered.
    #[error(
        "the stored public key of client '{client_id}' does not fit the key configured\n\
         Configure the [encryption] aes_key or aes_key_file that it was sealed with; if that is \
         lost, or the row \
         was altered, let the client register its key again."
    )]
    Refused {
        /// The client that the row belongs to.
        client_id: String,
    },

    /// The row has the format of an older server: it is not bound to its client, or not to its
    /// kind.
    #[error(
        "the stored public key of client '{client_id}' has the form of an older server, and is no \
         longer accepted\n\
         Let the client register its key again. If an older server's database was restored, start \
         once with [encryption] older_rows = \"accept\"."
    )]
    OlderForm {
        /// The client that the row belongs to.
        client_id: String,
    },
}

impl Error {
    /// Returns the one-line message for a client whose request needs the row.
    ///
    /// It leaves out the advice about the server's configuration, which is for the operator and is
    /// in the log.
    pub(crate) fn for_client(&self) -> String {
        let text = self.to_string();
        let what = text.lines().next().unwrap_or_default();
        format!("{what}; let the client register its key again, or ask the server's operator")
    }
}

impl AtRestCipher {
    /// Creates a cipher that seals with `algorithm` and opens rows of either algorithm.
    pub fn new(key: AtRestKey, algorithm: Algorithm) -> Self {
        Self { key, algorithm }
    }

    /// Returns the key.
    pub(crate) fn key(&self) -> &AtRestKey {
        &self.key
    }

    /// Seals the bytes of a bare public key or a signed key, for the row of `client_id`.
    ///
    /// # Errors
    ///
    /// [`Error::Random`] if the operating system provides no random bytes; [`Error::TooLong`].
    pub fn seal(&self, kind: RowKind, client_id: &str, key: &[u8]) -> Result<SealedRow, Error> {
        let mut nonce = [0; NONCE_BYTES];
        SysRng.try_fill_bytes(&mut nonce).map_err(Error::Random)?;
        let aad = associated_data(kind, self.algorithm, client_id);
        let payload = Payload {
            msg: key,
            aad: &aad,
        };
        let sealed = match self.algorithm {
            Algorithm::Aes256Gcm => {
                Aes256Gcm::new(self.key.bytes().into()).encrypt(&nonce.into(), payload)
            }
            Algorithm::ChaCha20Poly1305 => {
                ChaCha20Poly1305::new(self.key.bytes().into()).encrypt(&nonce.into(), payload)
            }
        };
        let too_long = || Error::TooLong {
            client_id: client_id.to_owned(),
        };
        let sealed = sealed.map_err(|_| too_long())?;
        let (ciphertext, tag) = sealed
            .split_last_chunk::<TAG_BYTES>()
            .ok_or_else(too_long)?;
        Ok(SealedRow {
            algorithm: Some(self.algorithm.name().to_owned()),
            ciphertext: BASE64_STANDARD.encode(ciphertext),
            nonce: BASE64_STANDARD.encode(nonce),
            tag: BASE64_STANDARD.encode(tag),
        })
    }

    /// Opens the row of `client_id`, sealed with either algorithm.
    ///
    /// # Errors
    ///
    /// [`Error`] if the row was sealed under another key, for another client, as another kind of
    /// row, by an unknown algorithm or by an older server, or is damaged.
    pub fn open(&self, kind: RowKind, client_id: &str, row: &SealedRow) -> Result<Vec<u8>, Error> {
        let older_form = || Error::OlderForm {
            client_id: client_id.to_owned(),
        };
        let algorithm = algorithm(client_id, row)?.ok_or_else(older_form)?;
        let aad = associated_data(kind, algorithm, client_id);
        let opened = self.decrypt(algorithm, client_id, row, &aad);
        // Only to report the cause: the result is not returned.
        if matches!(opened, Err(Error::Refused { .. }))
            && self.open_older(kind, client_id, row).is_ok()
        {
            return Err(older_form());
        }
        opened
    }

    /// Opens a row of an older server, which is not bound to its kind, or not even to its client.
    ///
    /// It is for adopting an older database only: anyone who can write to the database can assign
    /// such rows to other clients.
    ///
    /// # Errors
    ///
    /// As for [`AtRestCipher::open`].
    pub fn open_older(
        &self,
        kind: RowKind,
        client_id: &str,
        row: &SealedRow,
    ) -> Result<Vec<u8>, Error> {
        let refused = || Error::Refused {
            client_id: client_id.to_owned(),
        };
        match algorithm(client_id, row)? {
            Some(algorithm) => {
                let aad = [
                    OLDER_DOMAIN,
                    algorithm.name().as_bytes(),
                    b"\0",
                    client_id.as_bytes(),
                ]
                .concat();
                let opened = self.decrypt(algorithm, client_id, row, &aad)?;
                // Only its contents reveal the kind of the row: a signed key is text, and longer.
                let is_bare = opened.len() == KEY_BYTES;
                if is_bare == (kind == RowKind::PublicKey) {
                    Ok(opened)
                } else {
                    Err(refused())
                }
            }
            // The oldest servers had no signed keys.
            None if kind == RowKind::SignedKey => Err(refused()),
            None => {
                let opened = self.decrypt(Algorithm::Aes256Gcm, client_id, row, b"")?;
                oldest_key(opened).ok_or_else(refused)
            }
        }
    }

    fn decrypt(
        &self,
        algorithm: Algorithm,
        client_id: &str,
        row: &SealedRow,
        aad: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let damaged = |column| Error::Damaged {
            client_id: client_id.to_owned(),
            column,
        };
        let decode = |text: &str, column| {
            BASE64_STANDARD
                .decode(text.trim())
                .map_err(|_| damaged(column))
        };
        let nonce: [u8; NONCE_BYTES] = decode(&row.nonce, "nonce")?
            .try_into()
            .map_err(|_| damaged("nonce"))?;
        let tag: [u8; TAG_BYTES] = decode(&row.tag, "tag")?
            .try_into()
            .map_err(|_| damaged("tag"))?;
        let mut sealed = decode(&row.ciphertext, "public_key_ciphertext")?;
        sealed.extend_from_slice(&tag);
        let payload = Payload { msg: &sealed, aad };
        let opened = match algorithm {
            Algorithm::Aes256Gcm => {
                Aes256Gcm::new(self.key.bytes().into()).decrypt(&nonce.into(), payload)
            }
            Algorithm::ChaCha20Poly1305 => {
                ChaCha20Poly1305::new(self.key.bytes().into()).decrypt(&nonce.into(), payload)
            }
        };
        opened.map_err(|_| Error::Refused {
            client_id: client_id.to_owned(),
        })
    }
}

/// Returns the algorithm that a row names; `None` if it names none, like the oldest rows.
fn algorithm(client_id: &str, row: &SealedRow) -> Result<Option<Algorithm>, Error> {
    let Some(name) = row.algorithm.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let known = Algorithm::from_name(name).ok_or_else(|| Error::UnknownAlgorithm {
        client_id: client_id.to_owned(),
        algorithm: name.to_owned(),
    });
    known.map(Some)
}

/// Returns the associated data of a row. Neither the kind nor the algorithm contains a zero byte,
/// so the encoding is unambiguous.
fn associated_data(kind: RowKind, algorithm: Algorithm, client_id: &str) -> Vec<u8> {
    [
        DOMAIN,
        kind_name(kind).as_bytes(),
        b"\0",
        algorithm.name().as_bytes(),
        b"\0",
        client_id.as_bytes(),
    ]
    .concat()
}

/// Decodes the plaintext of one of the oldest rows to a raw key: some older servers sealed the 32
/// bytes, some the base64 text that clients send.
fn oldest_key(bytes: Vec<u8>) -> Option<Vec<u8>> {
    if bytes.len() == KEY_BYTES {
        return Some(bytes);
    }
    let text = Zeroizing::new(String::from_utf8(bytes).ok()?);
    BASE64_STANDARD
        .decode(text.trim())
        .ok()
        .filter(|key| key.len() == KEY_BYTES)
}

#[cfg(test)]
mod tests;
