//! Public keys of any kind, for which sessions are sealed.

use super::{KeyError, KeyId, PublicKey, XWingPublicKey};
use crate::suite::Suite;

/// A receiver's public key, whose kind determines the suite.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecipientKey {
    /// A key for `X25519-AES256GCM`.
    X25519(PublicKey),
    /// A key for `XWING-AES256GCM`.
    XWing(XWingPublicKey),
}

impl RecipientKey {
    /// Parses base64 of a key for this suite.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if it is something else.
    pub fn from_suite_and_base64(suite: Suite, text: &str) -> Result<Self, KeyError> {
        match suite {
            Suite::X25519Aes256Gcm => PublicKey::from_base64(text).map(Self::X25519),
            Suite::XWingAes256Gcm => XWingPublicKey::from_base64(text).map(Self::XWing),
        }
    }

    /// Returns the suite that seals for this key.
    #[must_use]
    pub fn suite(&self) -> Suite {
        match self {
            Self::X25519(_) => Suite::X25519Aes256Gcm,
            Self::XWing(_) => Suite::XWingAes256Gcm,
        }
    }

    /// Returns the key's id.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        match self {
            Self::X25519(key) => key.key_id(),
            Self::XWing(key) => key.key_id(),
        }
    }

    /// Returns the key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::X25519(key) => key.as_bytes(),
            Self::XWing(key) => key.as_bytes(),
        }
    }

    /// Encodes the key as base64.
    #[must_use]
    pub fn to_base64(&self) -> String {
        match self {
            Self::X25519(key) => key.to_base64(),
            Self::XWing(key) => key.to_base64(),
        }
    }
}

impl From<PublicKey> for RecipientKey {
    fn from(key: PublicKey) -> Self {
        Self::X25519(key)
    }
}

impl From<XWingPublicKey> for RecipientKey {
    fn from(key: XWingPublicKey) -> Self {
        Self::XWing(key)
    }
}
