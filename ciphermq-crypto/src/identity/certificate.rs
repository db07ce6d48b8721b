//! Verified certificates.

use ciphermq_certificates::{ClientIdFrom, Flaw, Validity, fingerprint};
use ciphermq_protocol::{ClientId, Fingerprint};
use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::{CertificateError, Intermediate, SignatureAlgorithm, Usage};

/// A client's certificate that an [`Authority`](super::Authority) has verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    client_id: ClientId,
    fingerprint: Fingerprint,
    algorithm: SignatureAlgorithm,
    public_key: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
    issuers: Vec<Intermediate>,
}

/// Returns whether a certificate has an extended key usage without `clientAuth`.
pub(super) fn lacks_client_auth(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| {
        let usage = certificate.extended_key_usage().ok().flatten();
        usage.is_some_and(|usage| !usage.value.client_auth)
    })
}

impl Certificate {
    /// Parses a certificate without verifying its issuer.
    pub(super) fn read(der: &[u8], from: ClientIdFrom) -> Result<Self, CertificateError> {
        let unreadable =
            |what: &str| CertificateError::Unreadable(Flaw::Unreadable(what.to_owned()));
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| unreadable(Flaw::DAMAGED))?;
        if !rest.is_empty() {
            return Err(unreadable("something follows it"));
        }
        let usage = certificate
            .key_usage()
            .map_err(|_| unreadable("its key usage is damaged"))?;
        if usage.is_some_and(|usage| !usage.value.digital_signature()) {
            return Err(CertificateError::Usage(Usage::Signatures));
        }
        let client_id = from
            .client_id(&certificate)
            .map_err(CertificateError::Name)?;
        let validity = Validity::of(&certificate);
        let key = certificate.public_key();
        Ok(Self {
            client_id,
            fingerprint: fingerprint(der),
            algorithm: SignatureAlgorithm::of_key(key).ok_or(CertificateError::KeyKind)?,
            public_key: key.subject_public_key.data.to_vec(),
            not_before: validity.not_before,
            not_after: validity.not_after,
            issuers: Vec::new(),
        })
    }

    pub(super) fn issued_by(self, issuers: Vec<Intermediate>) -> Self {
        Self { issuers, ..self }
    }

    /// Returns the intermediate authorities on its path that are not the verifier's own.
    #[must_use]
    pub fn issuers(&self) -> &[Intermediate] {
        &self.issuers
    }

    /// Returns the client that it names.
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
pub fn client_id(der: &[u8], from: ClientIdFrom) -> Result<ClientId, CertificateError> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|_| CertificateError::Unreadable(Flaw::Unreadable(Flaw::DAMAGED.to_owned())))?;
    from.client_id(&certificate).map_err(CertificateError::Name)
}
