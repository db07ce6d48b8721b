//! Explains failed handshakes for the log.

use std::fmt;
use std::io;

use ciphermq_certificates::Flaw;
use rustls::{AlertDescription, CertificateError, PeerIncompatible};

use super::NameError;

/// The cause of a failed handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeFailure {
    /// What happened.
    pub what: String,
    /// What to do; empty if there is nothing to do.
    pub advice: &'static str,
    /// Whether the client's certificate is valid, but names no client.
    pub names_no_client: bool,
}

impl HandshakeFailure {
    fn new(what: impl fmt::Display, advice: &'static str) -> Self {
        Self {
            what: what.to_string(),
            advice,
            names_no_client: false,
        }
    }

    /// Explains the error of a handshake.
    #[must_use]
    pub fn from_error(error: &io::Error) -> Self {
        let tls = error
            .get_ref()
            .and_then(|source| source.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(reason)) => from_certificate_error(reason),
            Some(rustls::Error::InvalidCertRevocationList(reason)) => Self::new(
                format_args!("a revocation list cannot be used ({reason:?})"),
                "Name a list in `[tls] crl_paths` that the authority itself has signed.",
            ),
            Some(rustls::Error::AlertReceived(alert)) => from_alert(*alert),
            Some(rustls::Error::NoCertificatesPresented) => Self::new(
                "the client shows no certificate",
                "Give the client a certificate of the authority in `ca_cert_path` (`keygen certs \
                 --client ID`). If it has one, its key is of a kind that is not accepted: it must be \
                 ECDSA P-256, P-384 or P-521 (a named curve), Ed25519, or RSA of 2048 bits or more \
                 (not RSA-PSS).",
            ),
            Some(rustls::Error::InvalidMessage(_)) => Self::new(
                format_args!("what connects does not speak TLS ({error})"),
                "If it is a client of CipherMQ, it must connect with TLS; port scanners and health \
                 checks can be ignored.",
            ),
            Some(rustls::Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered | PeerIncompatible::Tls12NotOfferedOrEnabled,
            )) => Self::new(
                format_args!("the client's version of TLS is too old ({error})"),
                "Use a client that speaks TLS 1.3 or 1.2.",
            ),
            Some(rustls::Error::PeerIncompatible(_)) => Self::new(
                format_args!("the client and this server have no algorithm in common ({error})"),
                "Use a client that speaks TLS 1.3 or 1.2, with a certificate whose key is ECDSA, \
                 Ed25519, or RSA of 2048 \
                 bits or more.",
            ),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => Self::new(
                "the client closed the connection",
                "If it is a client of CipherMQ, its own error says why; port scanners and health \
                 checks can be ignored.",
            ),
            _ => Self::new(error, ""),
        }
    }

    /// Returns the cause if a valid certificate names no client.
    #[must_use]
    pub fn names_no_client(error: &NameError) -> Self {
        Self {
            names_no_client: true,
            ..Self::new(error, error.advice())
        }
    }

    /// Returns the cause of a handshake that was ended in favour of a newer one.
    #[must_use]
    pub fn gave_way() -> Self {
        Self::new(
            "it gave way to a newer one, as the oldest of the address that has most in progress",
            "If many clients share this address, raise `limits.max_handshakes_per_address` and \
             `limits.max_handshakes`.",
        )
    }

    /// Returns the cause of a handshake that exceeded its time limit.
    #[must_use]
    pub fn timed_out() -> Self {
        Self::new(
            "it took too long",
            "If it is a client of CipherMQ, check the network, or raise \
             `limits.handshake_timeout`.",
        )
    }
}

/// Explains why the client's certificate was refused.
fn from_certificate_error(reason: &CertificateError) -> HandshakeFailure {
    if let CertificateError::Other(other) = reason
        && let Some(error) = other.0.downcast_ref::<NameError>()
    {
        return HandshakeFailure::names_no_client(error);
    }
    let flaw = Flaw::from(reason);
    let advice = match &flaw {
        Flaw::UnknownIssuer => {
            "Give the client a certificate of the authority in `ca_cert_path`, or name the \
             client's authority there. If an intermediate authority issued it, append that \
             authority's certificate to the client's certificate file."
        }
        flaw => flaw.advice(),
    };
    HandshakeFailure::new(format_args!("the client's certificate {flaw}"), advice)
}

