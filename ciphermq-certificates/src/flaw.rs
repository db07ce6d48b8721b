//! The reason why a certificate is refused, and what to do.

use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use rustls_pki_types::UnixTime;

use crate::name::NameError;
use crate::validity::{ValidityError, time};

/// The reason why a certificate is refused; the text continues "the certificate".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// No trusted authority has issued it.
    #[error("was not issued by an authority that is trusted here")]
    UnknownIssuer,
    /// The signature is not that of the trusted authority that the certificate names.
    ///
    /// A signature with a short RSA key is not examined, so that it may also be that.
    #[error(
        "names an authority that is trusted here, but has the signature of another, or one with \
         an RSA key of less than 2048 bits"
    )]
    OtherSignature,
    /// The certificate has expired, or an intermediate certificate has.
    #[error("expired{}", at(.0))]
    Expired(Option<Timestamp>),
    /// The certificate is not valid yet, or an intermediate certificate is not.
    #[error("is not valid yet{}", from(.0))]
    NotYetValid(Option<Timestamp>),
    /// The certificate of the authority that has issued it has expired, or is not valid yet.
    #[error("was issued by an authority whose own certificate {0}")]
    IssuerValidity(ValidityError),
    /// Its authority has revoked the certificate, or an intermediate certificate.
    #[error("is revoked")]
    Revoked,
    /// No revocation list says whether the certificate, or an intermediate one, is revoked.
    #[error("may be revoked: no revocation list covers it")]
    UnknownRevocation,
    /// The revocation list that says whether the certificate is revoked has ended.
    #[error("may be revoked: its authority's revocation list ended{}", at(.0))]
    OldRevocationList(Option<Timestamp>),
    /// The certificate is of version 1 or 2 of X.509.
    #[error("is of an old version of X.509, not of version 3")]
    UnsupportedVersion,
    /// The certificate has an unknown critical extension.
    #[error("has a critical extension that is unknown here")]
    CriticalExtension,
    /// The certificate is an authority's certificate, not a server's or client's.
    #[error("is marked as an authority's (CA:TRUE), not as a server's or client's")]
    IsAuthority,
    /// The certificate's issuer is not an authority.
    #[error("was issued with a certificate that is not an authority's (CA:FALSE)")]
    IssuerNotAuthority,
    /// The certificate's extended key usage excludes this use.
    #[error("is not for this use, as its extended key usage states")]
    ExtendedKeyUsage,
    /// The certificate's signature algorithm is not accepted.
    #[error("is signed with an algorithm that is not accepted, such as SHA-1")]
    Algorithm,
    /// The certificate's key, or its issuer's, is of a kind that is not accepted.
    #[error(
        "has a key, or was issued with one, of a kind that is not accepted, such as an elliptic \
         curve that is not named"
    )]
    KeyKind,
    /// The certificate violates a name constraint or the path length of an authority above it.
    #[error("violates the constraints of an authority above it")]
    Constraints,
    /// The certificate names no client.
    #[error("{0}")]
    Name(#[from] NameError),
    /// The certificate cannot be parsed.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Another, rare reason.
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
    /// Returns advice for the certificate's owner, or for the issuer of certificates.
    ///
    /// It is for a client's certificate of any name; see [`for_client`] and [`for_server`].
    ///
    /// If the other side may have the wrong authority instead, the caller has to add that to the
    /// advice.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::UnknownIssuer => {
                "Use a certificate that the authority of the other side (its `ca.crt`) has issued. \
                 If an intermediate authority has issued it, append that authority's certificate \
                 to the file."
            }
            Self::OtherSignature => {
                "Most likely there are two authorities with the same name, because the authority \
                 was created again: use certificates and a `ca.crt` that were made together. If \
                 the authority's key is RSA of less than 2048 bits, create a new authority."
            }
            Self::Expired(_) => {
                "Issue a new one, where the authority's `ca.key` is: `ciphermq-cli certs --force \
                 --client NAME`, with its Common Name as NAME. Check the clocks of both machines, \
                 too. If only an intermediate authority's has expired, renew that one."
            }
            Self::NotYetValid(_) => {
                "Check the clocks of both machines and of the one that issued it; if all are \
                 right, wait, or issue a new one."
            }
            Self::IssuerValidity(_) => {
                "Check the clocks of both machines; if they are right, renew the authority, or \
                 make a new one, and new certificates of it for the server and all clients, and \
                 give everyone its `ca.crt`."
            }
            Self::Revoked => {
                "If it was revoked by mistake or for a change of keys, issue a new one, where the \
                 authority's `ca.key` is: `ciphermq-cli certs --force --client NAME`, with its \
                 Common Name as NAME."
            }
            Self::UnknownRevocation => {
                "Give the server a revocation list of the authority that issued the certificate, \
                 and one of each authority above that (`[tls] crl_paths`)."
            }
            Self::OldRevocationList(_) => {
                "Give the server the authority's new revocation list (`[tls] crl_paths`), and check \
                 its clock."
            }
            Self::UnsupportedVersion => {
                "Issue it with an extension: that makes it version 3. With OpenSSL, `openssl x509 \
                 -req ... -extfile FILE`, where FILE holds `basicConstraints=CA:FALSE`."
            }
            Self::CriticalExtension => {
                "Issue it without that extension, or with one that is not critical."
            }
            Self::IsAuthority => {
                "Issue it with CA:FALSE (basic constraints), as `ciphermq-cli certs` does: neither \
                 an authority's certificate nor a self-signed one is accepted."
            }
            Self::IssuerNotAuthority => {
                "Issue it with the authority's certificate and key, not with a server's or \
                 client's."
            }
            Self::ExtendedKeyUsage => {
                "Issue one whose extended key usage has clientAuth for a client, serverAuth for a \
                 server, or that states none; anyExtendedKeyUsage is not enough."
            }
            Self::Algorithm => {
                "Issue it with SHA-256 or SHA-384, by an authority whose key is ECDSA, Ed25519, or \
                 RSA of at least 2048 bits."
            }
            Self::KeyKind => {
                "Issue one for a key of the kind ECDSA P-384 or P-256 (a named curve, without \
                 explicit parameters), Ed25519, or RSA of 2048 bits or more. The authority's key \
                 must be of such a kind, too."
            }
            Self::Constraints => {
                "Issue it directly by the authority, or by an intermediate one that may (path \
                 length, name constraints)."
            }
            Self::Name(error) => error.advice(),
            Self::Unreadable(_) | Self::Other(_) => {
                "Issue a new one, where the authority's `ca.key` is: `ciphermq-cli certs --force \
                 --client NAME`, with its Common Name as NAME."
            }
        }
    }
}

