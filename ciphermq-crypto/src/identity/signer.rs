//! A client's own certificate chain and private key.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use ciphermq_certificates::ClientIdFrom;
use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Authority, Certificate, CertificateError, Fingerprint, SignatureAlgorithm};

/// A client's certificate chain and private key, which sign its keys and sessions.
///
/// The cryptographic library wipes the private key on drop; `Debug` omits it.
pub struct Identity {
    certificate: Certificate,
    chain: Vec<CertificateDer<'static>>,
    client_id_from: ClientIdFrom,
    key: Key,
}

enum Key {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// The reason why a chain and a private key are not an identity.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The certificate is unusable.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The private key cannot be parsed, or is of another kind than the certificate's.
    #[error("the private key cannot be read, or is not of the certificate's kind")]
    Key,
    /// The private key is not the certificate's.
    #[error("certificate and private key do not belong together")]
    Mismatch,
    /// Others cannot get the certificate: the server has refused it.
    #[error("the server has refused the signing certificate: {0}")]
    NotRegistered(String),
    /// Signing failed for lack of randomness.
    #[error(transparent)]
    Sign(#[from] SignError),
}

ciphermq_protocol::debug_as_report!(IdentityError);

impl IdentityError {
    /// Returns what the client can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Certificate(error) => error.advice(),
            Self::Key | Self::Mismatch => {
                "Name the certificate and the private key that were made together."
            }
            Self::NotRegistered(_) => {
                "Name a signing certificate that is valid, of the same client and of an authority that \
                 the server trusts, or none. If it is one, update the server."
            }
            Self::Sign(_) => "The operating system gives no random bytes: see to that first.",
        }
    }
}

/// The message of a test signature, which is never sent.
///
/// Like all signed messages, it begins with a domain separator.
const PROBE: &[u8] = b"CipherMQ probe 1";

/// An error about a failed signature, for lack of randomness.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no signature could be made")]
pub struct SignError;

ciphermq_protocol::debug_as_report!(SignError);

impl Identity {
    /// Creates an identity from a chain, the client's own certificate first, and a private key.
    ///
    /// The key is PKCS#8 (RFC 5958), or SEC 1 (RFC 5915) for elliptic curves. The chain is not
    /// verified: see [`Identity::verify`]. The Common Name names the client.
    ///
    /// # Errors
    ///
    /// [`IdentityError`].
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, IdentityError> {
        Self::named_by(ClientIdFrom::default(), chain, key)
    }

    /// Creates an identity as [`Identity::new`] does, named by other fields of the certificate.
    ///
    /// # Errors
    ///
    /// [`IdentityError`].
    pub fn named_by(
        client_id_from: ClientIdFrom,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, IdentityError> {
        let own = chain.first().ok_or(CertificateError::Missing)?;
        let certificate = Certificate::read(own, client_id_from)?;
        let key = key.secret_der();
        let key = match certificate.algorithm() {
            SignatureAlgorithm::Es256 => Key::Ecdsa(ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, key)?),
            SignatureAlgorithm::Es384 => Key::Ecdsa(ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, key)?),
            SignatureAlgorithm::EdDsa => Key::Ed25519(
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).map_err(|_| IdentityError::Key)?,
            ),
        };
        let public_key = match &key {
            Key::Ecdsa(key) => key.public_key().as_ref(),
            Key::Ed25519(key) => key.public_key().as_ref(),
        };
        if public_key != certificate.public_key() {
            return Err(IdentityError::Mismatch);
        }
        Ok(Self {
            certificate,
            chain,
            client_id_from,
            key,
        })
    }

    /// Verifies that others who trust `authority` accept signatures of this client at the time
    /// `at`.
    ///
    /// It verifies the own chain and a test signature as they do.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]: the reason why others refuse them.
    pub fn verify(&self, authority: &Authority, at: Timestamp) -> Result<(), IdentityError> {
        let certificate = authority.verify(&self.chain, at)?;
        let signature = self.sign(PROBE)?;
        if certificate.has_signed(PROBE, &signature) {
            Ok(())
        } else {
            Err(IdentityError::Mismatch)
        }
    }

    /// Returns the client's id.
    #[must_use]
    pub fn client_id(&self) -> &ClientId {
        self.certificate.client_id()
    }

    /// Returns the certificate's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }

    /// Returns the signature algorithm.
    #[must_use]
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.certificate.algorithm()
    }

    /// Returns the last second of its certificate's validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.certificate.not_after()
    }

    /// Returns the chain, the client's own certificate first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Returns the first certificate of a chain if it is for this private key, whatever its issuer
    /// and dates.
    pub(crate) fn own_certificate(&self, chain: &[CertificateDer<'_>]) -> Option<Certificate> {
        let certificate = Certificate::read(chain.first()?, self.client_id_from).ok()?;
        (certificate.public_key() == self.certificate.public_key()).then_some(certificate)
    }

    /// Signs a message, which must begin with a domain separator.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        match &self.key {
            Key::Ecdsa(key) => {
                let signature = key
                    .sign(&SystemRandom::new(), message)
                    .map_err(|_| SignError)?;
                Ok(signature.as_ref().to_vec())
            }
            Key::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }
}

