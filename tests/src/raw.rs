//! A TLS socket that speaks the protocol's lines, with no logic of its own: it sends exactly the
//! bytes that the test gives, and compares replies exactly.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::SupportedKxGroup;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pki::Files;
use crate::{PATIENCE, Server};

/// Certificates and TLS settings of a [`RawClient`].
#[derive(Debug, Clone)]
pub struct Tls {
    ca: std::path::PathBuf,
    identity: Option<Files>,
    versions: Vec<&'static SupportedProtocolVersion>,
    server_name: String,
    key_exchange: Option<&'static dyn SupportedKxGroup>,
}

impl Tls {
    /// Creates settings that trust the CA at `ca`, present no certificate, offer TLS 1.3 and 1.2,
    /// and expect the server name `localhost`.
    pub fn trusting(ca: &Path) -> Self {
        Self {
            ca: ca.to_owned(),
            identity: None,
            versions: vec![&rustls::version::TLS13, &rustls::version::TLS12],
            server_name: "localhost".to_owned(),
            key_exchange: None,
        }
    }

    /// Presents this certificate.
    #[must_use]
    pub fn identity(mut self, identity: Files) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Offers only one version of TLS, such as `&rustls::version::TLS12`.
    #[must_use]
    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Expects the server name `name`.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.server_name);
        self
    }

    /// Offers only one key exchange group, such as `rustls::crypto::aws_lc_rs::kx_group::X25519`.
    #[must_use]
    pub fn key_exchange(mut self, group: &'static dyn SupportedKxGroup) -> Self {
        self.key_exchange = Some(group);
        self
    }

    /// Returns the configuration of rustls.
    pub fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca) {
            roots.add(certificate).expect("a CA certificate");
        }
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups.retain(|group| {
            self.key_exchange
                .is_none_or(|chosen| chosen.name() == group.name())
        });
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&self.versions)
            .expect("the provider knows both versions")
            .with_root_certificates(roots);
        let Some(identity) = &self.identity else {
            return config.with_no_client_auth();
        };
        let key = PrivateKeyDer::from_pem_file(&identity.key)
            .unwrap_or_else(|error| panic!("{}: {error}", identity.key.display()));
        config
            .with_client_auth_cert(certificates(&identity.certificate), key)
            .expect("certificate and key match")
    }
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A connection to a server.
pub struct RawClient {
    stream: BufReader<TlsStream<TcpStream>>,
    /// Beginning of an incomplete line, kept over a time-out.
    partial: Vec<u8>,
}

impl RawClient {
    /// Connects to `server` as the client `client_id`, with a valid certificate.
    ///
    /// # Panics
    ///
    /// If the handshake fails.
    pub async fn connect(server: &Server, client_id: &str) -> Self {
        let tls = Tls::trusting(&server.pki().ca()).identity(server.pki().client(client_id));
        Self::handshake(server.address(), &tls)
            .await
            .unwrap_or_else(|error| panic!("{client_id} cannot connect: {error}"))
    }

