//! Verifying that a chain of certificates leads to an authority that is trusted.

use std::fmt;
use std::time::Duration;

use ciphermq_certificates::{Flaw, NameError, Trouble, Validity};
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Certificate;

/// More certificates than any real chain has: what is longer is refused unread.
const MAX_CHAIN: usize = 8;
/// More bytes than any real chain has.
const MAX_CHAIN_BYTES: usize = 64 * 1024;

/// The certificate authorities that a client was told to trust. Nothing else decides who is who.
#[derive(Clone)]
pub struct Authority {
    anchors: Vec<TrustAnchor<'static>>,
    validities: Vec<Validity>,
}

/// Why a certificate cannot be that of an authority.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the certificate of an authority: {0}")]
pub struct AuthorityError(String);

ciphermq_protocol::debug_as_report!(AuthorityError);

/// Why a chain was not accepted as a client's.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// There is none.
    #[error("there is no certificate")]
    Missing,
    /// The chain is longer than any real one.
    #[error("the certificate chain is too long")]
    TooLong,
    /// It is none, or one that cannot be read.
    #[error("the certificate {0}")]
    Unreadable(Flaw),
    /// It does not lead to an authority that is trusted.
    #[error("the certificate {0}")]
    NotTrusted(Flaw),
    /// Its time is over.
    #[error("the certificate expired at {0}")]
    Expired(Timestamp),
    /// Its time has not come.
    #[error("the certificate is valid only from {0} on")]
    NotYetValid(Timestamp),
    /// It states usages, and this one is not among them.
    #[error("the certificate may not be used for client authentication and signatures")]
    Usage,
    /// It names no client.
    #[error("the certificate names no client: it {0}")]
    Name(NameError),
    /// Its key cannot sign in a way that is known here.
    #[error("the certificate's key is neither ECDSA P-384, ECDSA P-256 nor Ed25519")]
    KeyKind,
}

ciphermq_protocol::debug_as_report!(CertificateError);

impl CertificateError {
    /// What the certificate's owner can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Missing => "Name the client's certificate.",
            Self::TooLong => {
                "The client's file must hold its own certificate and the intermediate ones above \
                 it: at most 8, of \
                 64 KiB together."
            }
            Self::Unreadable(flaw) | Self::NotTrusted(flaw) => flaw.advice(),
            Self::Expired(at) => Flaw::Expired(Some(*at)).advice(),
            Self::NotYetValid(at) => Flaw::NotYetValid(Some(*at)).advice(),
            Self::Usage => {
                "Issue one whose key usage has digitalSignature, and whose extended key usage has \
                 clientAuth, or one \
                 that states no usages: `ciphermq-cli certs` does."
            }
            Self::Name(error) => error.advice(),
            Self::KeyKind => {
                "Issue one for a key of the kind ECDSA P-384, ECDSA P-256 or Ed25519: \
                 `ciphermq-cli certs` does."
            }
        }
    }
}

