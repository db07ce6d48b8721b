//! X25519 keys (RFC 7748), 32 bytes each.

use std::fmt;

use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::{KeyError, KeyId, decode_key};
use crate::encoding::encode;
use crate::identity::fingerprint;
use crate::random::{self, RandomError};

/// The length of a private or public key, in bytes.
pub const KEY_BYTES: usize = 32;

/// A receiver's X25519 private key, which is wiped on drop and omitted by `Debug`.
#[derive(Clone)]
pub struct PrivateKey {
    secret: StaticSecret,
    public: PublicKey,
}

impl PrivateKey {
    /// Generates a new key.
    ///
    /// # Errors
    ///
    /// [`RandomError`] if the operating system has no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        random::fill(&mut *bytes)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// Creates a key from any 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let secret = StaticSecret::from(*bytes);
        let public = PublicKey(*x25519_dalek::PublicKey::from(&secret).as_bytes());
        Self { secret, public }
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

    /// Encodes the private key as base64, for its file.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(encode(self.as_bytes()))
    }

    /// Returns the public key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        self.secret.as_bytes()
    }

    /// Computes the shared secret with `public`; `None` if it is the same for every private key
    /// (RFC 7748, section 6.1).
    pub(crate) fn diffie_hellman(
        &self,
        public: &[u8; KEY_BYTES],
    ) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
        let shared = self
            .secret
            .diffie_hellman(&x25519_dalek::PublicKey::from(*public));
        shared
            .was_contributory()
            .then(|| Zeroizing::new(shared.to_bytes()))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("key_id", &self.public.key_id())
            .finish_non_exhaustive()
    }
}

/// A receiver's X25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// Creates a key from 32 bytes, without checks.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Parses base64 of 32 bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if it is something else, or a point of small order (RFC 7748, section 7), such
    /// as 32 zero bytes: the shared secret with such a point is the same for everybody.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = decode_key(text)?;
        // Private keys are multiples of the cofactor, so any of them reveals a point of small
        // order.
        let any = StaticSecret::from([1; KEY_BYTES]);
        let shared = any.diffie_hellman(&x25519_dalek::PublicKey::from(bytes));
        if shared.was_contributory() {
            Ok(Self(bytes))
        } else {
            Err(KeyError::Invalid)
        }
    }

    /// Encodes the key as base64, for registration with the server.
    #[must_use]
    pub fn to_base64(&self) -> String {
        encode(&self.0)
    }

    /// Returns the key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Returns SHA-256 of the key in lower-case hexadecimal, for people to compare.
    ///
    /// It begins with the key id.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.0).to_string()
    }

    /// Returns the key's id.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        KeyId::of(&self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_base64())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keyring;
    use crate::vector_tests::hex;

    /// RFC 7748, section 6.1.
    #[test]
    fn key_agreement_matches_rfc_7748() {
        let key = |text| PrivateKey::from_bytes(&hex(text).try_into().unwrap());
        let alice = key("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let alice_public = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        assert_eq!(alice.public_key().as_bytes()[..], alice_public);
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(
            alice.diffie_hellman(bob.public_key().as_bytes()).unwrap()[..],
            shared
        );
        assert_eq!(
            bob.diffie_hellman(alice.public_key().as_bytes()).unwrap()[..],
            shared
        );
        assert_eq!(alice.diffie_hellman(&[0; 32]), None);
    }

    #[test]
    fn debug_omits_the_private_key() {
        let key = PrivateKey::generate().unwrap();
        let printed = format!("{key:?} {:?}", Keyring::new(key.clone()));
        assert!(printed.contains(&key.public_key().key_id().to_string()));
        for secret in [
            key.to_base64().to_string(),
            hex::encode(key.as_bytes()),
            format!("{:?}", key.as_bytes()),
        ] {
            assert!(!printed.contains(&secret), "{printed}");
        }
    }

    /// All points of small order, in all their spellings of 255 bits (<https://cr.yp.to/ecdh.html>,
    /// "validation").
    #[test]
    fn points_of_small_order_are_refused() {
        let points = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        for point in points {
            let mut bytes: [u8; 32] = hex(point).try_into().unwrap();
            for top_bit in [0, 0x80] {
                bytes[31] |= top_bit;
                let read = PublicKey::from_base64(&encode(&bytes));
                assert_eq!(read, Err(KeyError::Invalid), "{point}");
            }
        }
        let base = format!("09{}", "0".repeat(62));
        assert!(PublicKey::from_base64(&encode(&hex(&base))).is_ok());
    }

    #[test]
    fn other_base64_is_refused() {
        let length = |actual| KeyError::Length {
            expected: KEY_BYTES,
            actual,
        };
        let key = PrivateKey::generate().unwrap();
        let read = PrivateKey::from_base64(&key.to_base64()).unwrap();
        assert_eq!(read.public_key(), key.public_key());
        assert_eq!(
            PublicKey::from_base64(&key.public_key().to_base64()),
            Ok(*key.public_key())
        );
        let zeros = encode(&[0; KEY_BYTES]);
        assert_eq!(
            PrivateKey::from_base64(&zeros).err(),
            Some(KeyError::Invalid)
        );
        assert_eq!(PublicKey::from_base64(&encode(&[0; 31])), Err(length(31)));
        assert_eq!(PublicKey::from_base64(&encode(&[0; 33])), Err(length(33)));
        assert_eq!(PublicKey::from_base64(""), Err(length(0)));
        assert_eq!(
            PublicKey::from_base64("no base64!"),
            Err(KeyError::NotBase64)
        );
    }
}
