//! What goes wrong on the way to a server, in words that help.

use std::io;

use rustls::{AlertDescription, CertificateError};

use crate::error::{ConnectError, ConnectErrorKind};

/// How far the connection had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Resolving the name, TCP.
    Tcp,
    /// The TLS handshake.
    Handshake,
    /// Our certificate was sent; the server has not said anything yet. With TLS 1.3 a server refuses a
    /// client's certificate only now.
    FirstReply,
    /// Commands flow.
    Running,
}

pub(crate) fn explain(address: &str, name: &str, stage: Stage, error: io::Error) -> ConnectError {
    let tls = error
        .get_ref()
        .and_then(|source| source.downcast_ref::<rustls::Error>())
        .cloned();
    let explained = match &tls {
        Some(tls) => explain_tls(address, name, stage, tls),
        None => explain_io(address, stage, &error),
    };
    explained.caused_by(error)
}

fn explain_io(address: &str, stage: Stage, error: &io::Error) -> ConnectError {
    use io::ErrorKind as Io;

    match (stage, error.kind()) {
        (Stage::Tcp, Io::ConnectionRefused) => {
            ConnectError::new(ConnectErrorKind::Refused, format!("Nobody listens at {address}: connection refused."))
                .advise("Start the server (`ciphermq-server --config config.toml`), or name the address where it runs.")
        }
        (Stage::Tcp, Io::TimedOut | Io::HostUnreachable | Io::NetworkUnreachable) => {
            ConnectError::new(ConnectErrorKind::TimedOut, format!("{address} cannot be reached: {error}."))
                .advise("Check the address, the network and firewalls on the way.")
        }
        (Stage::Tcp, _) if is_lookup(error) => {
            ConnectError::new(ConnectErrorKind::UnknownHost, format!("The host of {address} was not found: {error}."))
                .advise("Check the server's name.")
        }
        (Stage::Handshake, Io::UnexpectedEof | Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe) => {
            ConnectError::new(ConnectErrorKind::Broken, format!("{address} closed the connection during the TLS handshake."))
                .advise("See the server's log. Is it a CipherMQ server that listens there?")
        }
        (Stage::FirstReply, Io::UnexpectedEof | Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe) => {
            ConnectError::new(
                ConnectErrorKind::CertificateRefused,
                format!("{address} closed the connection right after the TLS handshake, without a word."),
            )
            .advise(
                "Most likely it cannot use this client's certificate: it must come from the server's CA, be valid \
                 now, and have one Common Name, without spaces. The server's log says more.",
            )
        }
        _ => ConnectError::new(ConnectErrorKind::Broken, format!("The connection to {address} broke: {error}.")),
    }
}

fn explain_tls(address: &str, name: &str, stage: Stage, error: &rustls::Error) -> ConnectError {
    match error {
        rustls::Error::InvalidCertificate(reason) => explain_server_certificate(address, name, reason),
        rustls::Error::AlertReceived(alert) => explain_alert(address, stage, *alert),
        rustls::Error::InvalidMessage(_) if stage == Stage::Handshake => ConnectError::new(
            ConnectErrorKind::NoTls,
            format!("What listens at {address} does not speak TLS."),
        )
        .advise("Name the address of a CipherMQ server; set `connection_type = \"tls\"` there."),
        _ => ConnectError::new(
            ConnectErrorKind::NoTls,
            format!("No TLS connection with {address}: {error}."),
        )
        .advise("See the server's log for its side of it."),
    }
}

fn explain_server_certificate(address: &str, name: &str, reason: &CertificateError) -> ConnectError {
    use CertificateError as Bad;

    let untrusted = |what: String| ConnectError::new(ConnectErrorKind::ServerCertificate, what);
    match reason {
        Bad::UnknownIssuer | Bad::BadSignature => untrusted(format!(
            "The server at {address} has a certificate that this CA did not issue."
        ))
        .advise("Name the CA that issued the server's certificate: its ca.crt, and no other."),
        Bad::Expired | Bad::ExpiredContext { .. } => {
            untrusted(format!("The certificate of the server at {address} has expired."))
                .advise("Renew the server's certificate, and check both clocks.")
        }
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => untrusted(format!(
            "The certificate of the server at {address} is not valid yet."
        ))
        .advise("Check both clocks."),
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            let presented = match reason {
                Bad::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
                    let names: Vec<&str> = presented.iter().map(|name| plain(name)).collect();
                    names.join(", ")
                }
                _ => "no name at all".to_owned(),
            };
            ConnectError::new(
                ConnectErrorKind::ServerName,
                format!(
                    "The certificate of the server at {address} is not for `{name}`, but for {presented}."
                ),
            )
            .advise("Connect by one of its names, say which name it has, or issue one with this name.")
        }
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => untrusted(format!(
            "The certificate of the server at {address} is not made for servers."
        ))
        .advise("Give the server its own certificate, not a client's."),
        _ => untrusted(format!(
            "The certificate of the server at {address} cannot be trusted: {reason}."
        ))
        .advise("Issue a new one: `ciphermq-cli certs` does."),
    }
}

