//! Why a certificate is not accepted, and what to do.

use jiff::Timestamp;
use rustls_pki_types::UnixTime;

use crate::name::NameError;
use crate::validity::{Trouble, time};

/// What is wrong with a certificate: what stands after "the certificate".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// No authority that is trusted has issued it.
    #[error("was not issued by an authority that is trusted here")]
    UnknownIssuer,
    /// It names an authority that is trusted, and bears another's signature.
    #[error("names an authority that is trusted here, but bears another one's signature")]
    OtherSignature,
    /// Its time is over, or that of a certificate between it and the authority.
    #[error("expired{}", at(.0))]
    Expired(Option<Timestamp>),
    /// Its time has not come, or that of a certificate between it and the authority.
    #[error("is not valid yet{}", from(.0))]
    NotYetValid(Option<Timestamp>),
    /// It is of X.509's first or second version.
    #[error("is of an old version of X.509, not of version 3")]
    Version,
    /// It has a critical extension that is not known.
    #[error("has a critical extension that is not known here")]
    CriticalExtension,
    /// It is an authority's certificate, where a server's or client's is needed.
    #[error("is an authority's own certificate (CA:TRUE), not a server's or client's")]
    IsAuthority,
    /// It was issued by somebody who is no authority.
    #[error("was issued by somebody whose certificate is no authority's (CA:FALSE)")]
    IssuerIsNoAuthority,
    /// It states what it may be used for, and this is not among it.
    #[error("is made for another use: its extended key usage says so")]
    Use,
    /// It is signed in a way that is not taken.
    #[error(
        "is signed with an algorithm or a key that is not taken, such as SHA-1 or a short RSA key"
    )]
    Algorithm,
    /// An authority above it may not issue for its names, or not so deep.
    #[error("goes against the limits of an authority above it")]
    Limits,
    /// It names no client.
    #[error("{0}")]
    Name(#[from] NameError),
    /// It is no certificate that can be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Something that is rare.
    #[error("cannot be used: {0}")]
    Other(String),
}

fn at(time: &Option<Timestamp>) -> String {
    time.map_or_else(String::new, |time| format!(" at {time}"))
}

fn from(time: &Option<Timestamp>) -> String {
    time.map_or_else(String::new, |time| format!(", only from {time} on"))
}

impl Flaw {
    /// What its owner, or whoever issues certificates, can do about it. Who does not know the
    /// issuer may as well know the wrong authority: where that can be, the side that says so says
    /// it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::UnknownIssuer => {
                "Use a certificate that the authority of the other side (its `ca.crt`) has issued. \
                 If there is an intermediate authority, its certificate belongs behind the own \
                 one, in the same file."
            }
            Self::OtherSignature => {
                "There are two authorities of the same name, most likely because it was made anew: \
                 use certificates and a `ca.crt` that were made together."
            }
            Self::Expired(_) => {
                "Issue a new one with the same Common Name (`ciphermq-cli certs --force`), and check \
                 the clocks of both machines. If only an intermediate authority's has expired, \
                 renew that one."
            }
            Self::NotYetValid(_) => {
                "Check the clocks of both machines and of the one that issued it; if all are \
                 right, wait, or issue it anew."
            }
            Self::Version => {
                "Issue it with an extension: that makes it version 3. With OpenSSL, `openssl x509 \
                 -req ... -extfile FILE`, where FILE holds `basicConstraints=CA:FALSE`."
            }
            Self::CriticalExtension => {
                "Issue it without that extension, or with one that is not critical."
            }
            Self::IsAuthority => {
                "Issue a certificate for it with that authority (`ciphermq-cli certs`): a \
                 self-signed one does not do."
            }
            Self::IssuerIsNoAuthority => {
                "Issue it with the authority's certificate and key, not with a server's or \
                 client's."
            }
            Self::Use => {
                "Issue one whose extended key usage has clientAuth for a client, serverAuth for a \
                 server, or that states none; do not swap the two."
            }
            Self::Algorithm => {
                "Issue it with SHA-256 or SHA-384, by an authority whose key is ECDSA, Ed25519, or \
                 RSA of at least 2048 bits."
            }
            Self::Limits => {
                "Issue it directly by the authority, or by an intermediate one that may (path \
                 length, name constraints)."
            }
            Self::Name(error) => error.advice(),
            Self::Unreadable(_) | Self::Other(_) => {
                "Issue a new one: `ciphermq-cli certs --force` does."
            }
        }
    }
}

impl Flaw {
    /// What there is to say of what does not parse: a parser's own words tell people nothing.
    pub const DAMAGED: &str = "it is cut or damaged";
}

impl From<Trouble> for Flaw {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Expired(at) => Self::Expired(Some(at)),
            Trouble::NotYetValid(at) => Self::NotYetValid(Some(at)),
        }
    }
}

