//! Verified certificates, and fingerprints.

use std::fmt;
use std::str::FromStr;

use ciphermq_certificates::{Flaw, Validity};
use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{CertificateError, SignatureAlgorithm};

/// The fingerprint of a certificate: SHA-256 of its DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// An error about a text that is not a fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 lower-case hexadecimal digits")]
pub struct FingerprintError;

ciphermq_protocol::debug_as_report!(FingerprintError);

impl Fingerprint {
    /// Returns the fingerprint of a certificate's DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Parses exactly the form that `Display` writes.
impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let mut bytes = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return Err(FingerprintError);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(bytes))
    }
}

fn digit(digit: u8) -> Result<u8, FingerprintError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(FingerprintError),
    }
}

/// A client's certificate that an [`Authority`](super::Authority) has verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    client_id: ClientId,
    fingerprint: Fingerprint,
    algorithm: SignatureAlgorithm,
    public_key: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Certificate {
    /// Parses a certificate without verifying its issuer.
    pub(super) fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let unreadable = |error: &dyn fmt::Display| {
            CertificateError::Unreadable(Flaw::Unreadable(error.to_string()))
        };
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
        if !rest.is_empty() {
            return Err(unreadable(&"something follows it"));
        }
        let usage = certificate
            .key_usage()
            .map_err(|error| unreadable(&error))?;
        if usage.is_some_and(|usage| !usage.value.digital_signature()) {
            return Err(CertificateError::Usage);
        }
        let client_id =
            ciphermq_certificates::client_id(&certificate).map_err(CertificateError::Name)?;
        let validity = Validity::of(&certificate);
        let key = certificate.public_key();
        Ok(Self {
            client_id,
            fingerprint: Fingerprint::of(der),
            algorithm: SignatureAlgorithm::of_key(key).ok_or(CertificateError::KeyKind)?,
            public_key: key.subject_public_key.data.to_vec(),
            not_before: validity.not_before,
            not_after: validity.not_after,
        })
    }

    /// Returns the client that it names: its one Common Name.
    #[must_use]
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Returns its fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns the algorithm of its key.
    #[must_use]
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// Returns the first second of its validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Returns the last second of its validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Returns whether it is valid at a time.
    #[must_use]
    pub fn is_valid_at(&self, at: Timestamp) -> bool {
        self.not_before <= at && at <= self.not_after
    }

    /// Returns whether its owner has signed `message`, which must begin with a domain separator.
    #[must_use]
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.algorithm
            .verifies(&self.public_key, message, signature)
    }

    pub(super) fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}

/// Returns the client that a certificate names, without verifying its issuer or the kind of its
/// key.
///
/// # Errors
///
/// [`CertificateError::Unreadable`], [`CertificateError::Name`].
pub fn client_id(der: &[u8]) -> Result<ClientId, CertificateError> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| CertificateError::Unreadable(Flaw::Unreadable(error.to_string())))?;
    ciphermq_certificates::client_id(&certificate).map_err(CertificateError::Name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_fingerprints_are_parsed() {
        // SHA-256 of the empty input.
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Fingerprint::of(b"").to_string(), text);
        assert_eq!(text.parse(), Ok(Fingerprint::of(b"")));
        for other in [
            &text[1..],
            &format!("{text}0"),
            &format!("{text}00"),
            &text.to_uppercase(),
            &text.replace('e', "g"),
            "",
            &format!("+{}", &text[1..]),
        ] {
            assert_eq!(
                other.parse::<Fingerprint>(),
                Err(FingerprintError),
                "{other}"
            );
        }
    }
}
