//! Length and SHA-256 of a file's beginning, as a checkpoint pins them.
//!
//! Content that may have been sent under an id must not change, or the same id would stand for
//! another message. So before anything is sent the checkpoint has the length and the hash of the
//! file, as `<bytes> <64 hexadecimal digits>`, for as long as the stream lasts. Sending resumes
//! only if the file still begins with exactly these bytes.

use sha2::{Digest as _, Sha256};

/// Length and hash of a file's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileDigest {
    /// The length.
    pub(super) bytes: u64,
    /// The SHA-256, in hexadecimal.
    sha256: String,
}

impl FileDigest {
    /// Creates a digest of `bytes` bytes, all of which `hash` has been updated with.
    pub(super) fn new(bytes: u64, hash: Sha256) -> Self {
        let sha256 = hex::encode(hash.finalize());
        Self { bytes, sha256 }
    }

    /// Parses the text in a checkpoint.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (bytes, sha256) = text.split_once(' ')?;
        let is_hash = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then_some(Self {
            bytes: bytes.parse().ok()?,
            sha256: sha256.to_owned(),
        })
    }
}

/// Formats the text in a checkpoint.
impl std::fmt::Display for FileDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.bytes, self.sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_length_and_hash() {
        let pinned = FileDigest::new(3, Sha256::new_with_prefix(b"abc"));
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            pinned.to_string(),
            "3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(FileDigest::parse(&pinned.to_string()), Some(pinned));
        for text in [
            "",
            "3",
            "3 ba78",
            "x ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ] {
            assert_eq!(FileDigest::parse(text), None);
        }
    }
}
