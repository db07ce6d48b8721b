//! The fingerprint of a certificate.

use ciphermq_protocol::Fingerprint;
use sha2::{Digest as _, Sha256};

/// Returns the fingerprint of a certificate's DER: its SHA-256.
#[must_use]
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    Fingerprint::from_bytes(Sha256::digest(der).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_sha_256() {
        assert_eq!(
            fingerprint(b"").to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