/// Explains the alert with which the client ended the handshake.
fn from_alert(alert: AlertDescription) -> HandshakeFailure {
    use AlertDescription as Alert;
    let (why, advice) = match alert {
        Alert::UnknownCA => (
            "does not trust the authority that issued this server's certificate",
            "Give the client the `ca.crt` of the authority that issued `cert_path`. If an \
             intermediate authority issued it, append that authority's certificate to the file.",
        ),
        Alert::DecryptError => (
            "finds a wrong signature in this server's certificate, or one that it does not accept",
            "Give the client the `ca.crt` of the authority that issued `cert_path`, not of another \
             one with the same name. The keys of that authority and of intermediate ones must not \
             be RSA of less than 2048 bits.",
        ),
        Alert::CertificateExpired => (
            "finds this server's certificate expired, or not valid yet",
            "See when each certificate in `cert_path` is valid (openssl x509 -dates), renew the one \
             that is not, the server's own or an intermediate authority's, and check both clocks.",
        ),
        Alert::BadCertificate => (
            "does not accept this server's certificate",
            "Most likely it connects by a name that is not in `cert_path` \
             (subjectAltName): the client's own error \
             says which.",
        ),
        Alert::CertificateUnknown | Alert::UnsupportedCertificate => (
            "cannot use this server's certificate",
            "It must be of X.509 version 3, a server's (CA:FALSE, serverAuth if it states a use), \
             without critical \
             extensions that are rare; `keygen certs` makes such. The client's own error says \
             more.",
        ),
        Alert::ProtocolVersion | Alert::HandshakeFailure => (
            "has no version of TLS or algorithm in common with this server",
            "Use a client that speaks TLS 1.3 or 1.2.",
        ),
        _ => ("ended the handshake", "The client's own error says why."),
    };
    HandshakeFailure::new(format_args!("the client {why} (alert {alert:?})"), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(error: rustls::Error) -> HandshakeFailure {
        HandshakeFailure::from_error(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn each_failure_comes_with_advice() {
        let other = |error: webpki::Error| {
            CertificateError::Other(rustls::OtherError(std::sync::Arc::new(error))).into()
        };
        for (error, what, advice) in [
            (
                CertificateError::UnknownIssuer.into(),
                "was not issued",
                "`ca_cert_path`",
            ),
            (
                CertificateError::Expired.into(),
                "expired",
                "Issue a new one",
            ),
            (
                CertificateError::NotValidYet.into(),
                "is not valid yet",
                "clocks",
            ),
            (
                other(webpki::Error::UnsupportedCertVersion),
                "version of X.509",
                "basicConstraints",
            ),
            (
                rustls::Error::NoCertificatesPresented,
                "no certificate",
                "`ca_cert_path`",
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::UnknownCA),
                "does not trust the authority",
                "`cert_path`",
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::DecryptError),
                "a wrong signature",
                "RSA of less than 2048 bits",
            ),
        ] {
            let failure = failure(error);
            assert!(failure.what.contains(what), "{failure:?}");
            assert!(failure.advice.contains(advice), "{failure:?}");
            assert!(!failure.names_no_client);
        }
    }

    #[test]
    fn a_certificate_without_a_client_id_is_recognised() {
        let error: NameError = ciphermq_certificates::NameError::Several {
            field: ciphermq_certificates::NameField::CommonName,
            count: 2,
        }
        .into();
        let error = CertificateError::Other(rustls::OtherError(std::sync::Arc::new(error)));
        let failure = failure(error.into());
        assert!(failure.names_no_client);
        assert_eq!(
            failure.what,
            "the certificate has 2 Common Names, it must have one"
        );
    }
}
