//! Which clients are accepted: authorities, their ends, and what they have revoked.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_certificates::{ClientIdFrom, Flaw, Validity};
use ciphermq_protocol::RevocationLists;
use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::VerifierBuilderError;
use rustls::server::danger::ClientCertVerifier;

use super::ends::OwnCertificate;
use super::revoked_signers::RevokedSigners;
use super::verifier::{Anchors, ValidAuthorities};
use super::{Error, certificates, refuse_short_keys, revocation};
use crate::config::{CrlPolicy, Tls};

/// Which clients are accepted.
pub struct Trust {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    client_id_from: ClientIdFrom,
    revoked: RevokedSigners,
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) crl_policy: CrlPolicy,
    pub(super) revocation_lists: RevocationLists,
    /// When an authority ends, or a revocation list without which clients are not accepted.
    ends: Vec<Timestamp>,
}

impl Trust {
    /// Returns the times after which clients may not be accepted that were accepted before.
    #[must_use]
    pub fn ends(&self) -> &[Timestamp] {
        &self.ends
    }

    /// Returns the fields of certificates that name clients.
    #[must_use]
    pub fn client_id_from(&self) -> ClientIdFrom {
        self.client_id_from
    }

    /// Whether the certificate that has signed a key is revoked. Without lists, none is.
    #[must_use]
    pub fn has_revoked_signer_of(&self, signed_key: &str) -> bool {
        !self.revocation_lists.is_empty() && self.revoked.has_signed(signed_key)
    }

    /// Returns the revocation lists, as they were loaded.
    #[must_use]
    pub fn revocation_lists(&self) -> &RevocationLists {
        &self.revocation_lists
    }

    /// Returns why a client with this chain is not accepted at a time; `None` if it is.
    ///
    /// The client's own certificate comes first in the chain.
    #[must_use]
    pub fn refusal(&self, chain: &[CertificateDer<'_>], at: Timestamp) -> Option<Flaw> {
        let (own, intermediates) = chain.split_first()?;
        let seconds = u64::try_from(at.as_second()).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        match self.verifier.verify_client_cert(own, intermediates, at) {
            Ok(_) => None,
            Err(rustls::Error::InvalidCertificate(reason)) => Some(Flaw::from(&reason)),
            Err(error) => Some(Flaw::Other(error.to_string())),
        }
    }
}

/// Reads the authorities and the revocation lists. Adds those whose ends concern the operator to
/// `own`.
///
/// # Errors
///
/// [`Error`], which names the setting and the fix.
pub(super) fn load(
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
    own: &mut Vec<OwnCertificate>,
) -> Result<Trust, Error> {
    let path = &tls.ca_cert_path;
    let authorities = certificates("ca_cert_path", path)?;
    // Another one of several may be used.
    let is_short = |der: &CertificateDer<'_>| ciphermq_certificates::short_key(der).is_some();
    if authorities.iter().all(is_short) {
        refuse_short_keys("ca_cert_path", path, &authorities)?;
    }
    let unusable = |source| Error::Authority {
        path: path.clone(),
        source,
    };
    own.extend(OwnCertificate::all("ca_cert_path", path, &authorities));
    let mut anchors = Anchors {
        roots: Vec::new(),
        lists: Vec::new(),
        policy: tls.crl_policy,
        client_id_from: tls.client_id_from,
        provider: Arc::clone(provider),
    };
    for authority in &authorities {
        anchors.add(authority).map_err(|error| match error {
            rustls::Error::InvalidCertificate(reason) => {
                unusable(format!("one {}", Flaw::from(&reason)).into())
            }
            error => unusable(error.into()),
        })?;
    }
    let lists = revocation::lists(tls, &authorities)?;
    for list in &lists {
        if let Err(VerifierBuilderError::InvalidCrl(reason)) = anchors.accepts_list(&list.der) {
            let found = format!("one that is not supported ({reason:?})");
            return Err(revocation::not_list(&list.own.path, found));
        }
    }
    let validities = authorities.iter().filter_map(|der| Validity::read(der));
    let mut ends: Vec<Timestamp> = validities.map(|validity| validity.not_after).collect();
    if tls.crl_policy == CrlPolicy::Required {
        ends.extend(lists.iter().map(|list| list.own.validity.not_after));
    }
    let revocation_lists = RevocationLists::from_der(lists.iter().map(|list| &list.der));
    for list in lists {
        anchors.lists.push(list.der);
        own.push(list.own);
    }
    let revoked = anchors.revocation_verifier();
    let revoked = RevokedSigners::new(revoked.map_err(|source| unusable(source.into()))?);
    let verifier = ValidAuthorities::new(anchors).map_err(|source| unusable(source.into()))?;
    Ok(Trust {
        verifier: Arc::new(verifier),
        client_id_from: tls.client_id_from,
        revoked,
        authorities,
        crl_policy: tls.crl_policy,
        revocation_lists,
        ends,
    })
}
