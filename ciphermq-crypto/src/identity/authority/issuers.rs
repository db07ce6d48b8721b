//! Intermediate authorities on the paths of other clients, and whether their lists are known.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use webpki::{Cert, VerifiedPath};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Authority, CertificateError};
use crate::identity::revocation::{ListSigner, RevocationList};

/// The limit of intermediate authorities that are learned, some kilobytes each.
const MAX_LEARNED: usize = 256;

/// An intermediate authority: it issues certificates, and signs its own revocation lists. Cheap to
/// clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Intermediate(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    signer: ListSigner,
    certificate: CertificateDer<'static>,
}

impl Intermediate {
    pub(super) fn of(certificate: &Cert<'_>) -> Self {
        Self(Arc::new(Inner {
            signer: ListSigner::of_intermediate(certificate),
            certificate: certificate.der().into_owned(),
        }))
    }

    /// Returns the authority as the signer of lists.
    #[must_use]
    pub fn signer(&self) -> &ListSigner {
        &self.0.signer
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.certificate
    }

    /// Returns the authority's name as text.
    #[must_use]
    pub fn subject(&self) -> String {
        match X509Certificate::from_der(&self.0.certificate) {
            Ok((_, certificate)) => certificate.subject().to_string(),
            Err(_) => String::new(),
        }
    }
}

impl fmt::Debug for Intermediate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Intermediate")
            .field(&self.subject())
            .finish()
    }
}

/// What an [`Authority`] has learned: the signers whose lists count from now on, and those whose
/// lists no longer do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// The signers that are new.
    pub new: Vec<ListSigner>,
    /// The signers that were learned longest ago, and are forgotten in their place.
    pub forgotten: Vec<ListSigner>,
}

impl Authority {
    /// Returns the same authorities, which refuse a chain through an intermediate one that they do
    /// not know, with [`CertificateError::UnknownIssuers`]; or accept it, which is the default.
    ///
    /// They know those of their own ([`Authority::with_intermediates_of`]), and what they
    /// [learn](Authority::learn).
    #[must_use]
    pub fn refuse_unknown_issuers(&self, is_refused: bool) -> Self {
        Self {
            refuses_unknown: is_refused,
            ..self.clone()
        }
    }

    /// Reads the lists of these intermediate authorities as well, and returns what is new.
    ///
    /// They must come from [`CertificateError::UnknownIssuers`], so that a verified path leads from
    /// them to these authorities. At most 256 are known; in place of further ones those are
    /// forgotten that were learned longest ago, and are learned again if they are still in use.
    pub fn learn(&mut self, issuers: &[Intermediate]) -> Learned {
        let mut learned = Learned::default();
        for issuer in issuers {
            if !self.knows(issuer.signer()) {
                learned.new.push(issuer.signer().clone());
                self.learned.push(issuer.clone());
            }
        }
        // Longer than any path, so nothing that is new is forgotten.
        let surplus = self.learned.len().saturating_sub(MAX_LEARNED);
        let forgotten = self.learned.drain(..surplus);
        learned.forgotten = forgotten.map(|issuer| issuer.signer().clone()).collect();
        self.lists
            .retain(|list| !learned.forgotten.contains(list.signer()));
        learned
    }

    /// Returns the same authorities, which also know what `other` has learned if it trusts the same
    /// certificates.
    #[must_use]
    pub fn with_learned_of(&self, other: &Self) -> Self {
        let learned = match self.has_same_anchors(other) {
            true => other.learned.clone(),
            false => Vec::new(),
        };
        Self {
            learned,
            ..self.clone()
        }
    }

    /// Requires a list of each learned authority on a path that was made within these times; `None`
    /// accepts lists of any age, or none, which is the default.
    pub fn require_lists_made_in(&mut self, times: Option<RangeInclusive<Timestamp>>) {
        self.lists_made_in = times;
    }

    /// Checks that lists of these authorities, which are those of a verified certificate, are as
    /// new as is required.
    ///
    /// # Errors
    ///
    /// [`CertificateError::OldList`].
    pub fn check_lists_of(&self, issuers: &[Intermediate]) -> Result<(), CertificateError> {
        let Some(times) = &self.lists_made_in else {
            return Ok(());
        };
        for issuer in issuers {
            let made = self.list_of(issuer).map(|list| list.validity().not_before);
            if !made.is_some_and(|made| times.contains(&made)) {
                return Err(CertificateError::OldList {
                    issuer: issuer.subject(),
                    made,
                });
            }
        }
        Ok(())
    }

    /// Returns the list of an intermediate authority that is in force.
    #[must_use]
    pub fn list_of(&self, issuer: &Intermediate) -> Option<&RevocationList> {
        let mut lists = self.lists.iter();
        lists.find(|list| list.signer() == issuer.signer())
    }

    /// Returns the intermediate authorities of a path that are not the client's own.
    pub(super) fn issuers(&self, path: &VerifiedPath<'_>) -> Vec<Intermediate> {
        let on_path = path.intermediate_certificates().map(Intermediate::of);
        on_path
            .filter(|issuer| !self.is_own(issuer.signer()))
            .collect()
    }

    /// Checks that these authorities are known.
    pub(super) fn check_known(&self, issuers: &[Intermediate]) -> Result<(), CertificateError> {
        let is_unknown = |issuer: &&Intermediate| !self.knows(issuer.signer());
        if !self.refuses_unknown || !issuers.iter().any(|issuer| is_unknown(&issuer)) {
            return Ok(());
        }
        let unknown = issuers.iter().filter(is_unknown).cloned();
        Err(CertificateError::UnknownIssuers(unknown.collect()))
    }

    fn is_own(&self, signer: &ListSigner) -> bool {
        self.own_signers().any(|own| own == *signer)
    }

    /// Whether the lists of a signer count.
    #[must_use]
    pub fn knows(&self, signer: &ListSigner) -> bool {
        let mut learned = self.learned.iter();
        learned.any(|known| known.signer() == signer) || self.is_own(signer)
    }
}

#[cfg(test)]
mod tests;
