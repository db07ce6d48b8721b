//! Explanations of connection errors.

use std::io;
use std::net::IpAddr;

use ciphermq_certificates::Flaw;
use ciphermq_certificates::flaw::{for_client, for_server};
use ciphermq_protocol::ClientId;
use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::ServerName;

use crate::credentials::upper_first;
use crate::error::{ConnectError, ConnectErrorKind};

/// The progress of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Name resolution and TCP.
    Tcp,
    /// The TLS handshake.
    Handshake,
    /// Our certificate was sent; the server has not replied yet. With TLS 1.3 a server refuses a
    /// client's certificate only now.
    FirstReply,
    /// Commands flow.
    Running,
}

/// This client's own certificate, as far as errors refer to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'a> {
    /// The client that it names.
    pub(crate) client_id: &'a ClientId,
    /// The flaw that this client sees itself: servers say little about it.
    pub(crate) flaw: Option<&'a Flaw>,
}

/// Explains an I/O error.
pub(crate) fn explain(
    address: &str,
    name: &str,
    stage: Stage,
    error: io::Error,
    own: Own<'_>,
) -> ConnectError {
    let tls = error
        .get_ref()
        .and_then(|source| source.downcast_ref::<rustls::Error>())
        .cloned();
    let error = in_our_words(error);
    let explained = match &tls {
        Some(tls) => explain_tls(address, name, stage, tls, own),
        None => explain_io(address, stage, &error, own),
    };
    explained.caused_by(error)
}

/// Replaces rustls's message about a connection that ended without TLS's `close_notify`, which is
/// written for programmers.
fn in_our_words(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof && error.to_string().contains("close_notify") {
        io::Error::new(
            error.kind(),
            "the server closed the connection without a goodbye",
        )
    } else {
        error
    }
}

/// Reports that the server refused this client's certificate because of this flaw.
fn refused(address: &str, client_id: &ClientId, flaw: &Flaw) -> ConnectError {
    ConnectError::new(
        ConnectErrorKind::CertificateRefused,
        format!("The server at {address} refused this client's certificate: it {flaw}."),
    )
    .advise(for_client(flaw.advice(), client_id))
}

fn explain_io(address: &str, stage: Stage, error: &io::Error, own: Own<'_>) -> ConnectError {
    use io::ErrorKind as Io;

    match (stage, error.kind()) {
        (Stage::Tcp, Io::ConnectionRefused) => ConnectError::new(
            ConnectErrorKind::Refused,
            format!("Nobody listens at {address}: connection refused."),
        )
        .advise(
            "Start the server (`ciphermq-server --config config.toml`), or name the address where \
             it runs.",
        ),
        (Stage::Tcp, Io::TimedOut | Io::HostUnreachable | Io::NetworkUnreachable) => {
            ConnectError::new(
                ConnectErrorKind::TimedOut,
                format!("{address} cannot be reached: {error}."),
            )
            .advise("Check the address, the network and firewalls on the way.")
        }
        (Stage::Tcp, _) if is_name_resolution(error) => ConnectError::new(
            ConnectErrorKind::UnknownHost,
            format!("The host of {address} was not found: {error}."),
        )
        .advise("Check the server's name."),
        (
            Stage::Handshake,
            Io::UnexpectedEof | Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe,
        ) => ConnectError::new(
            ConnectErrorKind::Broken,
            format!("{address} closed the connection during the TLS handshake."),
        )
        .advise("See the server's log. Is it a CipherMQ server that listens there?"),
        (
            Stage::FirstReply,
            Io::UnexpectedEof | Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe,
        ) => {
            // A server's last alert can be lost when it closes.
            if let Some(flaw) = own.flaw {
                return refused(address, own.client_id, flaw);
            }
            ConnectError::new(
                ConnectErrorKind::CertificateRefused,
                format!(
                    "{address} closed the connection right after the TLS handshake, without a \
                         word."
                ),
            )
            .advise(
                "By this machine's clock and --ca nothing is wrong with this client's certificate, \
                 but the server may \
                 trust another authority or have another clock. The server's log says more.",
            )
        }
        _ => ConnectError::new(
            ConnectErrorKind::Broken,
            format!("The connection to {address} broke: {error}."),
        ),
    }
}

fn explain_tls(
    address: &str,
    name: &str,
    stage: Stage,
    error: &rustls::Error,
    own: Own<'_>,
) -> ConnectError {
    match error {
        rustls::Error::InvalidCertificate(reason) => {
            explain_server_certificate(address, name, reason)
        }
        rustls::Error::AlertReceived(alert) => explain_alert(address, stage, *alert, own),
        rustls::Error::InvalidMessage(_) if stage == Stage::Handshake => ConnectError::new(
            ConnectErrorKind::NoTls,
            format!("The service at {address} does not speak TLS."),
        )
        .advise("Name the address of a CipherMQ server; set `connection_type = \"tls\"` there."),
        _ => ConnectError::new(
            ConnectErrorKind::NoTls,
            format!("No TLS connection with {address}: {error}."),
        )
        .advise("Check the server's log."),
    }
}