    /// Connects with any certificate, or none. In TLS 1.3 the client finishes the handshake before
    /// the server has verified its certificate, so that a refusal appears only at the first
    /// [`read`](Self::read_line).
    ///
    /// # Errors
    ///
    /// If the connection or the handshake fails.
    pub async fn handshake(address: SocketAddr, tls: &Tls) -> io::Result<Self> {
        let config = Arc::new(tls.config());
        let name =
            ServerName::try_from(tls.server_name.clone()).expect("a DNS name or an IP address");
        let connect = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(config).connect(name, tcp).await
        };
        let stream = tokio::time::timeout(PATIENCE, connect).await??;
        Ok(Self {
            stream: BufReader::new(stream),
            partial: Vec::new(),
        })
    }

    /// The negotiated version of TLS.
    pub fn tls_version(&self) -> Option<ProtocolVersion> {
        self.stream.get_ref().get_ref().1.protocol_version()
    }

    /// The negotiated key exchange group, such as `X25519MLKEM768`.
    pub fn key_exchange(&self) -> Option<rustls::NamedGroup> {
        self.stream
            .get_ref()
            .get_ref()
            .1
            .negotiated_key_exchange_group()
            .map(|group| group.name())
    }

    /// Sends `bytes` unchanged.
    ///
    /// # Errors
    ///
    /// If the connection has ended.
    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        let send = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        tokio::time::timeout(PATIENCE, send).await?
    }

    /// Sends `bytes` unchanged.
    ///
    /// # Panics
    ///
    /// If the connection has ended, or the server does not read from it.
    pub async fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref())
            .await
            .unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends a line, and appends the line ending.
    ///
    /// # Panics
    ///
    /// See [`send_bytes`](Self::send_bytes).
    pub async fn send_line(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n")).await;
    }

    /// Reads the next line, without its ending. Returns `None` at the end of the connection.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`] if the line is not complete after `limit` (an incomplete line is
    /// kept for the next call), [`io::ErrorKind::UnexpectedEof`] if the connection ends within it,
    /// [`io::ErrorKind::InvalidData`] if it is not UTF-8, or another I/O error.
    pub async fn read_line(&mut self, limit: Duration) -> io::Result<Option<String>> {
        let count =
            tokio::time::timeout(limit, self.stream.read_until(b'\n', &mut self.partial)).await??;
        let mut line = std::mem::take(&mut self.partial);
        if line.pop_if(|last| *last == b'\n').is_none() {
            return if count == 0 && line.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        String::from_utf8(line)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Reads as many bytes as `expected` has, which must be these.
    ///
    /// # Panics
    ///
    /// If they differ, or do not arrive within [`PATIENCE`].
    pub async fn expect_bytes(&mut self, expected: &[u8]) {
        let mut bytes = vec![0; expected.len()];
        let read = tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut bytes)).await;
        read.expect("the bytes in time").expect("a connection");
        assert_eq!(bytes, expected);
    }

    /// Discards an incomplete line, as clients do that take a pause for its end. Returns the number
    /// of discarded bytes.
    pub fn discard_partial(&mut self) -> usize {
        std::mem::take(&mut self.partial).len()
    }

    /// Reads the next line.
    ///
    /// # Panics
    ///
    /// If none arrives within [`PATIENCE`].
    pub async fn line(&mut self) -> String {
        match self.read_line(PATIENCE).await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("the server closed the connection instead of answering"),
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// Reads the next line, which must be exactly `expected`.
    ///
    /// # Panics
    ///
    /// If it differs, or none arrives.
    pub async fn expect(&mut self, expected: &str) {
        assert_eq!(self.line().await, expected);
    }

    /// Reads the next line, which must begin with `prefix`, and returns the rest of it.
    ///
    /// # Panics
    ///
    /// If it does not, or none arrives.
    pub async fn expect_prefix(&mut self, prefix: &str) -> String {
        let line = self.line().await;
        line.strip_prefix(prefix)
            .unwrap_or_else(|| panic!("{line:?} does not begin with {prefix:?}"))
            .to_owned()
    }

    /// Sends a command, and reads the next line, which must be exactly `expected`.
    ///
    /// # Panics
    ///
    /// If it differs, or none arrives.
    pub async fn ask(&mut self, command: &str, expected: &str) {
        self.send_line(command).await;
        let line = self.line().await;
        assert_eq!(line, expected, "in answer to {command:?}");
    }

    /// Acknowledges a message, and expects the confirmation.
    ///
    /// # Panics
    ///
    /// If the next line is another one, or none arrives.
    pub async fn ack(&mut self, id: &str) {
        self.ask(&format!("ack {id}"), &format!("ACK_CONFIRMED {id}"))
            .await;
    }

    /// Declares a queue and an exchange, and binds them, with one command each.
    ///
    /// # Panics
    ///
    /// If the server does not confirm it.
    pub async fn declare_and_bind(&mut self, queue: &str, exchange: &str, routing_key: &str) {
        self.ask(&format!("declare_queue {queue}"), "Queue declared")
            .await;
        self.ask(&format!("declare_exchange {exchange}"), "Exchange declared")
            .await;
        self.ask(
            &format!("bind {queue} {exchange} {routing_key}"),
            "Queue bound",
        )
        .await;
    }

    /// Checks that nothing arrives during `time`. Prefer sending `ping` and expecting `PONG`, which
    /// does not wait, and also shows that nothing was in transit.
    ///
    /// # Panics
    ///
    /// If anything arrives, or the connection ends.
    pub async fn expect_silence(&mut self, time: Duration) {
        match self.read_line(time).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && self.partial.is_empty() => {}
            other => panic!(
                "expected silence, got {other:?} and {:?}",
                String::from_utf8_lossy(&self.partial)
            ),
        }
    }

    /// Checks that the server closes the connection, properly or by an alert, without sending
    /// another line.
    ///
    /// # Panics
    ///
    /// If a line arrives, or the connection stays open.
    pub async fn expect_closed(&mut self) {
        match self.read_line(PATIENCE).await {
            Ok(Some(line)) => panic!("expected the connection's end, got {line:?}"),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                panic!("the connection stays open")
            }
            Ok(None) | Err(_) => {}
        }
    }

    /// Reads until the server closes the connection.
    ///
    /// # Errors
    ///
    /// If it does not end properly.
    pub async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.partial);
        tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await??;
        Ok(rest)
    }

    /// Closes the connection with a TLS close_notify, and waits until the server has closed it too,
    /// and so released everything that the client held.
    ///
    /// # Panics
    ///
    /// If the server does not close it.
    pub async fn end(mut self) {
        self.stream
            .get_mut()
            .shutdown()
            .await
            .expect("the connection is open");
        self.read_to_end()
            .await
            .expect("the server closes the connection");
    }

    /// Closes the connection without a TLS close_notify, as when a client dies, and waits until the
    /// server has closed it too.
    ///
    /// # Panics
    ///
    /// If the server does not close it.
    pub async fn close_abruptly(mut self) {
        let (tcp, _) = self.stream.get_mut().get_mut();
        tcp.shutdown().await.expect("the connection is open");
        self.expect_closed().await;
    }

    /// Closes the connection with a TLS close_notify, as a client that ends in an orderly way.
    /// Dropping the value closes it without.
    ///
    /// # Errors
    ///
    /// If the connection has already ended.
    pub async fn close(mut self) -> io::Result<()> {
        self.stream.get_mut().shutdown().await
    }
}
