//! Ids of keys.

use std::fmt;
use std::str::FromStr;

use ciphermq_protocol::certificate::parse_hex;
use sha2::{Digest as _, Sha256};

const KEY_ID_BYTES: usize = 8;

/// The id of a public key: the first 8 bytes of its SHA-256, in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; KEY_ID_BYTES]);

/// An error about a text that is not a key id.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key id has 16 lower-case hexadecimal digits")]
pub struct KeyIdError;

ciphermq_protocol::debug_as_report!(KeyIdError);

impl KeyId {
    pub(crate) fn of(public_key: &[u8]) -> Self {
        let hash: [u8; 32] = Sha256::digest(public_key).into();
        let mut id = [0; KEY_ID_BYTES];
        for (id, hash) in id.iter_mut().zip(hash) {
            *id = hash;
        }
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Parses exactly the form that `Display` writes.
impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        parse_hex(text).map(Self).ok_or(KeyIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_key_ids_are_parsed() {
        // SHA-256 of 32 zero bytes begins 66687aadf862bd77.
        let id = KeyId::of(&[0; 32]);
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
}