fn explain_server_certificate(
    address: &str,
    name: &str,
    reason: &CertificateError,
) -> ConnectError {
    use CertificateError as Bad;

    let untrusted = |what: String| ConnectError::new(ConnectErrorKind::ServerCertificate, what);
    if let Bad::NotValidForName | Bad::NotValidForNameContext { .. } = reason {
        return explain_server_name(address, name, reason);
    }
    match Flaw::from(reason) {
        Flaw::UnknownIssuer => untrusted(format!(
            "The server at {address} has a certificate that this CA did not issue."
        ))
        .advise(
            "Name the CA that issued the server's certificate: its ca.crt, and no other. If an \
             intermediate authority issued it, the server must send that authority's certificate, \
             too: append it to the server's certificate file.",
        ),
        Flaw::OtherSignature => untrusted(format!(
            "The server at {address} has a certificate that names this CA, but has the signature of \
             another, or one with an RSA key of less than 2048 bits."
        ))
        .advise(Flaw::OtherSignature.advice()),
        Flaw::Expired(at) => untrusted(format!(
            "The certificate of the server at {address} has expired{}.",
            at.map_or_else(String::new, |at| format!(
                ": it, or an intermediate one above it, was \
                valid until {at}"
            ))
        ))
        .advise(
            "Renew the server's certificate; or, if only an intermediate authority's has expired, \
             that one, and replace it in the server's file. Check both clocks, too.",
        ),
        Flaw::NotYetValid(at) => untrusted(format!(
            "The certificate of the server at {address} is not valid yet{}.",
            at.map_or_else(String::new, |at| format!(
                ": it, or an intermediate one above it, is \
                valid from {at} on"
            ))
        ))
        .advise("Check both clocks."),
        Flaw::ExtendedKeyUsage => untrusted(format!(
            "The certificate of the server at {address} is not made for servers: its extended key \
             usage lacks serverAuth."
        ))
        .advise(
            "Issue one for the server with serverAuth, as `ciphermq-cli certs` does: neither \
             clientAuth nor anyExtendedKeyUsage is enough.",
        ),
        flaw => untrusted(format!(
            "The certificate of the server at {address} {flaw}."
        ))
        .advise(format!(
            "Issue a new certificate for the server. {}",
            for_server(flaw.advice())
        )),
    }
}

/// Explains a server certificate that is for another name, or does not state its name properly.
fn explain_server_name(address: &str, name: &str, reason: &CertificateError) -> ConnectError {
    let presented: &[String] = match reason {
        CertificateError::NotValidForNameContext { presented, .. } => presented,
        _ => &[],
    };
    let names: Vec<String> = presented
        .iter()
        .filter_map(|name| usable_name(name))
        .collect();
    let names = names.join(", ");
    let issue = format!(
        "issue a certificate with this name (subjectAltName; `ciphermq-cli certs --force \
         --server-name {name}` does, with a --server-name for each of its names)."
    );
    let connect = "connect by one of its names, or give one of them with --server-name";
    let (named, advice) = if let Some(dns) = dns_address(name, presented) {
        let mut advice = format!("Issue one that has it as an address: subjectAltName=IP:{name}.");
        if !names.is_empty() {
            advice.push_str(&format!(" Or {connect} ({names})."));
        }
        (
            format!("has this address as a DNS name only ({dns})"),
            advice,
        )
    } else if names.is_empty() {
        let dotted = format!("{name}.");
        let has = if presented.is_empty() {
            "has no name at all among its alternative names; its Common Name does not count"
                .to_owned()
        } else if presented.iter().any(|entry| bare_name(entry) == dotted) {
            format!("is for `{dotted}`, and a name with a full stop at its end matches none")
        } else {
            "has nothing among its alternative names that a server can be reached by; its Common \
             Name does not count"
                .to_owned()
        };
        (has, upper_first(&issue))
    } else {
        (
            format!("is not for `{name}`, but for {names}"),
            upper_first(&format!("{connect}; or {issue}")),
        )
    };
    ConnectError::new(
        ConnectErrorKind::ServerName,
        format!("The certificate of the server at {address} {named}."),
    )
    .advise(advice)
}

