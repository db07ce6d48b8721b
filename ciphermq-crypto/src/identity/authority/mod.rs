//! Verification of certificate chains against trusted authorities.
//!
//! - `error`: the reasons why a chain is refused
//! - `issuers`: intermediate authorities on the paths of other clients
//! - `lists`: the revocation lists of the authorities

mod error;
mod issuers;
mod lists;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use ciphermq_certificates::{ClientIdFrom, Flaw, Validity};
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Certificate;
use super::certificate::lacks_client_auth;
use super::revocation::{RevocationList, Revoked};

pub use error::{CertificateError, Usage};
pub use issuers::{Intermediate, Learned};

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
    client_id_from: ClientIdFrom,
    /// The client's own intermediate authorities, whose lists are read as well.
    intermediates: Vec<Intermediate>,
    /// Those of other clients, the one that was learned longest ago first.
    learned: Vec<Intermediate>,
    /// Whether a chain through other ones is refused.
    refuses_unknown: bool,
    /// Lists that these authorities have signed, at most one of each signer.
    lists: Vec<RevocationList>,
    /// When the lists of learned authorities must have been made.
    lists_made_in: Option<RangeInclusive<Timestamp>>,
}

/// The reason why a certificate cannot be that of an authority.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the certificate of an authority: {0}")]
pub struct AuthorityError(String);

ciphermq_protocol::debug_as_report!(AuthorityError);

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
            ..Self::nobody()
        })
    }

    /// Creates an authority that accepts no chain.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            anchors: Vec::new(),
            certificates: Vec::new(),
            validities: Vec::new(),
            client_id_from: ClientIdFrom::default(),
            intermediates: Vec::new(),
            learned: Vec::new(),
            refuses_unknown: false,
            lists: Vec::new(),
            lists_made_in: None,
        }
    }

    /// Returns the same authorities, which name clients in these fields of certificates, instead of
    /// the Common Name.
    #[must_use]
    pub fn with_client_id_from(&self, client_id_from: ClientIdFrom) -> Self {
        Self {
            client_id_from,
            ..self.clone()
        }
    }

    /// Returns the fields of certificates that name clients.
    #[must_use]
    pub fn client_id_from(&self) -> ClientIdFrom {
        self.client_id_from
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
        if let Err(error) = self.client_id_from.client_id(&certificate) {
            return Some(error.into());
        }
        if let Some(error) = Validity::of(&certificate).error_at(at) {
            return Some(error.into());
        }
        let end = match end_entity(own) {
            Ok(end) => end,
            Err(flaw) => return Some(flaw),
        };
        let path = match self.path(&end, intermediates, at) {
            Ok(path) => path,
            Err(flaw) => return Some(flaw),
        };
        self.revokes(&path).map(|_| Flaw::Revoked)
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
        self.verify_revoked(chain, at, |_| true)
    }

    /// Verifies a chain as [`Authority::verify`] does, and accepts it also if its own certificate
    /// was revoked, and nothing above it, at a later time than `at`.
    pub(crate) fn verify_before_revocation(
        &self,
        chain: &[CertificateDer<'_>],
        at: Timestamp,
    ) -> Result<Certificate, CertificateError> {
        self.verify_revoked(chain, at, |revoked| revoked <= at)
    }

    /// Verifies a chain, and refuses its own certificate if it was revoked at a time that
    /// `is_refused`.
    fn verify_revoked(
        &self,
        chain: &[CertificateDer<'_>],
        at: Timestamp,
        is_refused: impl Fn(Timestamp) -> bool,
    ) -> Result<Certificate, CertificateError> {
        let (own, intermediates) = chain.split_first().ok_or(CertificateError::Missing)?;
        let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
        if chain.len() > MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
            return Err(CertificateError::TooLong);
        }
        let certificate = Certificate::read(own, self.client_id_from)?;
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
        let path = self.path(&end, intermediates, at);
        let path = path.map_err(|flaw| match flaw {
            Flaw::ExtendedKeyUsage if lacks_client_auth(own) => {
                CertificateError::Usage(Usage::ClientAuthentication)
            }
            Flaw::ExtendedKeyUsage => CertificateError::Usage(Usage::AboveIt),
            flaw => CertificateError::NotTrusted(flaw),
        })?;
        match self.revokes(&path) {
            Some(Revoked::Above) => return Err(CertificateError::Revoked(None)),
            Some(Revoked::Own(revoked)) if is_refused(revoked) => {
                return Err(CertificateError::Revoked(Some(revoked)));
            }
            _ => {}
        }
        // What is revoked teaches nothing.
        let issuers = self.issuers(&path);
        self.check_known(&issuers)?;
        self.check_lists_of(&issuers)?;
        Ok(certificate.issued_by(issuers))
    }

    /// Returns what the lists in force name on a path.
    ///
    /// It is looked up on the path that was found, rather than by another search for a path that
    /// obeys the lists: whoever makes the chain could let that search fail in other ways.
    fn revokes(&self, path: &VerifiedPath<'_>) -> Option<Revoked> {
        let lists = self.lists.iter();
        lists.filter_map(|list| list.revokes(path)).max()
    }

    /// Returns the path that leads from a client's certificate to an authority (RFC 5280, section
    /// 6).
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
mod tests;