/// A name as people write it: `localhost` of rustls's `DnsName("localhost")`.
fn plain(presented: &str) -> &str {
    presented
        .split_once('(')
        .and_then(|(_, name)| name.strip_suffix(')'))
        .map_or(presented, |name| name.trim_matches('"'))
}

fn explain_alert(address: &str, stage: Stage, alert: AlertDescription) -> ConnectError {
    use AlertDescription as Alert;

    let refused = |why: &str| {
        ConnectError::new(
            ConnectErrorKind::CertificateRefused,
            format!("The server at {address} refused this client's certificate: {why}."),
        )
    };
    match alert {
        Alert::UnknownCA => refused("its CA did not issue it")
            .advise("Use a certificate from the server's CA (`ca_cert_path` in its configuration)."),
        Alert::CertificateExpired => refused("it has expired").advise("Issue a new one, and check both clocks."),
        Alert::CertificateRevoked => refused("it was revoked").advise("Issue a new one."),
        Alert::CertificateRequired => refused("it got none").advise("Name this client's certificate and private key."),
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateUnknown
        | Alert::AccessDenied
        | Alert::DecryptError => {
            let why = format!("it cannot use it ({alert:?})");
            refused(&why).advise(
                "Use a certificate from the server's CA that is valid now and has one Common Name. The server's log says more.",
            )
        }
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => ConnectError::new(
            ConnectErrorKind::NoTls,
            format!("The server at {address} and this client have no TLS version or algorithm in common ({alert:?})."),
        )
        .advise("The client speaks TLS 1.3 and 1.2."),
        _ if stage == Stage::Running => {
            ConnectError::new(ConnectErrorKind::Broken, format!("The server at {address} ended the connection ({alert:?})."))
        }
        _ => ConnectError::new(
            ConnectErrorKind::NoTls,
            format!("The server at {address} broke the TLS handshake off ({alert:?})."),
        )
        .advise("See the server's log for its side of it."),
    }
}

/// Failing to find a host has no kind of its own in the standard library.
fn is_lookup(error: &io::Error) -> bool {
    error.to_string().contains("lookup")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(stage: Stage, error: impl Into<io::Error>) -> ConnectErrorKind {
        explain("localhost:5672", "localhost", stage, error.into()).kind()
    }

    fn tls(error: rustls::Error) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    #[test]
    fn the_same_io_error_means_different_things_at_different_stages() {
        let eof = || io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(
            kind(Stage::Tcp, io::ErrorKind::ConnectionRefused),
            ConnectErrorKind::Refused
        );
        assert_eq!(kind(Stage::Handshake, eof()), ConnectErrorKind::Broken);
        assert_eq!(
            kind(Stage::FirstReply, eof()),
            ConnectErrorKind::CertificateRefused
        );
        assert_eq!(kind(Stage::Running, eof()), ConnectErrorKind::Broken);
    }

    #[test]
    fn alerts_about_certificates_are_told_as_such() {
        for alert in [
            AlertDescription::UnknownCA,
            AlertDescription::CertificateExpired,
            AlertDescription::BadCertificate,
        ] {
            let error = tls(rustls::Error::AlertReceived(alert));
            assert_eq!(
                kind(Stage::FirstReply, error),
                ConnectErrorKind::CertificateRefused,
                "{alert:?}"
            );
        }
    }

    #[test]
    fn a_wrong_name_is_told_with_the_right_ones() {
        let reason = CertificateError::NotValidForNameContext {
            expected: "example.org".try_into().unwrap(),
            presented: ["DnsName(\"localhost\")", "IpAddress(127.0.0.1)"]
                .map(str::to_owned)
                .into(),
        };
        let error = explain(
            "h:1",
            "example.org",
            Stage::Handshake,
            tls(rustls::Error::InvalidCertificate(reason)),
        );
        assert_eq!(error.kind(), ConnectErrorKind::ServerName);
        assert!(
            error
                .to_string()
                .contains("not for `example.org`, but for localhost, 127.0.0.1."),
            "{error}"
        );
    }
}
