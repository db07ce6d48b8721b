//! Certificates that end.

use ciphermq_certificates::{Nearness, Validity};
use ciphermq_crypto::identity::RevocationList;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

/// The part that a certificate has in a client's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateRole {
    /// The client's own certificate: the server refuses the client after its end.
    Own,
    /// The one that signs, if it is another one: senders refuse this client's keys after its end,
    /// and receivers what it sends.
    Signing,
    /// An intermediate one above it: the server refuses the client after its end.
    Intermediate,
    /// An authority that the client trusts.
    Authority,
    /// An authority's revocation list in force, whose successor is due then: it may lack what was
    /// revoked since.
    RevocationList,
}

/// When a certificate of a client ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateEnd {
    /// The certificate's part.
    pub role: CertificateRole,
    /// Its subject, and when it is valid.
    pub validity: Validity,
}

impl CertificateEnd {
    /// Describes a client's chain, its own certificate first, and its authorities.
    pub(super) fn all(chain: &[CertificateDer<'_>], authorities: &[Validity]) -> Vec<Self> {
        let chain = chain.iter().enumerate().filter_map(|(index, der)| {
            let role = match index {
                0 => CertificateRole::Own,
                _ => CertificateRole::Intermediate,
            };
            let validity = Validity::read(der)?;
            Some(Self { role, validity })
        });
        let authorities = authorities.iter().map(|validity| Self {
            role: CertificateRole::Authority,
            validity: validity.clone(),
        });
        chain.chain(authorities).collect()
    }

    /// Describes the certificate that signs, the first one of a chain.
    pub(super) fn of_signer(chain: &[CertificateDer<'_>]) -> Option<Self> {
        Some(Self {
            role: CertificateRole::Signing,
            validity: Validity::read(chain.first()?)?,
        })
    }

    /// Describes a revocation list: its issuer, and when the next one is due.
    pub(super) fn of_list(list: &RevocationList) -> Self {
        Self {
            role: CertificateRole::RevocationList,
            validity: list.validity().clone(),
        }
    }

    pub(super) fn nearness(&self, now: Timestamp) -> Nearness {
        Nearness::of(&self.validity, now)
    }

    /// Returns what there is to say about the end at the time `now`, as a sentence without its
    /// stop; `None` while it is far.
    #[must_use]
    pub fn trouble(&self, now: Timestamp) -> Option<String> {
        let trouble = self.validity.trouble(now)?;
        let what = match self.role {
            CertificateRole::Own => "This client's certificate",
            CertificateRole::Signing => "The certificate that signs for this client",
            CertificateRole::Intermediate => {
                "The certificate of the intermediate authority above this client's"
            }
            CertificateRole::Authority => "The certificate of the authority",
            CertificateRole::RevocationList => "The revocation list of the authority",
        };
        Some(format!("{what} ({}) {trouble}", self.validity.subject))
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self.role {
            CertificateRole::Own => {
                "Check the clock; if it is right, renew it (`keygen renew`), and replace its file: \
                 a running client reads it again by itself. Without a new one the server refuses \
                 this client."
            }
            CertificateRole::Signing => {
                "Check the clock; if it is right, issue a new one for the same client, and replace \
                 its file: a running client reads it again by itself, and signs its keys anew."
            }
            CertificateRole::Intermediate => {
                "Check the clock; if it is right, renew it, and put it into the file of this \
                 client's certificate: a running client reads it again by itself. Without a new \
                 one the server refuses this client."
            }
            CertificateRole::Authority => {
                "Check the clock; if it is right, make a new authority, name both in the file of \
                 the authority for a while, and issue new certificates for the server and all \
                 clients. Servers and other programs (OpenSSL) refuse everything that an \
                 authority has issued once it has ended."
            }
            CertificateRole::RevocationList => {
                "Check the clock; if it is right, let the server's operator put the authority's next \
                 list in place (`keygen crl`, `[tls] crl_paths`). What this one revokes stays \
                 refused; it may lack what was revoked since."
            }
        }
    }
}
