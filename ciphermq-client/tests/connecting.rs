//! Failures to connect, over real sockets and real TLS: each with its kind and with advice.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ciphermq_client::{Backoff, Client, ClientBuilder, ConnectError, ConnectErrorKind, Event};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const HELLO: &str = r#"Hello: {"server":"test","version":"1","protocol":1,"client_id":"me","limits":{"max_line_bytes":1000,"max_prefetch":5,"redelivery_timeout_ms":30000,"storage_wait_ms":8000}}"#;

/// A certificate authority for one test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Identity {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

/// Listens, and passes every connection to `serve` after the TLS handshake.
async fn server<F, S>(
    identity: &Identity,
    clients: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    serve: S,
) -> SocketAddr
where
    S: Fn(TlsStream<TcpStream>) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(clients.pem().as_bytes()).unwrap())
        .unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(tls) = acceptor.accept(tcp).await {
                serve(tls).await;
            }
        }
    });
    address
}

/// Answers `hello` and every `ping`, until the client disconnects.
async fn answer(tls: TlsStream<TcpStream>) {
    let mut tls = BufReader::new(tls);
    let mut line = String::new();
    while matches!(tls.read_line(&mut line).await, Ok(1..)) {
        let reply = if line.starts_with("hello") {
            HELLO
        } else {
            "PONG"
        };
        if tls
            .write_all(format!("{reply}\n").as_bytes())
            .await
            .is_err()
            || tls.flush().await.is_err()
        {
            return;
        }
        line.clear();
    }
}

/// A server that reports another client id than the certificate's may have been reached through
/// somebody who connected to it with a certificate of their own.
#[tokio::test]
async fn a_server_that_sees_another_client_id_is_refused() {
    let ca = Authority::new();
    let address = server(&ca.issue("localhost"), &ca, BOTH, answer).await;
    let error = error(client(address, &ca, &ca.issue("you"))).await;
    assert_eq!(error.kind(), ConnectErrorKind::OtherClient);
    let message = error.to_string();
    assert!(
        message.contains("for `me`") && message.contains("names `you`"),
        "{message}"
    );
    assert!(
        error
            .advice()
            .unwrap()
            .contains("Connect to the server itself")
    );
}

async fn close_at_once(tls: TlsStream<TcpStream>) {
    drop(tls);
}

fn client(address: SocketAddr, ca: &Authority, identity: &Identity) -> ClientBuilder {
    Client::builder(address.to_string())
        .server_name("localhost")
        .ca_pem(ca.pem())
        .identity_pem(identity.certificate.clone(), identity.key.clone())
        .connect_timeout(Duration::from_secs(5))
}

async fn error(builder: ClientBuilder) -> ConnectError {
    builder.connect().await.map(|_| ()).unwrap_err()
}

fn assert_error(error: &ConnectError, kind: ConnectErrorKind, part: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(part), "{error}");
    assert!(
        error.advice().is_some_and(|advice| !advice.is_empty()),
        "{error}"
    );
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

#[tokio::test]
async fn a_connection_reports_its_negotiated_properties() {
    let ca = Authority::new();
    let address = server(&ca.issue("localhost"), &ca, BOTH, answer).await;
    let client = client(address, &ca, &ca.issue("me"))
        .connect()
        .await
        .unwrap();
    let connection = client.connection();
    assert_eq!(
        (
            client.id().as_str(),
            connection.server.limits.max_line_bytes
        ),
        ("me", 1000)
    );
    assert_eq!(
        (
            connection.tls_version.as_str(),
            connection.key_exchange.as_str()
        ),
        ("TLSv1.3", "X25519MLKEM768")
    );
    assert!(client.ping().await.unwrap() < Duration::from_secs(5));
    client.close().await;
    assert!(client.ping().await.is_err());
}

