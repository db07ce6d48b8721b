//! A client's own certificate chain, and the private key that signs for it.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Authority, Certificate, CertificateError, Fingerprint, SignatureAlgorithm};

/// A client's certificate chain with its private key: what it signs its keys and its sessions with.
///
/// The private key is wiped when it is dropped (by the cryptographic library), and never printed.
pub struct Identity {
    certificate: Certificate,
    chain: Vec<CertificateDer<'static>>,
    key: Key,
}

enum Key {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Why a chain and a private key are no identity.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The private key cannot be read.
    #[error("the private key cannot be read, or is not of the certificate's kind")]
    Key,
    /// Certificate and private key do not belong together.
    #[error("certificate and private key do not belong together")]
    Mismatch,
    /// There is no randomness to sign with.
    #[error(transparent)]
    Sign(#[from] SignError),
}

ciphermq_protocol::debug_as_report!(IdentityError);

impl IdentityError {
    /// What the client can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Certificate(error) => error.advice(),
            Self::Key | Self::Mismatch => {
                "Name the certificate and the private key that were made together."
            }
            Self::Sign(_) => "The operating system gives no random bytes: see to that first.",
        }
    }
}

/// What is signed to see whether signing works. It begins with what it is, as all that is signed,
/// and is sent nowhere.
const PROBE: &[u8] = b"CipherMQ probe 1";

/// The cryptographic library could not sign; it has no randomness.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no signature could be made")]
pub struct SignError;

ciphermq_protocol::debug_as_report!(SignError);

impl Identity {
    /// An identity of a chain, the client's own certificate first, and its private key: PKCS#8 (RFC
    /// 5958), or SEC 1 (RFC 5915) for elliptic curves. Whether others trust the chain is their
    /// decision.
    ///
    /// # Errors
    ///
    /// [`IdentityError`].
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, IdentityError> {
        let own = chain.first().ok_or(CertificateError::Missing)?;
        let certificate = Certificate::read(own)?;
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
            key,
        })
    }

    /// Whether others accept what this client signs at the time `at`, if they trust the same
    /// authority: what they will do is done here, with its own chain, and with a signature of its
    /// own.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]: why nobody would.
    pub fn verify(&self, authority: &Authority, at: Timestamp) -> Result<(), IdentityError> {
        let certificate = authority.verify(&self.chain, at)?;
        let signature = self.sign(PROBE)?;
        if certificate.has_signed(PROBE, &signature) {
            Ok(())
        } else {
            Err(IdentityError::Mismatch)
        }
    }

    /// Who this is.
    #[must_use]
    pub fn client_id(&self) -> &ClientId {
        self.certificate.client_id()
    }

    /// What the certificate is called.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.certificate.algorithm()
    }

    /// Until when its certificate is valid.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.certificate.not_after()
    }

    /// The chain, its own certificate first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The certificate that a chain begins with, if it is for this private key, whoever issued it
    /// and whenever.
    pub(crate) fn own_certificate(&self, chain: &[CertificateDer<'_>]) -> Option<Certificate> {
        let certificate = Certificate::read(chain.first()?).ok()?;
        (certificate.public_key() == self.certificate.public_key()).then_some(certificate)
    }

    /// Signs. The caller has separated domains: what is signed here begins with the text that says
    /// what it is.
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
    use crate::identity::testing::{Ca, Wish};

    #[test]
    fn every_kind_of_key_signs_and_is_verified() {
        let ca = Ca::new("ca");
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for (kind, name, bytes) in [
            (&rcgen::PKCS_ECDSA_P384_SHA384, "ES384", 96),
            (&rcgen::PKCS_ECDSA_P256_SHA256, "ES256", 64),
            (&rcgen::PKCS_ED25519, "EdDSA", 64),
        ] {
            let wish = Wish {
                key: kind,
                ..Wish::default()
            };
            let identity = ca.issue_as("sender_1", &wish).identity();
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
    fn another_clients_key_is_no_identity() {
        let ca = Ca::new("ca");
        let [one, other] = ["a", "a"].map(|name| ca.issue(name));
        let made = Identity::new(one.chain.clone(), &other.private_key());
        assert_eq!(made.map(|_| ()), Err(IdentityError::Mismatch));
        let wish = Wish {
            key: &rcgen::PKCS_ED25519,
            ..Wish::default()
        };
        let made = Identity::new(one.chain, &ca.issue_as("a", &wish).private_key());
        assert_eq!(made.map(|_| ()), Err(IdentityError::Key));
    }

    #[test]
    fn an_identity_is_verified_as_others_will() {
        let ca = Ca::new("ca");
        let now: Timestamp = "2027-01-15T08:00:00Z".parse().unwrap();
        let second = now.as_second();
        let wish = Wish {
            valid: Some((second, second + 60)),
            ..Wish::default()
        };
        let identity = ca.issue_as("a", &wish).identity();
        let verify = |authority: &Authority, second| {
            identity.verify(authority, Timestamp::from_second(second).unwrap())
        };
        assert_eq!(verify(&ca.authority(), second), Ok(()));
        assert_eq!(verify(&ca.authority(), second + 60), Ok(()));
        for (second, is_early) in [(second - 1, true), (second + 61, false)] {
            match verify(&ca.authority(), second) {
                Err(IdentityError::Certificate(CertificateError::NotYetValid(_))) => {
                    assert!(is_early)
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
    fn private_keys_are_not_printed() {
        let issued = Ca::new("ca").issue("sender_1");
        let printed = format!("{:?}", issued.identity());
        assert!(
            printed.contains("sender_1") && printed.ends_with(".. }"),
            "{printed}"
        );
    }
}
