//! Verification of certificate chains against trusted authorities.

use std::fmt;
use std::time::Duration;

use ciphermq_certificates::{Flaw, NameError, Validity};
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Certificate;
use super::certificate::lacks_client_auth;
use super::revocation::{ListSigner, RevocationList, RevocationListError};

/// The limit of certificates in a chain, above that of real chains; longer ones are refused
/// unparsed.
const MAX_CHAIN: usize = 8;
/// The limit of bytes in a chain, above that of real chains.
const MAX_CHAIN_BYTES: usize = 64 * 1024;

/// The certificate authorities that a client trusts to name others.
#[derive(Clone)]
pub struct Authority {
    anchors: Vec<TrustAnchor<'static>>,
    certificates: Vec<CertificateDer<'static>>,
    validities: Vec<Validity>,
    /// The intermediate authorities whose lists are read as well.
    intermediates: Vec<CertificateDer<'static>>,
    /// Lists that these authorities have signed, at most one of each signer.
    lists: Vec<RevocationList>,
}

/// The reason why a certificate cannot be that of an authority.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the certificate of an authority: {0}")]
pub struct AuthorityError(String);

ciphermq_protocol::debug_as_report!(AuthorityError);

/// The reason why a chain was refused as a client's.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The chain is empty.
    #[error("there is no certificate")]
    Missing,
    /// The chain is longer than any real one, in certificates or bytes.
    #[error("the certificate chain is too long")]
    TooLong,
    /// The certificate cannot be parsed.
    #[error("the certificate {0}")]
    Unreadable(Flaw),
    /// The chain does not lead to a trusted authority.
    #[error("the certificate {0}")]
    NotTrusted(Flaw),
    /// The certificate has expired.
    #[error("the certificate expired at {0}")]
    Expired(Timestamp),
    /// The certificate is not valid yet.
    #[error("the certificate is valid only from {0} on")]
    NotYetValid(Timestamp),
    /// Its authority has revoked the certificate, or one above it.
    #[error("the certificate was revoked{}", .0.map_or_else(String::new, |at| format!(" at {at}")))]
    Revoked(Option<Timestamp>),
    /// The certificate states usages that exclude this one.
    #[error("the certificate may not be used for {0}")]
    Usage(Usage),
    /// The certificate names no client.
    #[error("the certificate names no client: it {0}")]
    Name(NameError),
    /// The key is of a kind that is not supported for signatures.
    #[error("the certificate's key is neither ECDSA P-384, ECDSA P-256 nor Ed25519")]
    KeyKind,
}

ciphermq_protocol::debug_as_report!(CertificateError);

/// A use that a certificate's stated usages exclude; the text continues "may not be used for".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Signatures: the key usage lacks `digitalSignature`.
    Signatures,
    /// Client authentication: the extended key usage lacks `clientAuth`.
    ClientAuthentication,
    /// The extended key usage of an intermediate certificate above it lacks `clientAuth`.
    AboveIt,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signatures => "signatures: its key usage lacks digitalSignature",
            Self::ClientAuthentication => {
                "client authentication: its extended key usage lacks clientAuth"
            }
            Self::AboveIt => {
                "client authentication: the extended key usage of an intermediate certificate \
                 above it lacks clientAuth"
            }
        })
    }
}

impl CertificateError {
    /// Returns what the certificate's owner can do about it.
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
            Self::Revoked(_) => Flaw::Revoked.advice(),
            Self::Usage(Usage::Signatures) => {
                "Issue one whose key usage has digitalSignature, or that has no key usage: \
                 `ciphermq-cli certs` does."
            }
            Self::Usage(Usage::ClientAuthentication) => {
                "Issue one whose extended key usage has clientAuth, or that has none: \
                 `ciphermq-cli certs` does."
            }
            Self::Usage(Usage::AboveIt) => {
                "Issue it directly by the authority, or by an intermediate one whose extended key \
                 usage has clientAuth, or that has none."
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
    /// Creates an authority that trusts exactly these certificates.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if one of them cannot be an authority's, or the list is empty.
    pub fn new<'a>(
        certificates: impl IntoIterator<Item = CertificateDer<'a>>,
    ) -> Result<Self, AuthorityError> {
        let (mut own, mut validities) = (Vec::new(), Vec::new());
        let anchors = certificates
            .into_iter()
            .map(|certificate| {
                validities.extend(Validity::read(&certificate));
                own.push(certificate.clone().into_owned());
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
            certificates: own,
            validities,
            intermediates: Vec::new(),
            lists: Vec::new(),
        })
    }

