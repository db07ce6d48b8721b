//! The revocation lists of authorities: who signs them, and which are in force.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{Authority, Intermediate, end_entity};
use crate::identity::revocation::{ListSigner, RevocationList, RevocationListError};

impl Authority {
    /// Returns the same authorities, which also read the lists of the intermediate ones by which a
    /// chain leads to them at the time `at`.
    #[must_use]
    pub fn with_intermediates_of(&self, chain: &[CertificateDer<'_>], at: Timestamp) -> Self {
        let path = chain.split_first().and_then(|(own, intermediates)| {
            let end = end_entity(own).ok()?;
            let path = self.path(&end, intermediates, at).ok()?;
            let path = path.intermediate_certificates();
            Some(path.map(Intermediate::of).collect())
        });
        Self {
            intermediates: path.unwrap_or_default(),
            ..self.clone()
        }
    }

    /// Reads a revocation list in DER that one of these authorities must have signed, or one that
    /// they have learned.
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

    /// Returns the signers that the client trusts by its own configuration and certificate.
    pub(super) fn own_signers(&self) -> impl Iterator<Item = ListSigner> {
        self.own_certificates().map(|(signer, _)| signer)
    }

    fn signing_certificates(&self) -> impl Iterator<Item = (ListSigner, &CertificateDer<'static>)> {
        self.own_certificates()
            .chain(self.learned.iter().map(signing_certificate))
    }

    fn own_certificates(&self) -> impl Iterator<Item = (ListSigner, &CertificateDer<'static>)> {
        let anchors = self.anchors.iter().map(ListSigner::of);
        anchors
            .zip(&self.certificates)
            .chain(self.intermediates.iter().map(signing_certificate))
    }

    /// Returns when the oldest list of the client's own signers was made; `None` unless there is
    /// one of each.
    #[must_use]
    pub fn lists_made_at(&self) -> Option<Timestamp> {
        let made = self.own_signers().map(|signer| {
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
}

fn signing_certificate(issuer: &Intermediate) -> (ListSigner, &CertificateDer<'static>) {
    (issuer.signer().clone(), issuer.certificate())
}
