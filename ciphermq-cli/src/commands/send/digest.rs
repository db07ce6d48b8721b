//! A file as it was when sending it began: how long, and what stood in it.
//!
//! What may have been sent under an id must not change, or the same id would be another message. So
//! before anything is sent the checkpoint holds the length and the SHA-256 of the file, as
//! `<bytes> <64 hexadecimal>`, and it holds the same as long as the stream. When sending goes on,
//! the file must begin with just that.

use sha2::{Digest as _, Sha256};

/// A file's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pinned {
    /// How many bytes it has.
    pub(super) bytes: u64,
    /// SHA-256 of them, in hexadecimal.
    sha256: String,
}

impl Pinned {
    /// So many bytes that were hashed.
    pub(super) fn new(bytes: u64, hash: Sha256) -> Self {
        let hash = hash.finalize();
        let sha256 = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { bytes, sha256 }
    }

    /// Reads the text that the checkpoint holds.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (bytes, sha256) = text.split_once(' ')?;
        let is_hash = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then_some(Self {
            bytes: bytes.parse().ok()?,
            sha256: sha256.to_owned(),
        })
    }
}

/// The text that the checkpoint holds.
impl std::fmt::Display for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.bytes, self.sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_length_and_hash() {
        let pinned = Pinned::new(3, Sha256::new_with_prefix(b"abc"));
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            pinned.to_string(),
            "3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Pinned::read(&pinned.to_string()), Some(pinned));
        for text in [
            "",
            "3",
            "3 ba78",
            "x ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ] {
            assert_eq!(Pinned::read(text), None);
        }
    }
}
