//! TLS: which clients are accepted, under which client id, and how others are refused.

use std::time::Duration;

use ciphermq_tests::pki::{Files, Request};
use ciphermq_tests::raw::Tls;
use ciphermq_tests::server::Options;
use ciphermq_tests::{Authority, PATIENCE, Pki, RawClient, Server};
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Certificates that the server's authority issues, written to a temporary folder.
struct Certificates {
    pki: std::sync::Arc<Pki>,
    folder: tempfile::TempDir,
}

impl Certificates {
    fn of(server: &Server) -> Self {
        Self {
            pki: server.pki().clone(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn issue(&self, name: &str, request: Request) -> Files {
        self.pki
            .authority()
            .issue(request)
            .write(self.folder.path(), name)
    }

    fn trusting(&self) -> Tls {
        Tls::trusting(&self.pki.ca())
    }
}

/// Waits for a text on the server's console, and then in its error log.
async fn expect_logged(server: &Server, text: &str) {
    server.console().expect(text).await;
    let end = tokio::time::Instant::now() + PATIENCE;
    while !server
        .log("error")
        .iter()
        .any(|line| line.to_string().contains(text))
    {
        assert!(
            tokio::time::Instant::now() < end,
            "{text:?} is on the console, but not in the error log"
        );
        // The thread that writes the files sends no notification.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn certificates_that_do_not_verify_are_refused_in_the_handshake() {
    let server = Server::start(Options::sqlite()).await;
    let certificates = Certificates::of(&server);
    let folder = certificates.folder.path();
    let other_ca = Authority::new("CipherMQ test CA").client("sender_1");
    let server_usage = certificates.pki.authority().server(&["localhost"]);
    let expired = Request::client("expired").expired();
    let early = Request::client("early").not_yet_valid();
    let bad = [
        Some(other_ca.write(folder, "other_ca")),
        Some(certificates.issue("expired", expired)),
        Some(certificates.issue("early", early)),
        Some(server_usage.write(folder, "server_usage")),
        None,
    ];
    for identity in bad {
        let tls = certificates.trusting();
        let tls = identity.map_or(tls.clone(), |identity| tls.identity(identity));
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mark = server.console().mark();
            // In TLS 1.3 the refusal comes with the first read.
            if let Ok(mut client) =
                RawClient::handshake(server.address(), &tls.clone().version(version)).await
            {
                let _ = client.try_send(b"ping\n").await;
                client.expect_closed().await;
            }
            let logged = |line: &str| line.contains("TLS handshake failed").then_some(());
            assert_eq!(
                server.console().find(mark, PATIENCE, logged).await,
                Some(()),
                "{tls:?}"
            );
        }
    }
    // Other clients are not affected.
    RawClient::connect(&server, "good")
        .await
        .ask("ping", "PONG")
        .await;
}

#[tokio::test]
async fn certificates_without_a_usable_name_are_closed_after_the_handshake() {
    let server = Server::start(Options::sqlite()).await;
    let certificates = Certificates::of(&server);
    for (name, request, reason) in [
        (
            "none",
            Request::anonymous(),
            "the certificate has no Common Name",
        ),
        (
            "two",
            Request::client("one").also_named("two"),
            "the certificate has 2 Common Names, it must have one",
        ),
        (
            "space",
            Request::client("two words"),
            "cannot be a client id",
        ),
        (
            "control",
            Request::client("bell\u{7}"),
            "cannot be a client id",
        ),
        ("newline", Request::client("a\nb"), "cannot be a client id"),
        (
            "direction",
            Request::client("a\u{202e}b"),
            "cannot be a client id",
        ),
        ("empty", Request::client(""), "cannot be a client id"),
    ] {
        let mark = server.console().mark();
        let tls = certificates
            .trusting()
            .identity(certificates.issue(name, request));
        let mut client = RawClient::handshake(server.address(), &tls).await.unwrap();
        let _ = client.try_send(b"ping\n").await;
        client.expect_closed().await;
        let logged =
            |line: &str| (line.contains("names no client") && line.contains(reason)).then_some(());
        assert_eq!(
            server.console().find(mark, PATIENCE, logged).await,
            Some(()),
            "{name}"
        );
    }
    expect_logged(
        &server,
        "Connection closed: the certificate names no client",
    )
    .await;
    RawClient::connect(&server, "good")
        .await
        .ask("ping", "PONG")
        .await;
}

#[tokio::test]
async fn the_client_id_is_the_common_name_and_nothing_else() {
    let server = Server::start(Options::sqlite()).await;
    let certificates = Certificates::of(&server);
    let long = "n".repeat(64);
    for name in ["a", "Zürich→Bern", "receiver_1@example.org", &long] {
        // Alternative names are ignored, and extended key usages are optional.
        let request = Request::named(name).server_names(&["other.example"]);
        let files = certificates.issue(&format!("f{}", name.len()), request);
        let mut client =
            RawClient::handshake(server.address(), &certificates.trusting().identity(files))
                .await
                .unwrap();
        client.send_line("hello {\"client_id\":\"admin\"}").await;
        let hello: serde_json::Value =
            serde_json::from_str(&client.expect_prefix("Hello: ").await).unwrap();
        assert_eq!(hello["client_id"], name);
    }
}

#[tokio::test]
async fn the_hybrid_key_exchange_is_preferred_and_x25519_is_accepted() {
    let server = Server::start(Options::sqlite()).await;
    let certificates = Certificates::of(&server);
    let identity = certificates.pki.client("client");
    let tls = certificates.trusting().identity(identity.clone());
    let mut client = RawClient::handshake(server.address(), &tls).await.unwrap();
    assert_eq!(
        client.key_exchange(),
        Some(rustls::NamedGroup::X25519MLKEM768)
    );
    client.ask("ping", "PONG").await;
    // A client without support for it.
    let plain = tls.key_exchange(rustls::crypto::aws_lc_rs::kx_group::X25519);
    let mut client = RawClient::handshake(server.address(), &plain)
        .await
        .unwrap();
    assert_eq!(client.key_exchange(), Some(rustls::NamedGroup::X25519));
    client.ask("ping", "PONG").await;
}

#[tokio::test]
async fn other_protocols_and_older_tls_versions_are_refused() {
    let server = Server::start(Options::sqlite()).await;
    // A ClientHello of TLS 1.1: version 3.2, one cipher suite of its time, no extensions.
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    for (what, bytes) in [
        (
            "HTTP",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        ("a command", b"declare_queue q\n".to_vec()),
        ("zeros", vec![0; 100_000]),
        ("TLS 1.1", hello),
    ] {
        let mark = server.console().mark();
        let mut socket = TcpStream::connect(server.address()).await.unwrap();
        // The server may close it before everything has been sent.
        let _ = socket.write_all(&bytes).await;
        let mut answer = Vec::new();
        let end = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
        end.unwrap_or_else(|_| panic!("{what}: the connection stays open"))
            .ok();
        // An alert at most: 7 bytes.
        assert!(answer.len() <= 7, "{what}: {answer:?}");
        let logged = |line: &str| line.contains("TLS handshake failed").then_some(());
        assert_eq!(
            server.console().find(mark, PATIENCE, logged).await,
            Some(()),
            "{what}"
        );
    }
    // A connection that is closed without a handshake.
    drop(TcpStream::connect(server.address()).await.unwrap());
    RawClient::connect(&server, "good")
        .await
        .ask("ping", "PONG")
        .await;
}

#[tokio::test]
async fn unfinished_handshakes_time_out_and_do_not_delay_others() {
    let server = Server::start(Options::sqlite().set("limits", "handshake_timeout", "700ms")).await;
    let mut idle = Vec::new();
    for index in 0..50 {
        let mut socket = TcpStream::connect(server.address()).await.unwrap();
        if index % 2 == 0 {
            socket.write_all(&[0x16, 3, 1, 2]).await.unwrap();
        }
        idle.push(socket);
    }
    // While they all wait, other clients are served.
    let start = tokio::time::Instant::now();
    RawClient::connect(&server, "good")
        .await
        .ask("ping", "PONG")
        .await;
    assert!(
        start.elapsed() < Duration::from_millis(650),
        "{:?}",
        start.elapsed()
    );
    for mut socket in idle {
        let mut answer = Vec::new();
        let end = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "an unfinished handshake does not time out");
    }
    expect_logged(&server, "TLS handshake failed").await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_until_one_ends() {
    let server = Server::start(Options::sqlite().set("limits", "max_connections", 2)).await;
    let mut one = RawClient::connect(&server, "one").await;
    let mut two = RawClient::connect(&server, "two").await;
    let tls = Tls::trusting(&server.pki().ca()).identity(server.pki().client("three"));
    let mut refused = RawClient::handshake(server.address(), &tls).await.unwrap();
    let reason = refused.expect_prefix("Error: overloaded: ").await;
    assert!(reason.contains("limits.max_connections"), "{reason}");
    refused.expect_closed().await;
    expect_logged(&server, "limits.max_connections is reached").await;
    for client in [&mut one, &mut two] {
        client.ask("ping", "PONG").await;
    }
    drop(one);
    server.console().expect("Client disconnected").await;
    // Its slot is released before the log line.
    let mut three = RawClient::handshake(server.address(), &tls).await.unwrap();
    three.ask("ping", "PONG").await;
}

/// Expects that the server does not start, with exit code 1, and reports the cause and the fix.
async fn expect_refusal(options: Options, texts: &[&str]) {
    let refusal = Server::refused(options).await;
    let error = refusal.expect_error(texts);
    assert!(
        error.lines().count() >= 2,
        "the error has no advice: {error}"
    );
}

#[tokio::test]
async fn unusable_certificates_prevent_the_server_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let stranger = Authority::new("other")
        .server(&["localhost"])
        .write(folder.path(), "stranger");
    std::fs::write(path("empty"), "").unwrap();
    std::fs::write(path("text"), "this is not a certificate").unwrap();
    let with = |field: &str, file: String| Options::sqlite().set("tls", field, file);
    let missing = path("missing.pem");

    let other_key = stranger.key.display().to_string();
    expect_refusal(
        with("key_path", other_key),
        &["cert_path and key_path", "cannot be used together"],
    )
    .await;
    // The server's own certificate after another one.
    let [own, key] = [&stranger.certificate, &stranger.key].map(|path| path.display().to_string());
    let other = Authority::new("between").server(&["localhost"]);
    let swapped = other.certificate_pem() + &std::fs::read_to_string(&own).unwrap();
    std::fs::write(path("swapped.crt"), swapped).unwrap();
    expect_refusal(
        with("cert_path", path("swapped.crt")).set("tls", "key_path", key),
        &["cert_path", "number 2 in it", "must come first"],
    )
    .await;
    for field in ["cert_path", "key_path", "ca_cert_path"] {
        expect_refusal(with(field, missing.clone()), &[field, &missing]).await;
        expect_refusal(with(field, path("empty")), &[field, &path("empty")]).await;
        expect_refusal(with(field, path("text")), &[field, &path("text")]).await;
        expect_refusal(with(field, path("")), &[field]).await;
    }
    let certificate = stranger.certificate.display().to_string();
    expect_refusal(
        with("key_path", certificate.clone()),
        &["key_path", &certificate],
    )
    .await;
    assert!(rustls::pki_types::CertificateDer::from_pem_file(&certificate).is_ok());
}

#[tokio::test]
async fn a_port_in_use_is_reported() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let options = Options::sqlite().set("server", "address", address.clone());
    expect_refusal(
        options,
        &[
            "[server] address",
            &address,
            "Another program listens there",
        ],
    )
    .await;
    let options = Options::sqlite().set("server", "address", "192.0.2.1:7");
    expect_refusal(options, &["[server] address", "192.0.2.1:7"]).await;
}
