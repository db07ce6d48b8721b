//! X-Wing keys (draft-connolly-cfrg-xwing-kem): a hybrid of X25519 and ML-KEM-768.
//!
//! A private key is a seed of 32 bytes, a public key has 1,216 bytes.

use std::fmt;
use std::sync::Arc;

use hpke::kem::XWing;
use hpke::{Deserializable as _, Kem, Serializable as _};
use zeroize::Zeroizing;

use super::{KeyError, KeyId, decode_key};
use crate::encoding::encode;
use crate::random::{self, RandomError};

/// The length of a seed, in bytes.
const SEED_BYTES: usize = 32;
/// The length of a public key, in bytes.
pub const X_WING_PUBLIC_KEY_BYTES: usize = 1216;

/// A receiver's X-Wing private key, which is wiped on drop and omitted by `Debug`.
#[derive(Clone)]
pub struct XWingPrivateKey {
    seed: Zeroizing<[u8; SEED_BYTES]>,
    public: XWingPublicKey,
}

impl XWingPrivateKey {
    /// Generates a new key.
    ///
    /// # Errors
    ///
    /// [`RandomError`] if the operating system has no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        random::fill(&mut *seed)?;
        Ok(Self::from_bytes(&seed))
    }

    /// Creates a key from a seed of any 32 bytes.
    #[must_use]
    pub fn from_bytes(seed: &[u8; SEED_BYTES]) -> Self {
        let public =
            expand(seed).map_or_else(Vec::new, |key| XWing::sk_to_pk(&key).to_bytes().to_vec());
        Self {
            seed: Zeroizing::new(*seed),
            public: XWingPublicKey(public.into()),
        }
    }

    /// Parses base64 of 32 bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if it is something else, or all bytes are zero, as in a file that was wiped:
    /// anybody can guess that key.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(decode_key(text)?);
        if bytes.iter().all(|&byte| byte == 0) {
            return Err(KeyError::Invalid);
        }
        Ok(Self::from_bytes(&bytes))
    }

    /// Encodes the seed as base64, for its file.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(encode(&*self.seed))
    }

    /// Returns the public key.
    #[must_use]
    pub fn public_key(&self) -> &XWingPublicKey {
        &self.public
    }

    /// Expands the seed into the private key of the KEM.
    pub(crate) fn expand(&self) -> Option<<XWing as Kem>::PrivateKey> {
        expand(&self.seed)
    }
}

/// Expands a seed.
///
/// It does not fail for 32 bytes, although hpke returns a `Result`.
fn expand(seed: &[u8; SEED_BYTES]) -> Option<<XWing as Kem>::PrivateKey> {
    <XWing as Kem>::PrivateKey::from_bytes(seed).ok()
}

impl fmt::Debug for XWingPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XWingPrivateKey")
            .field("key_id", &self.public.key_id())
            .finish_non_exhaustive()
    }
}

/// A receiver's X-Wing public key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct XWingPublicKey(Arc<[u8]>);

impl XWingPublicKey {
    /// Creates a key from 1,216 bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if the length differs, or the bytes do not encode a key (FIPS 203, section
    /// 7.2).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() != X_WING_PUBLIC_KEY_BYTES {
            return Err(KeyError::Length {
                expected: X_WING_PUBLIC_KEY_BYTES,
                actual: bytes.len(),
            });
        }
        <XWing as Kem>::PublicKey::from_bytes(bytes).map_err(|_| KeyError::Invalid)?;
        Ok(Self(bytes.into()))
    }

    /// Parses base64 of 1,216 bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if it is something else.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&decode_key::<X_WING_PUBLIC_KEY_BYTES>(text)?)
    }

    /// Encodes the key as base64.
    #[must_use]
    pub fn to_base64(&self) -> String {
        encode(&self.0)
    }

    /// Returns the key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the key's id.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        KeyId::of(&self.0)
    }
}

impl fmt::Debug for XWingPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XWingPublicKey({})", self.key_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        let key = XWingPrivateKey::generate().unwrap();
        assert_eq!(key.public_key().as_bytes().len(), X_WING_PUBLIC_KEY_BYTES);
        let read = XWingPrivateKey::from_base64(&key.to_base64()).unwrap();
        assert_eq!(read.public_key(), key.public_key());
        let public = XWingPublicKey::from_base64(&key.public_key().to_base64()).unwrap();
        assert_eq!(&public, key.public_key());
    }

    #[test]
    fn invalid_public_keys_are_refused() {
        let length = |actual| KeyError::Length {
            expected: X_WING_PUBLIC_KEY_BYTES,
            actual,
        };
        assert_eq!(XWingPublicKey::from_bytes(&[0; 32]), Err(length(32)));
        assert_eq!(XWingPublicKey::from_base64(""), Err(length(0)));
        assert_eq!(XWingPublicKey::from_base64("!"), Err(KeyError::NotBase64));
        // The 12-bit coefficients of ML-KEM's keys are below 3329.
        assert_eq!(
            XWingPublicKey::from_bytes(&[0xff; X_WING_PUBLIC_KEY_BYTES]),
            Err(KeyError::Invalid)
        );
    }

    #[test]
    fn debug_omits_the_private_key() {
        let key = XWingPrivateKey::generate().unwrap();
        let printed = format!("{key:?}");
        assert!(printed.contains(&key.public_key().key_id().to_string()));
        assert!(!printed.contains(&*key.to_base64()), "{printed}");
    }
}
