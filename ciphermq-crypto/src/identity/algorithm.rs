//! Signature algorithms.
//!
//! The certificate's key determines the algorithm, so there is no downgrade.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, UnparsedPublicKey,
    VerificationAlgorithm,
};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ED25519,
};
use x509_parser::x509::SubjectPublicKeyInfo;

/// A signature algorithm of JOSE.
///
/// Signatures have a fixed length: `r ‖ s` for ECDSA (RFC 7518, section 3.4), the plain signature
/// for Ed25519 (RFC 8037, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// `ES256`: ECDSA with P-256 and SHA-256, 64 bytes.
    Es256,
    /// `ES384`: ECDSA with P-384 and SHA-384, 96 bytes.
    Es384,
    /// `EdDSA`: Ed25519, 64 bytes.
    EdDsa,
}

impl SignatureAlgorithm {
    /// Returns the name in JOSE (RFC 7518, section 3.1; RFC 8037, section 3.1).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Returns the algorithm of a key; `None` for kinds of keys that are not supported.
    #[must_use]
    pub fn of_key(key: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let kind = &key.algorithm.algorithm;
        if *kind == OID_SIG_ED25519 {
            return Some(Self::EdDsa);
        }
        if *kind != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return None;
        }
        let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
        if curve == OID_NIST_EC_P384 {
            Some(Self::Es384)
        } else if curve == OID_EC_P256 {
            Some(Self::Es256)
        } else {
            None
        }
    }

    /// Returns whether `signature` of `message` was made with the private key of `public_key`.
    pub(super) fn verifies(self, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self {
            Self::Es256 => &ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &ECDSA_P384_SHA384_FIXED,
            Self::EdDsa => &ED25519,
        };
        UnparsedPublicKey::new(algorithm, public_key)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