#[tokio::test]
async fn the_servers_certificate_must_come_from_the_ca_and_be_for_the_name() {
    let (ca, other) = (Authority::new(), Authority::new());
    let me = ca.issue("me");
    let foreign = server(&other.issue("localhost"), &ca, BOTH, answer).await;
    assert_error(
        &error(client(foreign, &ca, &me)).await,
        ConnectErrorKind::ServerCertificate,
        "has the signature of another",
    );
    let elsewhere = server(&ca.issue("elsewhere.example"), &ca, BOTH, answer).await;
    assert_error(
        &error(client(elsewhere, &ca, &me)).await,
        ConnectErrorKind::ServerName,
        "elsewhere.example",
    );
    client(elsewhere, &ca, &me)
        .server_name("elsewhere.example")
        .connect()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_refused_client_certificate_is_reported_with_both_tls_versions() {
    let (ca, other) = (Authority::new(), Authority::new());
    for version in BOTH {
        let address = server(&ca.issue("localhost"), &ca, &[version], answer).await;
        let error = error(client(address, &ca, &other.issue("me"))).await;
        assert_error(
            &error,
            ConnectErrorKind::CertificateRefused,
            "refused this client's certificate",
        );
    }
}

#[tokio::test]
async fn a_silent_close_after_the_handshake_suggests_a_refused_certificate() {
    let ca = Authority::new();
    let address = server(&ca.issue("localhost"), &ca, BOTH, close_at_once).await;
    let error = error(client(address, &ca, &ca.issue("me"))).await;
    assert_error(
        &error,
        ConnectErrorKind::CertificateRefused,
        "right after the TLS handshake",
    );
}

#[tokio::test]
async fn a_closed_port_and_another_service_are_distinguished() {
    let ca = Authority::new();
    let me = ca.issue("me");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let web = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        // Waits until the other side closes, so that the reply is not lost.
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    });
    assert_error(
        &error(client(address, &ca, &me)).await,
        ConnectErrorKind::NoTls,
        "does not speak TLS",
    );
    web.await.unwrap();
    assert_error(
        &error(client(address, &ca, &me)).await,
        ConnectErrorKind::Refused,
        &address.to_string(),
    );
    let unknown = Client::builder("no-such-host.invalid")
        .ca_pem(ca.pem())
        .identity_pem(me.certificate, me.key);
    assert_error(
        &error(unknown).await,
        ConnectErrorKind::UnknownHost,
        "no-such-host.invalid",
    );
}

#[tokio::test]
async fn a_silent_server_times_out() {
    let ca = Authority::new();
    let silent = |mut tls: TlsStream<TcpStream>| async move {
        let _ = tls.read_to_end(&mut Vec::new()).await;
    };
    let address = server(&ca.issue("localhost"), &ca, BOTH, silent).await;
    let builder = client(address, &ca, &ca.issue("me")).connect_timeout(Duration::from_millis(300));
    assert_error(
        &error(builder).await,
        ConnectErrorKind::TimedOut,
        "did not answer",
    );
}

#[tokio::test]
async fn tls_with_another_protocol_is_reported() {
    let ca = Authority::new();
    let web = |mut tls: TlsStream<TcpStream>| async move {
        let _ = tls.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = tls.read_to_end(&mut Vec::new()).await;
    };
    let address = server(&ca.issue("localhost"), &ca, BOTH, web).await;
    let error = error(client(address, &ca, &ca.issue("me"))).await;
    assert_error(&error, ConnectErrorKind::Protocol, "not this protocol");
}

#[tokio::test]
async fn a_lost_connection_is_restored_and_reported() {
    let ca = Authority::new();
    // Answers hello and one ping, then disconnects.
    let fickle = |tls: TlsStream<TcpStream>| async move {
        let mut tls = BufReader::new(tls);
        for reply in [HELLO, "PONG"] {
            let mut line = String::new();
            tls.read_line(&mut line).await.unwrap();
            tls.write_all(format!("{reply}\n").as_bytes())
                .await
                .unwrap();
            tls.flush().await.unwrap();
        }
    };
    let address = server(&ca.issue("localhost"), &ca, BOTH, fickle).await;
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(10)).unwrap();
    let client = client(address, &ca, &ca.issue("me"))
        .reconnect(backoff)
        .connect()
        .await
        .unwrap();
    let mut events = client.events();
    for _ in 0..3 {
        // Each is answered on another connection.
        client.ping().await.unwrap();
    }
    client.close().await;
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(event);
    }
    assert!(
        seen.iter()
            .any(|event| matches!(event, Event::Reconnecting { attempt: 1.., .. })),
        "{seen:?}"
    );
    assert!(matches!(seen.last(), Some(Event::Closed)), "{seen:?}");
}