    /// Creates an authority that accepts no chain.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            anchors: Vec::new(),
            certificates: Vec::new(),
            validities: Vec::new(),
            intermediates: Vec::new(),
            lists: Vec::new(),
        }
    }

    /// Returns the same authorities, which also read the lists of the intermediate ones by which a
    /// chain leads to them at the time `at`.
    #[must_use]
    pub fn with_intermediates_of(&self, chain: &[CertificateDer<'_>], at: Timestamp) -> Self {
        let path = chain.split_first().and_then(|(own, intermediates)| {
            let end = end_entity(own).ok()?;
            let path = self.path(&end, intermediates, at).ok()?;
            let path = path.intermediate_certificates();
            Some(path.map(|cert| cert.der().into_owned()).collect())
        });
        Self {
            intermediates: path.unwrap_or_default(),
            ..self.clone()
        }
    }

    /// Reads a revocation list in DER that one of these authorities must have signed.
    ///
    /// # Errors
    ///
    /// [`RevocationListError`].
    pub fn read_list(&self, der: &[u8]) -> Result<RevocationList, RevocationListError> {
        RevocationList::read(der, &self.signing_certificates().collect::<Vec<_>>())
    }

    /// Returns the same authorities, which refuse what these lists revoke.
    ///
    /// A list counts until there is another one, even if that is overdue: the caller decides how
    /// old a list may be.
    #[must_use]
    pub fn with_lists(&self, lists: Vec<RevocationList>) -> Self {
        Self {
            lists,
            ..self.clone()
        }
    }

    /// Whether both trust the same certificates.
    #[must_use]
    pub fn has_same_anchors(&self, other: &Self) -> bool {
        self.certificates == other.certificates && self.intermediates == other.intermediates
    }

    /// Returns the signers whose lists count.
    pub fn signers(&self) -> impl Iterator<Item = ListSigner> {
        self.signing_certificates().map(|(signer, _)| signer)
    }

    fn signing_certificates(&self) -> impl Iterator<Item = (ListSigner, &CertificateDer<'static>)> {
        let anchors = self
            .anchors
            .iter()
            .map(ListSigner::of)
            .zip(&self.certificates);
        let intermediates = self.intermediates.iter().filter_map(|certificate| {
            let parsed = end_entity(certificate).ok()?;
            Some((ListSigner::of_intermediate(&parsed), certificate))
        });
        anchors.chain(intermediates)
    }

    /// Returns when the oldest list was made; `None` unless there is one of each authority.
    #[must_use]
    pub fn lists_made_at(&self) -> Option<Timestamp> {
        let made = self.signers().map(|signer| {
            let list = self.lists.iter().find(|list| *list.signer() == signer)?;
            Some(list.validity().not_before)
        });
        made.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Returns the lists of what is revoked.
    #[must_use]
    pub fn lists(&self) -> &[RevocationList] {
        &self.lists
    }

    /// Returns the subjects and the validity periods of the authorities' own certificates.
    ///
    /// They are trusted whatever their dates: trust comes from the configuration.
    #[must_use]
    pub fn validities(&self) -> &[Validity] {
        &self.validities
    }

    /// Returns why TLS would refuse a chain that this authority should have issued; `None` if it
    /// accepts it.
    ///
    /// TLS is more lenient than [`Authority::verify`]: it accepts other kinds of keys, too.
    #[must_use]
    pub fn flaw(&self, chain: &[CertificateDer<'_>], at: Timestamp) -> Option<Flaw> {
        let (own, intermediates) = chain.split_first()?;
        let Ok((_, certificate)) = X509Certificate::from_der(own) else {
            return Some(Flaw::Unreadable("it is not a certificate".to_owned()));
        };
        if let Err(error) = ciphermq_certificates::client_id(&certificate) {
            return Some(error.into());
        }
        if let Some(error) = Validity::of(&certificate).error_at(at) {
            return Some(error.into());
        }
        match end_entity(own) {
            Ok(end) => self.verify_path(&end, intermediates, at).err(),
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
        // Certificates have whole seconds, and the last one is valid to its end.
        let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
        // Checked before webpki does, for the precise error.
        if at > certificate.not_after() {
            return Err(CertificateError::Expired(certificate.not_after()));
        }
        if at < certificate.not_before() {
            return Err(CertificateError::NotYetValid(certificate.not_before()));
        }
        let end = end_entity(own).map_err(CertificateError::Unreadable)?;
        self.verify_path(&end, intermediates, at)
            .map_err(|flaw| match flaw {
                Flaw::ExtendedKeyUsage if lacks_client_auth(own) => {
                    CertificateError::Usage(Usage::ClientAuthentication)
                }
                Flaw::ExtendedKeyUsage => CertificateError::Usage(Usage::AboveIt),
                Flaw::Revoked => CertificateError::Revoked(self.revoked_at(own)),
                flaw => CertificateError::NotTrusted(flaw),
            })?;
        Ok(certificate)
    }

    /// Verifies that a path leads from a client's certificate to an authority (RFC 5280, section
    /// 6).
    fn verify_path(
        &self,
        end: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        at: Timestamp,
    ) -> Result<(), Flaw> {
        let path = self.path(end, intermediates, at)?;
        // Looked up on the path that was found, rather than by another search for a path that obeys
        // the lists: whoever makes the chain could let that search fail in other ways.
        match self.lists.iter().any(|list| list.revokes(&path)) {
            true => Err(Flaw::Revoked),
            false => Ok(()),
        }
    }

    fn path<'a>(
        &'a self,
        end: &'a EndEntityCert<'a>,
        intermediates: &'a [CertificateDer<'a>],
        at: Timestamp,
    ) -> Result<VerifiedPath<'a>, Flaw> {
        end.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &self.anchors,
            intermediates,
            unix_time(at),
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map_err(|error| Flaw::from(&error))
    }

    /// Returns when a certificate was revoked; `None` if none of the lists names it.
    fn revoked_at(&self, own: &CertificateDer<'_>) -> Option<Timestamp> {
        let end = EndEntityCert::try_from(own).ok()?;
        self.lists.iter().find_map(|list| list.revoked_at(&end))
    }

    /// Verifies a chain as of `now`, or as of the nearest time at which its own certificate is
    /// valid.
    ///
    /// It is for a client's own earlier signatures, which remain its own after the certificate has
    /// expired.
    pub(crate) fn verify_at_nearest_validity(
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
    use crate::identity::testing::{Ca, CertificateSpec};
    use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_client_of_the_authority_is_verified() {
        let ca = Ca::new("ca");
        let chain = ca.issue("receiver_1").chain;
        let certificate = ca.authority().verify(&chain, at(NOW)).unwrap();
        assert_eq!(certificate.client_id().as_str(), "receiver_1");
        assert_eq!(certificate.fingerprint(), fingerprint(&chain[0]));
        assert_eq!(certificate.algorithm().as_str(), "ES384");
    }

    use crate::identity::fingerprint;

    #[test]
    fn a_client_of_another_authority_of_the_same_name_is_refused() {
        let [ca, other] = ["ca", "ca"].map(Ca::new);
        let error = ca
            .authority()
            .verify(&other.issue("receiver_1").chain, at(NOW))
            .unwrap_err();
        assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");
        // Not even with the other authority's certificate in the chain.
        let mut chain = other.issue("receiver_1").chain;
        chain.push(other.certificate());
        let error = ca.authority().verify(&chain, at(NOW)).unwrap_err();
        assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");
    }

    #[test]
    fn a_client_cannot_issue_certificates() {
        let ca = Ca::new("ca");
        let client = ca.issue("receiver_1");
        let forged = client.issue("sender_1");
        let chain = [forged.chain[0].clone(), client.chain[0].clone()];
        let error = ca.authority().verify(&chain, at(NOW)).unwrap_err();
        assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");
    }

    #[test]
    fn an_intermediate_authority_is_accepted() {
        let ca = Ca::new("ca");
        let intermediate = ca.intermediate("department");
        let client = intermediate.issue("receiver_1");
        let chain = [client.chain[0].clone(), intermediate.certificate()];
        ca.authority().verify(&chain, at(NOW)).unwrap();
        let error = ca.authority().verify(&chain[..1], at(NOW)).unwrap_err();
        assert!(matches!(error, CertificateError::NotTrusted(_)), "{error}");
    }

    #[test]
    fn a_certificate_is_refused_outside_its_validity() {
        let ca = Ca::new("ca");
        let chain = ca
            .issue_as(
                "receiver_1",
                &CertificateSpec {
                    valid: Some((NOW, NOW + 60)),
                    ..CertificateSpec::default()
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
    fn stated_usages_must_permit_signing() {
        let ca = Ca::new("ca");
        let verify = |spec: CertificateSpec| {
            let chain = ca.issue_as("receiver_1", &spec).chain;
            ca.authority().verify(&chain, at(NOW)).map(|_| ())
        };
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let extended = |usages: &[ExtendedKeyUsagePurpose]| {
            verify(CertificateSpec {
                extended_usages: usages.to_vec(),
                ..CertificateSpec::default()
            })
        };
        assert_eq!(extended(&[]), Ok(()));
        assert_eq!(extended(&[ClientAuth]), Ok(()));
        assert_eq!(extended(&[ServerAuth, ClientAuth]), Ok(()));
        assert_eq!(
            extended(&[ServerAuth]),
            Err(CertificateError::Usage(Usage::ClientAuthentication))
        );
        let usages = |usages: &[KeyUsagePurpose]| {
            verify(CertificateSpec {
                usages: usages.to_vec(),
                ..CertificateSpec::default()
            })
        };
        assert_eq!(usages(&[KeyUsagePurpose::DigitalSignature]), Ok(()));
        assert_eq!(
            usages(&[KeyUsagePurpose::KeyAgreement]),
            Err(CertificateError::Usage(Usage::Signatures))
        );
        for (usage, names, not) in [
            (Usage::Signatures, "digitalSignature", "clientAuth"),
            (
                Usage::ClientAuthentication,
                "clientAuth",
                "digitalSignature",
            ),
        ] {
            let advice = CertificateError::Usage(usage).advice();
            assert!(advice.contains(names) && !advice.contains(not), "{advice}");
        }
    }

    #[test]
    fn invalid_common_names_are_refused() {
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
    fn other_kinds_of_keys_are_refused() {
        let ca = Ca::new("ca");
        let chain = ca
            .issue_as(
                "receiver_1",
                &CertificateSpec {
                    key: &rcgen::PKCS_ECDSA_P521_SHA512,
                    ..CertificateSpec::default()
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
    fn every_flipped_bit_is_detected() {
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
