//! The raw TLS client reads and refuses what it should.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ciphermq_tests::pki::openssl::OpensslAuthority;
use ciphermq_tests::pki::{Files, Request};
use ciphermq_tests::raw::Tls;
use ciphermq_tests::{Authority, Pki, RawClient};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A server that demands a certificate of one of these CAs, and sends back all that it gets.
async fn echo(server: Files, client_cas: &[std::path::PathBuf]) -> SocketAddr {
    let mut roots = RootCertStore::empty();
    for ca in client_cas {
        roots
            .add(CertificateDer::from_pem_file(ca).unwrap())
            .unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(server.certificate).unwrap()],
            PrivateKeyDer::from_pem_file(server.key).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(tcp).await?;
                let mut bytes = [0; 4096];
                loop {
                    let count = stream.read(&mut bytes).await?;
                    if count == 0 {
                        return stream.shutdown().await;
                    }
                    stream.write_all(&bytes[..count]).await?;
                    stream.flush().await?;
                }
            });
        }
    });
    address
}

fn server_files(pki: &Pki) -> Files {
    Files {
        certificate: pki.folder().join("server.crt"),
        key: pki.folder().join("server.key"),
    }
}

#[tokio::test]
async fn lines_are_exchanged_whole_however_they_arrive() {
    let pki = Pki::new();
    let address = echo(server_files(&pki), &[pki.ca()]).await;
    let tls = Tls::trusting(&pki.ca()).identity(pki.client("sender_1"));
    let mut client = RawClient::handshake(address, &tls).await.unwrap();
    client.ask("ping", "ping").await;
    client.send_bytes("one\ntw").await;
    client.expect("one").await;
    let early = client.read_line(Duration::from_millis(50)).await;
    assert_eq!(early.unwrap_err().kind(), io::ErrorKind::TimedOut);
    client.send_bytes("o\n").await;
    client.expect("two").await;
    client.expect_silence(Duration::from_millis(20)).await;
    client.send_line("ACK 17").await;
    assert_eq!(client.expect_prefix("ACK ").await, "17");
}

#[tokio::test]
#[should_panic(expected = "Queue declared")]
async fn another_line_than_the_expected_one_fails_the_test() {
    let pki = Pki::new();
    let address = echo(server_files(&pki), &[pki.ca()]).await;
    let tls = Tls::trusting(&pki.ca()).identity(pki.client("sender_1"));
    let mut client = RawClient::handshake(address, &tls).await.unwrap();
    client.ask("declare_queue q", "Queue declared").await;
}

#[tokio::test]
async fn the_chosen_tls_version_is_the_one_in_use() {
    let pki = Pki::new();
    let address = echo(server_files(&pki), &[pki.ca()]).await;
    let tls = Tls::trusting(&pki.ca()).identity(pki.client("sender_1"));
    for (version, name) in [
        (&rustls::version::TLS12, "TLSv1_2"),
        (&rustls::version::TLS13, "TLSv1_3"),
    ] {
        let client = RawClient::handshake(address, &tls.clone().version(version))
            .await
            .unwrap();
        assert_eq!(
            client.tls_version().and_then(|version| version.as_str()),
            Some(name)
        );
    }
    let client = RawClient::handshake(address, &tls).await.unwrap();
    assert_eq!(
        client.key_exchange(),
        Some(rustls::NamedGroup::X25519MLKEM768)
    );
}

#[tokio::test]
async fn certificates_are_accepted_and_refused_as_they_deserve() {
    let pki = Pki::new();
    let older = OpensslAuthority::new();
    let address = echo(server_files(&pki), &[pki.ca(), older.ca()]).await;
    let folder = tempfile::tempdir().unwrap();
    let write = |request, name| pki.authority().issue(request).write(folder.path(), name);
    let trusting = Tls::trusting(&pki.ca());

    let good = [
        pki.client("sender_1"),
        older.issue("without_names", None),
        older.issue("with_names", Some("DNS:localhost")),
        write(Request::named("no_usage"), "no_usage"),
        write(Request::anonymous(), "anonymous"),
    ];
    for identity in good {
        let mut client = RawClient::handshake(address, &trusting.clone().identity(identity))
            .await
            .unwrap();
        client.ask("ping", "ping").await;
    }

    let bad = [
        Some(
            Authority::new("CipherMQ test CA")
                .client("sender_1")
                .write(folder.path(), "other_ca"),
        ),
        Some(write(Request::client("expired").expired(), "expired")),
        Some(write(Request::client("early").not_yet_valid(), "early")),
        Some(
            pki.authority()
                .server(&["localhost"])
                .write(folder.path(), "server_usage"),
        ),
        None,
    ];
    for identity in bad {
        let tls = identity.map_or(trusting.clone(), |identity| {
            trusting.clone().identity(identity)
        });
        // In TLS 1.3 the refusal comes with the first read, in 1.2 within the handshake.
        let mut client =
            RawClient::handshake(address, &tls.clone().version(&rustls::version::TLS13))
                .await
                .unwrap();
        client.expect_closed().await;
        assert!(
            RawClient::handshake(address, &tls.version(&rustls::version::TLS12))
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn a_server_of_another_ca_or_another_name_is_refused() {
    let pki = Pki::new();
    let address = echo(server_files(&pki), &[pki.ca()]).await;
    let identity = pki.client("sender_1");
    let stranger = Pki::new();
    let other = Tls::trusting(&stranger.ca()).identity(identity.clone());
    assert!(RawClient::handshake(address, &other).await.is_err());
    let elsewhere = Tls::trusting(&pki.ca())
        .identity(identity)
        .server_name("example.org");
    assert!(RawClient::handshake(address, &elsewhere).await.is_err());
}

#[tokio::test]
async fn closing_in_good_order_is_answered_with_the_connections_end() {
    let pki = Pki::new();
    let address = echo(server_files(&pki), &[pki.ca()]).await;
    let tls = Tls::trusting(&pki.ca()).identity(pki.client("sender_1"));
    let mut client = RawClient::handshake(address, &tls).await.unwrap();
    client.ask("ping", "ping").await;
    client.close().await.unwrap();
}
