//! The reasons why a chain is refused as a client's.

use std::fmt;

use ciphermq_certificates::{Flaw, NameError};
use jiff::Timestamp;

use super::Intermediate;

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
    /// The path leads through intermediate authorities whose lists have not been looked for:
    /// [`Authority::learn`](super::Authority::learn) them, and verify the chain again.
    #[error("the certificate may be revoked: the revocation list of {} was not looked for",
        subjects(.0))]
    UnknownIssuers(Vec<Intermediate>),
    /// A revocation list of an intermediate authority above it is required, and there is none, or
    /// one that is too old.
    #[error("the certificate may be revoked: the last revocation list of {issuer} {}",
        .made.map_or_else(|| "is not known".to_owned(), |at| format!("was made at {at}")))]
    OldList {
        /// The authority.
        issuer: String,
        /// When its last list was made; `None` if there is none.
        made: Option<Timestamp>,
    },
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

fn subjects(issuers: &[Intermediate]) -> String {
    let subjects: Vec<_> = issuers.iter().map(Intermediate::subject).collect();
    subjects.join(" and ")
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
            Self::UnknownIssuers(_) => "Try again.",
            Self::OldList { .. } => {
                "Put a new list of that authority in place at the server: `keygen crl`, `[tls] \
                 crl_paths`, and `ciphermq-cli reload`."
            }
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
