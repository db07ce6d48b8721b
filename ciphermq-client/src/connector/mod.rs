//! TCP and TLS: from an address to a mutually authenticated byte stream.

mod explain;

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ciphermq_protocol::ClientId;
use ciphermq_protocol::text::{holds_key, is_unsafe, shown};
use jiff::Timestamp;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) use explain::Stage;

use crate::credentials::{Credentials, CurrentCredentials};
use crate::error::{ConnectError, ConnectErrorKind};

/// Time after which a peer that does not acknowledge data is considered dead, on systems that
/// support it.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes that are read from a socket at once: TLS asks for a few kilobytes at a time.
const READ_AHEAD: usize = 64 * 1024;

pub(crate) type Stream = TlsStream<BufReader<TcpStream>>;

const ADDRESS_ADVICE: &str = "Write it as host:port, for example localhost:5672 or [::1]:5672.";
const NAME_ADVICE: &str = "Give a DNS name or an IP address that is in the server's certificate.";

/// The address of a server, and the name that its certificate must be valid for.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
}

impl Destination {
    /// Parses an address. The certificate's name is the host's unless it is given.
    pub(crate) fn parse(
        address: &str,
        server_name: Option<&str>,
        default_port: u16,
    ) -> Result<Self, ConnectError> {
        let bad = |what| ConnectError::new(ConnectErrorKind::BadSetting, what);
        if holds_key(address) {
            return Err(
                bad("The server's address holds a key, which is not shown.".to_owned())
                    .advise(ADDRESS_ADVICE),
            );
        }
        let (host, port) = split_address(address, default_port).map_err(|reason| {
            bad(format!(
                "`{}` is not a server address: {reason}.",
                shown(address)
            ))
            .advise(ADDRESS_ADVICE)
        })?;
        let name = server_name.unwrap_or(&host);
        if holds_key(name) {
            return Err(
                bad("The server's name holds a key, which is not shown.".to_owned())
                    .advise(NAME_ADVICE),
            );
        }
        let server_name = ServerName::try_from(name.to_owned()).map_err(|error| {
            bad(format!("`{}` is not a valid server name.", shown(name)))
                .advise(NAME_ADVICE)
                .caused_by(error)
        })?;
        Ok(Self {
            host,
            port,
            server_name,
        })
    }
}

/// Makes connections to one server.
#[derive(Debug)]
pub(crate) struct Connector {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    credentials: Arc<CurrentCredentials>,
    pub(crate) timeout: Duration,
}

/// The negotiated properties of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsDetails {
    pub(crate) address: String,
    pub(crate) version: String,
    pub(crate) cipher_suite: String,
    pub(crate) key_exchange: String,
}

impl Connector {
    pub(crate) fn new(
        Destination {
            host,
            port,
            server_name,
        }: Destination,
        credentials: Arc<CurrentCredentials>,
        timeout: Duration,
    ) -> Self {
        Self {
            host,
            port,
            server_name,
            credentials,
            timeout,
        }
    }

    /// Returns the client id in this client's certificate.
    pub(crate) fn client_id(&self) -> &ClientId {
        self.credentials.client_id()
    }

    /// Returns the certificate, key and authority that connections are made with.
    pub(crate) fn credentials(&self) -> &Arc<CurrentCredentials> {
        &self.credentials
    }

    /// Returns the server's address, for people.
    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Connects with these credentials. The caller limits the time.
    pub(crate) async fn connect(
        &self,
        credentials: &Credentials,
    ) -> Result<(Stream, TlsDetails), ConnectError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| self.explain(Stage::Tcp, error))?;
        set_options(&tcp).map_err(|error| self.explain(Stage::Tcp, error))?;
        let peer = tcp
            .peer_addr()
            .map_or_else(|_| self.address(), |address| address.to_string());
        let stream = TlsConnector::from(Arc::clone(&credentials.tls))
            .connect(
                self.server_name.clone(),
                BufReader::with_capacity(READ_AHEAD, tcp),
            )
            .await
            .map_err(|error| self.explain(Stage::Handshake, error))?;
        let session = stream.get_ref().1;
        let unknown = || "unknown".to_owned();
        let details = TlsDetails {
            address: peer,
            version: session
                .protocol_version()
                .and_then(|version| version.as_str())
                .map_or_else(unknown, |version| version.replace("TLSv1_", "TLSv1.")),
            cipher_suite: session
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .map_or_else(unknown, str::to_owned),
            key_exchange: session
                .negotiated_key_exchange_group()
                .map_or_else(unknown, |group| format!("{:?}", group.name())),
        };
        Ok((stream, details))
    }

    /// Converts an I/O error at this stage into its meaning and advice.
    pub(crate) fn explain(&self, stage: Stage, error: io::Error) -> ConnectError {
        let flaw = self.credentials.get().flaw(Timestamp::now());
        explain::explain(
            &self.address(),
            &self.server_name.to_str(),
            stage,
            error,
            explain::Own {
                client_id: self.client_id(),
                flaw: flaw.as_ref(),
            },
        )
    }
}

/// Sends small commands at once, and detects a dead peer.
fn set_options(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address; the error says why it is
/// invalid.
fn split_address(address: &str, default_port: u16) -> Result<(String, u16), &'static str> {
    const IN_BRACKETS: &str = "brackets enclose an IPv6 address, followed by a colon and the port";

    let (host, port) = if address.parse::<IpAddr>().is_ok() {
        (address, None)
    } else if let Some(rest) = address.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(IN_BRACKETS)?;
        host.parse::<Ipv6Addr>().map_err(|_| IN_BRACKETS)?;
        match (port, port.strip_prefix(':')) {
            ("", _) => (host, None),
            (_, Some(port)) => (host, Some(port)),
            (_, None) => return Err(IN_BRACKETS),
        }
    } else {
        match address.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("it has more than one colon, but is not an IPv6 address");
            }
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    let port = match port {
        // `parse` alone would also accept a plus sign.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port
            .parse()
            .ok()
            .filter(|&port| port != 0)
            .ok_or("a port is a number from 1 to 65535")?,
        Some(_) => return Err("a port is a number from 1 to 65535"),
        None => default_port,
    };
    if host.is_empty() {
        return Err("the host is missing");
    }
    if host.contains(|c: char| c.is_whitespace() || is_unsafe(c) || "/@\\?#".contains(c)) {
        return Err("a host's name has letters, digits, dots and hyphens");
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_or_without_a_port() {
        for (address, host, port) in [
            ("localhost:5672", "localhost", 5672),
            ("localhost", "localhost", 1),
            ("127.0.0.1:65535", "127.0.0.1", 65535),
            ("[::1]:80", "::1", 80),
            ("[::1]", "::1", 1),
            ("::1", "::1", 1),
        ] {
            assert_eq!(
                split_address(address, 1),
                Ok((host.to_owned(), port)),
                "{address}"
            );
        }
        for address in [
            "",
            "user@host:1",
            "h\u{202e}ost:1",
            "localhost:99999",
            "localhost:99999999999999999999",
            "::1:2:3:4:5:6:7:8:9",
            "[]:1",
            "[::1]:",
            "[::1]:0",
            "[127.0.0.1]:1",
            "host:1/path",
            ":5672",
            "host:",
            "host:0",
            "host:+1",
            "host:65536",
            "a:b:c",
            "[::1",
            "[host]:1",
            "[::1]1",
            "tls://host",
            "a b:1",
        ] {
            assert!(split_address(address, 1).is_err(), "{address}");
        }
    }
}