impl Authority {
    /// Trusts these certificates, and no others.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if one of them cannot be an authority's, or there is none.
    pub fn new<'a>(
        certificates: impl IntoIterator<Item = CertificateDer<'a>>,
    ) -> Result<Self, AuthorityError> {
        let mut validities = Vec::new();
        let anchors = certificates
            .into_iter()
            .map(|certificate| {
                validities.extend(Validity::read(&certificate));
                let anchor = webpki::anchor_from_trusted_cert(&certificate)
                    .map_err(|error| AuthorityError(error.to_string()))?;
                Ok(anchor.to_owned())
            })
            .collect::<Result<Vec<_>, AuthorityError>>()?;
        if anchors.is_empty() {
            return Err(AuthorityError("there is no certificate".to_owned()));
        }
        Ok(Self {
            anchors,
            validities,
        })
    }

    /// Trusts nobody: no chain is ever accepted.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            anchors: Vec::new(),
            validities: Vec::new(),
        }
    }

    /// The authorities whose own certificates are not valid at the time `at`, and what is wrong
    /// with each. It changes nothing here: an authority is trusted because it was named, whatever
    /// its dates say.
    pub fn out_of_date(&self, at: Timestamp) -> impl Iterator<Item = (&Validity, Trouble)> {
        self.validities
            .iter()
            .filter_map(move |validity| Some((validity, validity.trouble(at)?)))
    }

    /// Why this authority's server would not let the owner of the chain in, if it would not. TLS
    /// asks for less than [`Authority::verify`]: it takes other kinds of keys, too.
    #[must_use]
    pub fn flaw(&self, chain: &[CertificateDer<'_>], at: Timestamp) -> Option<Flaw> {
        let (own, intermediates) = chain.split_first()?;
        let Ok((_, certificate)) = X509Certificate::from_der(own) else {
            return Some(Flaw::Unreadable("it is no certificate".to_owned()));
        };
        if let Err(error) = ciphermq_certificates::client_id(&certificate) {
            return Some(error.into());
        }
        if let Some(trouble) = Validity::of(&certificate).trouble(at) {
            return Some(trouble.into());
        }
        match end_entity(own) {
            Ok(end) => self.path(&end, intermediates, at).err(),
            Err(flaw) => Some(flaw),
        }
    }

    /// Verifies a chain, the client's own certificate first, as of the time `at`.
    ///
    /// # Errors
    ///
    /// [`CertificateError`].
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        at: Timestamp,
    ) -> Result<Certificate, CertificateError> {
        let (own, intermediates) = chain.split_first().ok_or(CertificateError::Missing)?;
        let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
        if chain.len() > MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
            return Err(CertificateError::TooLong);
        }
        let certificate = Certificate::read(own)?;
        // Certificates count in whole seconds, all of them.
        let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
        // Said in our own words, before the library says it in its.
        if at > certificate.not_after() {
            return Err(CertificateError::Expired(certificate.not_after()));
        }
        if at < certificate.not_before() {
            return Err(CertificateError::NotYetValid(certificate.not_before()));
        }
        let end = end_entity(own).map_err(CertificateError::Unreadable)?;
        self.path(&end, intermediates, at)
            .map_err(|flaw| match flaw {
                Flaw::Use => CertificateError::Usage,
                flaw => CertificateError::NotTrusted(flaw),
            })?;
        Ok(certificate)
    }

    /// Whether a path leads from a client's certificate to one of the authorities (RFC 5280,
    /// section 6).
    fn path(
        &self,
        end: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        at: Timestamp,
    ) -> Result<(), Flaw> {
        end.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &self.anchors,
            intermediates,
            unix_time(at),
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map_err(|error| Flaw::from(&error))?;
        Ok(())
    }

    /// Verifies a chain as of `now`, or if its own certificate is not valid then, as of the nearest
    /// time at which it is.
    ///
    /// For what a client has once signed itself: it was signed, whether the certificate still
    /// counts or not.
    pub(crate) fn verify_in_its_time(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<Certificate, CertificateError> {
        let at = match self.verify(chain, now) {
            Err(CertificateError::Expired(until)) => until,
            Err(CertificateError::NotYetValid(from)) => from,
            verified => return verified,
        };
        self.verify(chain, at)
    }
}

fn end_entity<'a>(own: &'a CertificateDer<'_>) -> Result<EndEntityCert<'a>, Flaw> {
    EndEntityCert::try_from(own).map_err(|error| Flaw::from(&error))
}

