//! How messages are sealed: the suites that this version writes and reads, and the older forms that it reads.
//!
//! A suite says how a session key is sealed for a receiver; the payload's cipher is the same for all suites,
//! see [`crate::payload`]. One file a suite, and they are told apart here and nowhere else.

mod older;
mod sealed_box;
mod x25519_aes256gcm;

use std::fmt;
use std::str::FromStr;

use rand::CryptoRng;
use zeroize::Zeroizing;

pub(crate) use older::open as open_older;

use crate::keys::{PrivateKey, PublicKey};

/// The length of a session key, in bytes.
pub(crate) const SESSION_KEY_BYTES: usize = 32;

/// The key of one session's payloads.
pub(crate) type SessionKey = Zeroizing<[u8; SESSION_KEY_BYTES]>;

/// How a session key is sealed, and which cipher seals payloads with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Suite {
    /// `X25519-AES256GCM`: HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and
    /// AES-256-GCM for the session key; AES-256-GCM for payloads.
    X25519Aes256Gcm,
}

/// A text that names no suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no suite of this name is known")]
pub struct SuiteError;

/// The receiver's public key is one with which no secret can be agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnusableKey;

impl Suite {
    /// The suite's name in envelopes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X25519Aes256Gcm => "X25519-AES256GCM",
        }
    }

    /// Seals a session key: the bytes of `enc_session_key`.
    pub(crate) fn seal_session_key(
        self,
        receiver: &PublicKey,
        info: &[u8],
        session_key: &SessionKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, UnusableKey> {
        match self {
            Self::X25519Aes256Gcm => x25519_aes256gcm::seal(receiver, info, session_key, rng),
        }
    }

    /// Opens the bytes of `enc_session_key`; `None` if they were not sealed for this key with this `info`.
    pub(crate) fn open_session_key(self, key: &PrivateKey, info: &[u8], sealed: &[u8]) -> Option<SessionKey> {
        match self {
            Self::X25519Aes256Gcm => x25519_aes256gcm::open(key, info, sealed),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Suite {
    type Err = SuiteError;

    fn from_str(text: &str) -> Result<Self, SuiteError> {
        [Self::X25519Aes256Gcm]
            .into_iter()
            .find(|suite| suite.as_str() == text)
            .ok_or(SuiteError)
    }
}

/// How older clients seal. Their envelopes name no suite, and authenticate nothing but the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OlderForm {
    /// A libsodium sealed box, the payload's tag in `tag`.
    A,
    /// A libsodium sealed box, the payload's tag at the end of `ciphertext`.
    B,
    /// A sealed box of its own kind, the payload's tag at the end of `ciphertext`.
    C,
}

/// How a message was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// With a suite.
    Suite(Suite),
    /// By an older client.
    Older(OlderForm),
}