/// Returns a name of a certificate in its bare form, if a client can connect by it: not an e-mail
/// address, nor a DNS name that is an IP address or has a full stop at its end.
fn usable_name(presented: &str) -> Option<String> {
    let name = bare_name(presented);
    match presented.split_once('(')?.0 {
        "DnsName" => {
            let host = name.strip_prefix("*.").unwrap_or(name);
            let is_dns = matches!(ServerName::try_from(host), Ok(ServerName::DnsName(_)));
            (is_dns && !host.ends_with('.')).then(|| name.to_owned())
        }
        // In its usual form: rustls writes `0::1`.
        "IpAddress" => Some(
            name.parse::<IpAddr>()
                .map_or_else(|_| name.to_owned(), |address| address.to_string()),
        ),
        _ => None,
    }
}

/// Returns the connected address if the certificate lists it as a DNS name: `DNS:127.0.0.1` is a
/// common mistake.
fn dns_address(name: &str, presented: &[String]) -> Option<String> {
    name.parse::<IpAddr>().ok()?;
    presented
        .iter()
        .any(|entry| entry.starts_with("DnsName") && bare_name(entry) == name)
        .then(|| format!("DNS:{name}"))
}

/// Returns a name as people write it: `localhost` of rustls's `DnsName("localhost")`.
fn bare_name(presented: &str) -> &str {
    presented
        .split_once('(')
        .and_then(|(_, name)| name.strip_suffix(')'))
        .map_or(presented, |name| name.trim_matches('"'))
}

/// Whether an alert can refer to this flaw. Some alerts only say that there is one.
fn can_refer_to(alert: AlertDescription, flaw: &Flaw) -> bool {
    use AlertDescription as Alert;
    match alert {
        Alert::UnknownCA => matches!(flaw, Flaw::UnknownIssuer | Flaw::OtherSignature),
        // It means both (RFC 8446, section 6.2).
        Alert::CertificateExpired => matches!(flaw, Flaw::Expired(_) | Flaw::NotYetValid(_)),
        Alert::UnsupportedCertificate => matches!(flaw, Flaw::ExtendedKeyUsage),
        Alert::DecryptError => {
            matches!(flaw, Flaw::OtherSignature | Flaw::Algorithm | Flaw::KeyKind)
        }
        Alert::BadCertificate | Alert::CertificateUnknown | Alert::AccessDenied => true,
        _ => false,
    }
}

fn explain_alert(
    address: &str,
    stage: Stage,
    alert: AlertDescription,
    own: Own<'_>,
) -> ConnectError {
    use AlertDescription as Alert;

    if let Some(flaw) = own.flaw.filter(|flaw| can_refer_to(alert, flaw)) {
        return refused(address, own.client_id, flaw);
    }
    let refused = |why: &str| {
        ConnectError::new(
            ConnectErrorKind::CertificateRefused,
            format!("The server at {address} refused this client's certificate: {why}."),
        )
    };
    match alert {
        Alert::UnknownCA => refused("its CA did not issue it").advise(
            "Use a certificate from the server's CA (`ca_cert_path` in its configuration). If an \
             intermediate authority issued it, append that authority's certificate to the client's \
             certificate file. If it is from that CA, the server may lack a revocation list in \
             force: its log says so.",
        ),
        Alert::CertificateExpired => refused(
            "by its clock it has expired, or is not valid \
            yet",
        )
        .advise(
            "By this machine's clock it is valid: check both clocks. If it is about to expire, \
             issue a new one.",
        ),
        Alert::CertificateRevoked => refused("it was revoked").advise("Issue a new one."),
        Alert::CertificateRequired => refused(
            "it got \
            none",
        )
        .advise(
            "Name this client's \
            certificate and private key.",
        ),
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateUnknown
        | Alert::AccessDenied
        | Alert::DecryptError => {
            let why = format!("it cannot use it ({alert:?})");
            refused(&why).advise(
                "This client sees nothing wrong with it. The server's log says what it is, and \
                 what to do.",
            )
        }
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            ConnectError::new(
                ConnectErrorKind::NoTls,
                format!(
                    "The server at {address} and this client have no TLS version or algorithm in \
                     common ({alert:?})."
                ),
            )
            .advise("The client speaks TLS 1.3 and 1.2.")
        }
        _ if stage == Stage::Running => ConnectError::new(
            ConnectErrorKind::Broken,
            format!(
                "The server at {address} ended the \
                connection ({alert:?})."
            ),
        ),
        _ => ConnectError::new(
            ConnectErrorKind::NoTls,
            format!("The server at {address} broke the TLS handshake off ({alert:?})."),
        )
        .advise("Check the server's log."),
    }
}

/// Whether name resolution failed, for which the standard library has no error kind.
fn is_name_resolution(error: &io::Error) -> bool {
    error.to_string().contains("lookup")
}

#[cfg(test)]
mod tests;