fn timestamp(at: UnixTime) -> Timestamp {
    time(i64::try_from(at.as_secs()).unwrap_or(i64::MAX))
}

impl From<&webpki::Error> for Flaw {
    fn from(error: &webpki::Error) -> Self {
        use webpki::Error as Bad;
        match error {
            Bad::UnknownIssuer => Self::UnknownIssuer,
            Bad::InvalidSignatureForPublicKey => Self::OtherSignature,
            Bad::CertExpired { not_after, .. } => Self::Expired(Some(timestamp(*not_after))),
            Bad::InvalidCertValidity => Self::Other("it ends before it begins".to_owned()),
            Bad::CertNotValidYet { not_before, .. } => {
                Self::NotYetValid(Some(timestamp(*not_before)))
            }
            Bad::UnsupportedCertVersion => Self::Version,
            Bad::UnsupportedCriticalExtension => Self::CriticalExtension,
            Bad::CaUsedAsEndEntity => Self::IsAuthority,
            Bad::EndEntityUsedAsCa => Self::IssuerIsNoAuthority,
            Bad::RequiredEkuNotFoundContext(_) | Bad::EmptyEkuExtension => Self::Use,
            Bad::UnsupportedSignatureAlgorithmContext(_)
            | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::Algorithm,
            Bad::PathLenConstraintViolated
            | Bad::NameConstraintViolation
            | Bad::MaximumPathDepthExceeded
            | Bad::MaximumPathBuildCallsExceeded
            | Bad::MaximumSignatureChecksExceeded
            | Bad::MaximumNameConstraintComparisonsExceeded => Self::Limits,
            Bad::BadDer
            | Bad::BadDerTime
            | Bad::TrailingData(_)
            | Bad::ExtensionValueInvalid
            | Bad::MalformedExtensions
            | Bad::InvalidSerialNumber => Self::Unreadable(words(error)),
            _ => Self::Other(words(error)),
        }
    }
}

/// A library's `BadDerTime` as words: it has no others.
fn words(error: &webpki::Error) -> String {
    let mut words = String::new();
    for letter in format!("{error:?}")
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric())
    {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

#[cfg(feature = "tls")]
impl From<&rustls::CertificateError> for Flaw {
    fn from(error: &rustls::CertificateError) -> Self {
        use rustls::CertificateError as Bad;
        match error {
            Bad::UnknownIssuer => Self::UnknownIssuer,
            Bad::BadSignature => Self::OtherSignature,
            Bad::Expired => Self::Expired(None),
            Bad::ExpiredContext { not_after, .. } => Self::Expired(Some(timestamp(*not_after))),
            Bad::NotValidYet => Self::NotYetValid(None),
            Bad::NotValidYetContext { not_before, .. } => {
                Self::NotYetValid(Some(timestamp(*not_before)))
            }
            Bad::UnhandledCriticalExtension => Self::CriticalExtension,
            Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => Self::Use,
            Bad::UnsupportedSignatureAlgorithmContext { .. }
            | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Self::Algorithm,
            Bad::BadEncoding => Self::Unreadable("it is no certificate".to_owned()),
            Bad::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
                Some(error) => error.into(),
                None => Self::Other(other.0.to_string()),
            },
            error => Self::Other(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaw_stands_behind_the_certificate() {
        let at = time(1_609_459_200);
        for (flaw, text) in [
            (Flaw::Expired(Some(at)), "expired at 2021-01-01T00:00:00Z"),
            (
                Flaw::NotYetValid(Some(at)),
                "is not valid yet, only from 2021-01-01T00:00:00Z on",
            ),
            (Flaw::Expired(None), "expired"),
            (NameError::None.into(), "has no Common Name"),
            (
                (&webpki::Error::BadDerTime).into(),
                "cannot be read: bad der time",
            ),
            (
                (&webpki::Error::UnsupportedCertVersion).into(),
                "is of an old version of X.509, not of version 3",
            ),
        ] {
            assert_eq!(flaw.to_string(), text);
            assert!(flaw.advice().ends_with('.'));
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn what_rustls_has_no_word_for_is_told_all_the_same() {
        let other = |error: webpki::Error| {
            let error =
                rustls::CertificateError::Other(rustls::OtherError(std::sync::Arc::new(error)));
            Flaw::from(&error)
        };
        assert_eq!(other(webpki::Error::UnsupportedCertVersion), Flaw::Version);
        assert_eq!(other(webpki::Error::CaUsedAsEndEntity), Flaw::IsAuthority);
        assert_eq!(
            other(webpki::Error::UnsupportedCriticalExtension),
            Flaw::CriticalExtension
        );
    }
}