fn ecdsa(
    algorithm: &'static aws_lc_rs::signature::EcdsaSigningAlgorithm,
    key: &[u8],
) -> Result<EcdsaKeyPair, IdentityError> {
    EcdsaKeyPair::from_private_key_der(algorithm, key).map_err(|_| IdentityError::Key)
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("client_id", self.client_id())
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{Ca, CertificateSpec};

    #[test]
    fn every_kind_of_key_signs_and_verifies() {
        let ca = Ca::new("ca");
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for (kind, name, bytes) in [
            (&rcgen::PKCS_ECDSA_P384_SHA384, "ES384", 96),
            (&rcgen::PKCS_ECDSA_P256_SHA256, "ES256", 64),
            (&rcgen::PKCS_ED25519, "EdDSA", 64),
        ] {
            let spec = CertificateSpec {
                key: kind,
                ..CertificateSpec::default()
            };
            let identity = ca.issue_as("sender_1", &spec).identity();
            let certificate = ca.authority().verify(identity.chain(), now).unwrap();
            assert_eq!(identity.algorithm().as_str(), name);
            let signature = identity.sign(b"message").unwrap();
            assert_eq!(signature.len(), bytes);
            assert!(certificate.has_signed(b"message", &signature));
            assert!(!certificate.has_signed(b"massage", &signature));
            for byte in 0..bytes {
                let mut flipped = signature.clone();
                flipped[byte] ^= 1;
                assert!(
                    !certificate.has_signed(b"message", &flipped),
                    "{name} {byte}"
                );
            }
            for length in 0..bytes {
                assert!(!certificate.has_signed(b"message", &signature[..length]));
            }
        }
    }

    #[test]
    fn another_clients_key_is_refused() {
        let ca = Ca::new("ca");
        let [one, other] = ["a", "a"].map(|name| ca.issue(name));
        let made = Identity::new(one.chain.clone(), &other.private_key());
        assert_eq!(made.map(|_| ()), Err(IdentityError::Mismatch));
        let spec = CertificateSpec {
            key: &rcgen::PKCS_ED25519,
            ..CertificateSpec::default()
        };
        let made = Identity::new(one.chain, &ca.issue_as("a", &spec).private_key());
        assert_eq!(made.map(|_| ()), Err(IdentityError::Key));
    }

    #[test]
    fn an_identity_is_verified_with_its_authority_and_dates() {
        let ca = Ca::new("ca");
        let now: Timestamp = "2027-01-15T08:00:00Z".parse().unwrap();
        let second = now.as_second();
        let spec = CertificateSpec {
            valid: Some((second, second + 60)),
            ..CertificateSpec::default()
        };
        let identity = ca.issue_as("a", &spec).identity();
        let verify = |authority: &Authority, second| {
            identity.verify(authority, Timestamp::from_second(second).unwrap())
        };
        assert_eq!(verify(&ca.authority(), second), Ok(()));
        assert_eq!(verify(&ca.authority(), second + 60), Ok(()));
        for (second, is_early) in [(second - 1, true), (second + 61, false)] {
            match verify(&ca.authority(), second) {
                Err(IdentityError::Certificate(CertificateError::NotYetValid(_))) => {
                    assert!(is_early);
                }
                Err(IdentityError::Certificate(CertificateError::Expired(_))) => assert!(!is_early),
                other => panic!("{other:?}"),
            }
        }
        let other = Ca::new("ca").authority();
        assert!(matches!(
            verify(&other, second),
            Err(IdentityError::Certificate(CertificateError::NotTrusted(_)))
        ));
    }

    #[test]
    fn debug_omits_the_private_key() {
        let issued = Ca::new("ca").issue("sender_1");
        let printed = format!("{:?}", issued.identity());
        assert!(
            printed.contains("sender_1") && printed.ends_with(".. }"),
            "{printed}"
        );
    }
}
