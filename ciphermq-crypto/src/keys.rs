//! Receivers' keys: X25519 (RFC 7748), 32 bytes each.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize as _, Zeroizing};

use crate::encoding::{decode_array, encode};
use crate::error::{KeyError, RandomError};
use crate::{encoding, random};

/// The length of a private or public key, in bytes.
pub const KEY_BYTES: usize = 32;

/// A receiver's private key. It is wiped from memory when it is dropped, and never printed.
#[derive(Clone)]
pub struct PrivateKey {
    secret: StaticSecret,
    public: PublicKey,
}

impl PrivateKey {
    /// Makes a new key.
    ///
    /// # Errors
    ///
    /// [`RandomError`] if the operating system has no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        random::fill(&mut *bytes)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// The key of 32 bytes, any bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let secret = StaticSecret::from(*bytes);
        let public = PublicKey(*x25519_dalek::PublicKey::from(&secret).as_bytes());
        Self { secret, public }
    }

    /// Reads base64 of 32 bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if it is something else.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Ok(Self::from_bytes(&Zeroizing::new(key_bytes(text)?)))
    }

    /// Base64 of the key, for its file.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(encode(self.as_bytes()))
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        self.secret.as_bytes()
    }

    /// The secret that is shared with the owner of `public`; `None` if it would be the same for every
    /// private key (RFC 7748, section 6.1).
    pub(crate) fn agree(&self, public: &[u8; KEY_BYTES]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
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

/// A receiver's public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// The key of 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads base64 of 32 bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if it is something else.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        key_bytes(text).map(Self)
    }

    /// Base64 of the key: what is registered with the server.
    #[must_use]
    pub fn to_base64(&self) -> String {
        encode(&self.0)
    }

    /// The key's 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// What the key is called in envelopes.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        let hash: [u8; 32] = Sha256::digest(self.0).into();
        let mut id = [0; KEY_ID_BYTES];
        for (id, hash) in id.iter_mut().zip(hash) {
            *id = hash;
        }
        KeyId(id)
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

fn key_bytes(text: &str) -> Result<[u8; KEY_BYTES], KeyError> {
    if let Some(bytes) = decode_array(text) {
        return Ok(bytes);
    }
    // It may be a private key: even one of the wrong length is not left in memory.
    let mut bytes = encoding::decode(text).ok_or(KeyError::NotBase64)?;
    let length = bytes.len();
    bytes.zeroize();
    Err(KeyError::Length(length))
}

const KEY_ID_BYTES: usize = 8;

/// What a public key is called: the first 8 bytes of its SHA-256, in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; KEY_ID_BYTES]);

/// A text that is no key id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key id has 16 lower-case hexadecimal digits")]
pub struct KeyIdError;

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Reads the one spelling that `Display` writes.
impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        let value = u64::from_str_radix(text, 16).map_err(|_| KeyIdError)?;
        let id = Self(value.to_be_bytes());
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(KeyIdError)
        }
    }
}

/// A receiver's private keys: the newest, which is registered, and older ones, which still open what was
/// sealed for them.
#[derive(Debug, Clone)]
pub struct Keyring {
    newest: PrivateKey,
    older: Vec<PrivateKey>,
}

impl Keyring {
    /// A keyring of one key.
    #[must_use]
    pub fn new(newest: PrivateKey) -> Self {
        Self {
            newest,
            older: Vec::new(),
        }
    }

    /// Adds a key that is no longer registered.
    #[must_use]
    pub fn with_older(mut self, key: PrivateKey) -> Self {
        self.older.push(key);
        self
    }

    /// The key to register.
    #[must_use]
    pub fn newest(&self) -> &PrivateKey {
        &self.newest
    }

    /// All keys, the newest first.
    pub fn keys(&self) -> impl Iterator<Item = &PrivateKey> {
        std::iter::once(&self.newest).chain(&self.older)
    }

    /// The key with this id.
    #[must_use]
    pub fn find(&self, id: KeyId) -> Option<&PrivateKey> {
        self.keys().find(|key| key.public.key_id() == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector_tests::hex;

    /// RFC 7748, section 6.1.
    #[test]
    fn agrees_as_rfc_7748_does() {
        let key = |text| PrivateKey::from_bytes(&hex(text).try_into().unwrap());
        let alice = key("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let alice_public = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        assert_eq!(alice.public_key().as_bytes()[..], alice_public);
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(alice.agree(bob.public_key().as_bytes()).unwrap()[..], shared);
        assert_eq!(bob.agree(alice.public_key().as_bytes()).unwrap()[..], shared);
        assert_eq!(alice.agree(&[0; 32]), None);
    }

    #[test]
    fn private_keys_are_not_printed() {
        let key = PrivateKey::generate().unwrap();
        let printed = format!("{key:?} {:?}", Keyring::new(key.clone()));
        assert!(printed.contains(&key.public_key().key_id().to_string()));
        let hexed: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        for secret in [
            key.to_base64().to_string(),
            hexed,
            format!("{:?}", key.as_bytes()),
        ] {
            assert!(!printed.contains(&secret), "{printed}");
        }
    }

    #[test]
    fn reads_base64_of_32_bytes_only() {
        let key = PrivateKey::generate().unwrap();
        let read = PrivateKey::from_base64(&key.to_base64()).unwrap();
        assert_eq!(read.public_key(), key.public_key());
        assert_eq!(
            PublicKey::from_base64(&key.public_key().to_base64()),
            Ok(*key.public_key())
        );
        assert_eq!(
            PublicKey::from_base64(&encode(&[0; 31])),
            Err(KeyError::Length(31))
        );
        assert_eq!(
            PublicKey::from_base64(&encode(&[0; 33])),
            Err(KeyError::Length(33))
        );
        assert_eq!(PublicKey::from_base64(""), Err(KeyError::Length(0)));
        assert_eq!(PublicKey::from_base64("no base64!"), Err(KeyError::NotBase64));
    }

    #[test]
    fn key_ids_have_one_spelling() {
        // SHA-256 of 32 zero bytes begins 66687aadf862bd77.
        let id = PublicKey::from_bytes([0; 32]).key_id();
        assert_eq!(id.to_string(), "66687aadf862bd77");
        assert_eq!("66687aadf862bd77".parse(), Ok(id));
        for text in [
            "66687AADF862BD77",
            "66687aadf862bd7",
            "066687aadf862bd77",
            "+6687aadf862bd77",
            "",
            "g6687aadf862bd77",
        ] {
            assert_eq!(text.parse::<KeyId>(), Err(KeyIdError), "{text}");
        }
    }

    #[test]
    fn a_keyring_finds_its_keys() {
        let [newest, older, other] = [(); 3].map(|()| PrivateKey::generate().unwrap());
        let keyring = Keyring::new(newest.clone()).with_older(older.clone());
        let find = |key: &PrivateKey| {
            keyring
                .find(key.public_key().key_id())
                .map(|key| *key.public_key())
        };
        assert_eq!(find(&newest), Some(*newest.public_key()));
        assert_eq!(find(&older), Some(*older.public_key()));
        assert_eq!(find(&other), None);
        assert_eq!(keyring.newest().public_key(), newest.public_key());
    }
}