/// Returns an advice about a client's certificate with the client's name in its commands.
#[must_use]
pub fn for_client(advice: &str, client: &ClientId) -> String {
    let name = client.as_str();
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte));
    let name = if is_plain {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    };
    advice.replace(
        "--client NAME`, with its Common Name as NAME",
        &format!("--client {name}`"),
    )
}

/// Returns an advice about a server's certificate, with the options of servers in its commands.
#[must_use]
pub fn for_server(advice: &str) -> String {
    advice.replace(
        "--client NAME`, with its Common Name as NAME",
        "--server-name NAME`, with a --server-name for each of its names",
    )
}

impl Flaw {
    /// The description of a certificate that cannot be parsed; a parser's own words do not help
    /// people.
    pub const DAMAGED: &str = "it is truncated or damaged";
}

impl From<ValidityError> for Flaw {
    fn from(error: ValidityError) -> Self {
        match error {
            ValidityError::Expired(at) => Self::Expired(Some(at)),
            ValidityError::NotYetValid(at) => Self::NotYetValid(Some(at)),
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
            Bad::CertRevoked => Self::Revoked,
            Bad::UnknownRevocationStatus => Self::UnknownRevocation,
            Bad::CrlExpired { next_update, .. } => {
                Self::OldRevocationList(Some(timestamp(*next_update)))
            }
            Bad::UnsupportedCertVersion => Self::UnsupportedVersion,
            Bad::UnsupportedCriticalExtension => Self::CriticalExtension,
            Bad::CaUsedAsEndEntity => Self::IsAuthority,
            Bad::EndEntityUsedAsCa => Self::IssuerNotAuthority,
            Bad::RequiredEkuNotFoundContext(_) | Bad::EmptyEkuExtension => Self::ExtendedKeyUsage,
            Bad::UnsupportedSignatureAlgorithmContext(_) => Self::Algorithm,
            Bad::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::KeyKind,
            Bad::PathLenConstraintViolated
            | Bad::NameConstraintViolation
            | Bad::MaximumPathDepthExceeded
            | Bad::MaximumPathBuildCallsExceeded
            | Bad::MaximumSignatureChecksExceeded
            | Bad::MaximumNameConstraintComparisonsExceeded => Self::Constraints,
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

/// Splits the name of an error of webpki, such as `BadDerTime`, into words: it has no other text.
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
            Bad::Revoked => Self::Revoked,
            Bad::UnknownRevocationStatus => Self::UnknownRevocation,
            Bad::ExpiredRevocationList => Self::OldRevocationList(None),
            Bad::ExpiredRevocationListContext { next_update, .. } => {
                Self::OldRevocationList(Some(timestamp(*next_update)))
            }
            Bad::UnhandledCriticalExtension => Self::CriticalExtension,
            Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => Self::ExtendedKeyUsage,
            Bad::UnsupportedSignatureAlgorithmContext { .. } => Self::Algorithm,
            Bad::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Self::KeyKind,
            Bad::BadEncoding => Self::Unreadable("it is not a certificate".to_owned()),
            Bad::Other(other) => {
                let webpki = other.0.downcast_ref::<webpki::Error>().map(Self::from);
                let flaw = webpki.or_else(|| other.0.downcast_ref::<Self>().cloned());
                flaw.unwrap_or_else(|| Self::Other(other.0.to_string()))
            }
            error => Self::Other(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flaws_have_text_and_advice() {
        let at = time(1_609_459_200);
        for (flaw, text) in [
            (Flaw::Expired(Some(at)), "expired at 2021-01-01T00:00:00Z"),
            (
                Flaw::NotYetValid(Some(at)),
                "is not valid yet, only from 2021-01-01T00:00:00Z on",
            ),
            (Flaw::Expired(None), "expired"),
            (
                NameError::None(crate::ClientIdFrom::default()).into(),
                "has no Common Name",
            ),
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

    #[test]
    fn commands_name_the_client_or_the_server() {
        let advice = Flaw::Expired(None).advice();
        for (name, command) in [
            ("sender_1", "`ciphermq-cli certs --force --client sender_1`"),
            ("a'b", r"`ciphermq-cli certs --force --client 'a'\''b'`"),
        ] {
            let advice = for_client(advice, &ClientId::new(name).unwrap());
            assert!(advice.contains(command), "{advice}");
            assert!(!advice.contains("NAME"), "{advice}");
        }
        for flaw in [Flaw::Expired(None), Flaw::Other(String::new())] {
            let advice = for_server(flaw.advice());
            assert!(
                advice.contains("certs --force --server-name NAME`"),
                "{advice}"
            );
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn webpki_errors_inside_rustls_errors_are_recognised() {
        let other = |error: webpki::Error| {
            let error =
                rustls::CertificateError::Other(rustls::OtherError(std::sync::Arc::new(error)));
            Flaw::from(&error)
        };
        assert_eq!(
            other(webpki::Error::UnsupportedCertVersion),
            Flaw::UnsupportedVersion
        );
        assert_eq!(other(webpki::Error::CaUsedAsEndEntity), Flaw::IsAuthority);
        assert_eq!(
            other(webpki::Error::UnsupportedCriticalExtension),
            Flaw::CriticalExtension
        );
    }
}