fn unix_time(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(
        u64::try_from(at.as_second()).unwrap_or(0),
    ))
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("anchors", &self.anchors.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{Ca, Wish};
    use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn the_authoritys_own_client_is_verified() {
        let ca = Ca::new("ca");
        let chain = ca.issue("receiver_1").chain;
        let certificate = ca.authority().verify(&chain, at(NOW)).unwrap();
        assert_eq!(certificate.client_id().as_str(), "receiver_1");
        assert_eq!(certificate.fingerprint(), Fingerprint::of(&chain[0]));
        assert_eq!(certificate.algorithm().as_str(), "ES384");
    }

    use crate::identity::Fingerprint;

    #[test]
    fn another_authoritys_is_not_even_of_the_same_name() {
        let [ca, other] = ["ca", "ca"].map(Ca::new);
        let error = ca
            .authority()
            .verify(&other.issue("receiver_1").chain, at(NOW))
            .unwrap_err();
        assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");
        // Nor when the other authority's certificate stands in the chain.
        let mut chain = other.issue("receiver_1").chain;
        chain.push(other.certificate());
        let error = ca.authority().verify(&chain, at(NOW)).unwrap_err();
        assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");
    }

    #[test]
    fn a_client_cannot_name_clients() {
        let ca = Ca::new("ca");
        let client = ca.issue("receiver_1");
        let forged = client.issue("sender_1");
        let chain = [forged.chain[0].clone(), client.chain[0].clone()];
        let error = ca.authority().verify(&chain, at(NOW)).unwrap_err();
        assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");
    }

    #[test]
    fn an_intermediate_authority_may_stand_between() {
        let ca = Ca::new("ca");
        let intermediate = ca.intermediate("department");
        let client = intermediate.issue("receiver_1");
        let chain = [client.chain[0].clone(), intermediate.certificate()];
        ca.authority().verify(&chain, at(NOW)).unwrap();
        let error = ca.authority().verify(&chain[..1], at(NOW)).unwrap_err();
        assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");
    }

    #[test]
    fn only_within_its_time() {
        let ca = Ca::new("ca");
        let chain = ca
            .issue_as(
                "receiver_1",
                &Wish {
                    valid: Some((NOW, NOW + 60)),
                    ..Wish::default()
                },
            )
            .chain;
        let verify = |second| ca.authority().verify(&chain, at(second));
        assert!(verify(NOW).is_ok() && verify(NOW + 60).is_ok());
        assert_eq!(
            verify(NOW + 61),
            Err(CertificateError::Expired(at(NOW + 60)))
        );
        assert_eq!(verify(NOW - 1), Err(CertificateError::NotYetValid(at(NOW))));
        let last = at(NOW + 60) + Duration::from_millis(999);
        assert!(ca.authority().verify(&chain, last).is_ok());
    }

    #[test]
    fn usages_count_if_they_are_stated() {
        let ca = Ca::new("ca");
        let verify = |wish: Wish| {
            let chain = ca.issue_as("receiver_1", &wish).chain;
            ca.authority().verify(&chain, at(NOW)).map(|_| ())
        };
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let extended = |usages: &[ExtendedKeyUsagePurpose]| {
            verify(Wish {
                extended_usages: usages.to_vec(),
                ..Wish::default()
            })
        };
        assert_eq!(extended(&[]), Ok(()));
        assert_eq!(extended(&[ClientAuth]), Ok(()));
        assert_eq!(extended(&[ServerAuth, ClientAuth]), Ok(()));
        assert_eq!(extended(&[ServerAuth]), Err(CertificateError::Usage));
        let usages = |usages: &[KeyUsagePurpose]| {
            verify(Wish {
                usages: usages.to_vec(),
                ..Wish::default()
            })
        };
        assert_eq!(usages(&[KeyUsagePurpose::DigitalSignature]), Ok(()));
        assert_eq!(
            usages(&[KeyUsagePurpose::KeyAgreement]),
            Err(CertificateError::Usage)
        );
    }

    #[test]
    fn a_name_is_one_and_can_be_a_clients() {
        let ca = Ca::new("ca");
        for name in ["", "with space", "line\nbreak"] {
            let chain = ca.issue(name).chain;
            let error = ca.authority().verify(&chain, at(NOW)).unwrap_err();
            assert!(
                matches!(error, CertificateError::Name(_)),
                "{name:?}: {error}"
            );
        }
    }

    #[test]
    fn keys_of_other_kinds_cannot_sign() {
        let ca = Ca::new("ca");
        let chain = ca
            .issue_as(
                "receiver_1",
                &Wish {
                    key: &rcgen::PKCS_ECDSA_P521_SHA512,
                    ..Wish::default()
                },
            )
            .chain;
        assert_eq!(
            ca.authority().verify(&chain, at(NOW)),
            Err(CertificateError::KeyKind)
        );
    }

    #[test]
    fn garbage_is_refused() {
        let ca = Ca::new("ca");
        let authority = ca.authority();
        assert_eq!(
            authority.verify(&[], at(NOW)),
            Err(CertificateError::Missing)
        );
        let own = ca.issue("receiver_1").chain[0].clone();
        for length in [0, 1, own.len() / 2, own.len() - 1] {
            let cut = CertificateDer::from(own[..length].to_vec());
            let error = authority.verify(&[cut], at(NOW)).unwrap_err();
            assert!(
                matches!(error, CertificateError::Unreadable(_)),
                "{length}: {error}"
            );
        }
        let longer = CertificateDer::from([&own[..], b"x"].concat());
        assert!(matches!(
            authority.verify(&[longer], at(NOW)),
            Err(CertificateError::Unreadable(_))
        ));
        assert_eq!(
            authority.verify(&vec![own; 9], at(NOW)),
            Err(CertificateError::TooLong)
        );
        assert!(Authority::new([]).is_err());
        assert!(Authority::new([CertificateDer::from(b"x".to_vec())]).is_err());
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let ca = Ca::new("ca");
        let authority = ca.authority();
        let own = ca.issue("receiver_1").chain[0].clone();
        for byte in 0..own.len() {
            let mut flipped = own.to_vec();
            flipped[byte] ^= 1;
            let verified = authority.verify(&[CertificateDer::from(flipped)], at(NOW));
            assert!(verified.is_err(), "byte {byte}");
        }
    }
}
