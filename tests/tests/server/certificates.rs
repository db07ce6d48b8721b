//! Certificates that end, are renewed or are revoked while the server runs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ciphermq_tests::pki::{Files, Identity, Request};
use ciphermq_tests::raw::Tls;
use ciphermq_tests::server::Options;
use ciphermq_tests::{Authority, Pki, RawClient, Server};
use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The end of a list that is in force for the whole test.
pub(crate) const NOT_SOON: u64 = 4_000_000_000;

/// Returns the second in which a time from now on lies, since the Unix epoch.
fn in_seconds(seconds: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() + seconds
}

pub(crate) async fn connect(server: &Server, identity: &Files) -> RawClient {
    let tls = Tls::trusting(&server.pki().ca()).identity(identity.clone());
    let mut client = RawClient::handshake(server.address(), &tls).await.unwrap();
    client.ask("ping", "PONG").await;
    client
}

/// Checks that a client does not get in.
async fn expect_refused(server: &Server, identity: &Files) {
    let tls = Tls::trusting(&server.pki().ca()).identity(identity.clone());
    // In TLS 1.3 the refusal comes with the first read.
    if let Ok(mut client) = RawClient::handshake(server.address(), &tls).await {
        let _ = client.try_send(b"ping\n").await;
        client.expect_closed().await;
    }
}

/// Expects the last line of a connection that ends because of its certificate.
pub(crate) async fn expect_ended(mut client: RawClient, why: &str) {
    let last = client.line().await;
    let expected = format!("Error: bad_certificate: the client's certificate {why}");
    assert!(last.starts_with(&expected), "{last}");
    client.expect_closed().await;
}

pub(crate) fn replace(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn replace_server_certificate(pki: &Pki, identity: &Identity) {
    replace(
        &pki.folder().join("server.crt"),
        &identity.certificate_pem(),
    );
    replace(&pki.folder().join("server.key"), &identity.key_pem());
}

async fn server_with_own_authority(options: Options) -> Server {
    Server::start(options.pki(Arc::new(Pki::new()))).await
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let server = server_with_own_authority(Options::sqlite()).await;
    let authority = server.pki().authority();
    let folder = tempfile::tempdir().unwrap();
    let identity = authority
        .issue(Request::client("short").until(in_seconds(4)))
        .write(folder.path(), "short");
    let mut other = RawClient::connect(&server, "other").await;
    let client = connect(&server, &identity).await;
    expect_ended(client, "expired at ").await;
    let logged = "Connection ended: the client's certificate expired at";
    server.console().expect(logged).await;
    expect_refused(&server, &identity).await;
    other.ask("ping", "PONG").await;
}

#[tokio::test]
async fn a_connection_ends_with_its_authority() {
    let name = "short authority";
    let authority = Authority::until(name, in_seconds(6));
    let renewed = authority.renewed(name);
    let pki = Arc::new(Pki::of(authority));
    let ended = pki.authority().certificate_pem();
    let next = Authority::new("the next authority");
    let folder = tempfile::tempdir().unwrap();
    let other = next.client("other").write(folder.path(), "other");
    let trusted = folder.path().join("ca.crt");
    replace(&trusted, &ended);
    replace(
        &pki.ca(),
        &[ended.as_str(), &next.certificate_pem()].concat(),
    );
    let server = Server::start(Options::sqlite().pki(Arc::clone(&pki))).await;
    let connect_other = async || {
        let tls = Tls::trusting(&trusted).identity(other.clone());
        RawClient::handshake(server.address(), &tls).await.unwrap()
    };
    let mut kept = connect_other().await;
    let identity = pki.client("client");
    let client = connect(&server, &identity).await;
    expect_ended(
        client,
        "was issued by an authority whose own certificate expired at ",
    )
    .await;
    expect_refused(&server, &identity).await;
    let failed = server.console().expect("TLS handshake failed").await;
    assert!(
        failed.contains("whose own certificate expired at"),
        "{failed}"
    );
    kept.ask("ping", "PONG").await;
    connect_other().await.ask("ping", "PONG").await;

    // It is renewed: one of the two that have its name is valid.
    let both = [ended.as_str(), &renewed.certificate_pem()].concat();
    replace(&pki.ca(), &both);
    server.hang_up().await;
    connect(&server, &identity).await;
}

/// A client that would resume its session is verified again each time, with both versions.
#[tokio::test]
async fn no_session_is_resumed() {
    let server = server_with_own_authority(Options::sqlite()).await;
    let identity = server.pki().client("client");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tls = Tls::trusting(&server.pki().ca())
            .identity(identity.clone())
            .version(version);
        // It keeps tickets and session ids in memory, unless it is told not to.
        let connector = TlsConnector::from(Arc::new(tls.config()));
        for round in 0..3 {
            let tcp = TcpStream::connect(server.address()).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = connector.connect(name, tcp).await.unwrap();
            // Tickets come after the handshake.
            stream.write_all(b"ping\n").await.unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"PONG\n");
            let connection = stream.get_ref().1;
            let kind = connection.handshake_kind();
            let is_full = matches!(
                kind,
                Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
            );
            assert!(is_full, "{version:?}, connection {round}: {kind:?}");
            stream.shutdown().await.unwrap();
        }
    }
}

/// The fingerprint of the certificate that the server shows.
pub(crate) async fn shown_certificate(server: &Server) -> Vec<u8> {
    let tls = Tls::trusting(&server.pki().ca()).identity(server.pki().client("looker"));
    let connector = TlsConnector::from(Arc::new(tls.config()));
    let tcp = TcpStream::connect(server.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, tcp).await.unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    drop(stream);
    shown
}

#[tokio::test]
async fn a_renewed_server_certificate_is_shown_and_no_connection_is_lost() {
    let server = server_with_own_authority(Options::sqlite()).await;
    let pki = Arc::clone(server.pki());
    let mut client = RawClient::connect(&server, "client").await;
    client.declare_and_bind("q", "e", "k").await;
    let renewed = pki.authority().server(&["localhost", "127.0.0.1"]);
    assert_ne!(
        shown_certificate(&server).await,
        renewed.certificate_der().to_vec()
    );
    replace_server_certificate(&pki, &renewed);
    let line = server.hang_up().await;
    assert!(
        line.contains("is read again, with its certificates"),
        "{line}"
    );
    assert_eq!(
        shown_certificate(&server).await,
        renewed.certificate_der().to_vec()
    );
    client.ask("ping", "PONG").await;

    // A certificate without its key changes nothing, and neither does the rest of the
    // configuration then.
    let other = pki.authority().server(&["localhost", "127.0.0.1"]);
    replace(&pki.folder().join("server.crt"), &other.certificate_pem());
    let line = server.hang_up().await;
    assert!(line.contains("everything stays as it is"), "{line}");
    assert!(line.contains("do not belong together"), "{line}");
    assert_eq!(
        shown_certificate(&server).await,
        renewed.certificate_der().to_vec()
    );
    client.ask("ping", "PONG").await;
}

#[tokio::test]
async fn an_authority_that_is_added_or_removed_admits_or_ends_its_clients() {
    let server = server_with_own_authority(Options::sqlite()).await;
    let pki = Arc::clone(server.pki());
    let folder = tempfile::tempdir().unwrap();
    let new_authority = Authority::new("the next authority");
    let new_client = new_authority.client("new").write(folder.path(), "new");
    let trusted = Tls::trusting(&pki.ca());
    let mut old = RawClient::connect(&server, "old").await;
    expect_refused(&server, &new_client).await;

    let old_pem = std::fs::read_to_string(pki.ca()).unwrap();
    let both = format!("{old_pem}{}", new_authority.certificate_pem());
    replace(&pki.ca(), &both);
    server.hang_up().await;
    let mut new = connect(&server, &new_client).await;
    old.ask("ping", "PONG").await;

    replace(&pki.ca(), &new_authority.certificate_pem());
    server.hang_up().await;
    expect_ended(old, "was not issued by an authority that is trusted here").await;
    new.ask("ping", "PONG").await;
    // The server itself still shows the certificate of the old one.
    let refused = trusted.identity(pki.client("old"));
    if let Ok(mut client) = RawClient::handshake(server.address(), &refused).await {
        let _ = client.try_send(b"ping\n").await;
        client.expect_closed().await;
    }
}

#[tokio::test]
async fn a_revoked_client_is_ended_and_refused_and_others_are_not() {
    let pki = Arc::new(Pki::new());
    let list = pki.folder().join("ca.crl");
    replace(&list, &pki.authority().revocation_list(1, &[], NOT_SOON));
    let options = Options::sqlite().set("tls", "crl_paths", vec![list.display().to_string()]);
    let server = Server::start(options.pki(Arc::clone(&pki))).await;
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (
        pki.authority().client("lost"),
        pki.authority().client("lost"),
    );
    let stolen = first.write(folder.path(), "first");
    let mut kept = RawClient::connect(&server, "kept").await;
    let client = connect(&server, &stolen).await;

    let revoked = [&first.certificate_der()];
    replace(
        &list,
        &pki.authority().revocation_list(2, &revoked, NOT_SOON),
    );
    server.hang_up().await;
    let ended = expect_ended(client, "is revoked");
    tokio::time::timeout(Duration::from_secs(5), ended)
        .await
        .unwrap();
    expect_refused(&server, &stolen).await;
    let failed = server.console().expect("TLS handshake failed").await;
    assert!(
        failed.contains("the client's certificate is revoked"),
        "{failed}"
    );
    kept.ask("ping", "PONG").await;
    // A certificate is revoked, not a name.
    connect(&server, &second.write(folder.path(), "second")).await;
}

#[tokio::test]
async fn required_lists_have_to_be_there_and_in_force() {
    let pki = Arc::new(Pki::new());
    let list = pki.folder().join("ca.crl");
    let required = || {
        Options::sqlite()
            .pki(Arc::clone(&pki))
            .set("tls", "crl_policy", "required")
    };
    let refused = Server::refused(required()).await;
    refused.expect_error(&["[tls] crl_policy", "crl_paths names none"]);

    let options = || required().set("tls", "crl_paths", vec![list.display().to_string()]);
    let refused = Server::refused(options()).await;
    refused.expect_error(&["[tls] crl_paths: cannot read a revocation list"]);
    replace(&list, "-----BEGIN CERTIFICATE-----\n");
    let refused = Server::refused(options()).await;
    refused.expect_error(&["[tls] crl_paths: there is", "RFC 5280"]);

    let blank = Server::refused(required().set("tls", "crl_paths", vec![""])).await;
    blank.expect_error(&["[tls] crl_paths", "it is empty"]);
    // The authority was made again, under the same name.
    let again = Authority::new("CipherMQ test CA");
    replace(&list, &again.revocation_list(1, &[], NOT_SOON));
    let refused = Server::refused(options()).await;
    refused.expect_error(&["[tls] crl_paths", "was not signed by it"]);
    // Only one of two would be looked at.
    let lists = [1, 2].map(|number| pki.authority().revocation_list(number, &[], NOT_SOON));
    replace(&list, &lists.concat());
    let refused = Server::refused(options()).await;
    refused.expect_error(&["[tls] crl_paths", "both hold a revocation list of"]);

    // Another authority's list says nothing.
    let other = Authority::new("another authority");
    replace(&list, &other.revocation_list(1, &[], NOT_SOON));
    let server = Server::start(options()).await;
    expect_refused(&server, &pki.client("client")).await;
    server
        .console()
        .expect("may be revoked: no revocation list covers it")
        .await;

    // A list that ends takes its authority's clients with it.
    let end = in_seconds(5);
    replace(&list, &pki.authority().revocation_list(2, &[], end));
    server.hang_up().await;
    server
        .console()
        .expect("[tls] crl_paths: a revocation list ends within a day")
        .await;
    let client = connect(&server, &pki.client("client")).await;
    expect_ended(
        client,
        "may be revoked: its authority's revocation list ended",
    )
    .await;
    expect_refused(&server, &pki.client("client")).await;

    replace(&list, &pki.authority().revocation_list(3, &[], NOT_SOON));
    server.hang_up().await;
    connect(&server, &pki.client("client")).await;
}

#[tokio::test]
async fn the_end_of_the_servers_own_certificate_is_announced() {
    let pki = Arc::new(Pki::new());
    let day = 24 * 60 * 60;
    let soon = |seconds| {
        let request = Request::named("localhost")
            .server_names(&["localhost", "127.0.0.1"])
            .until(in_seconds(seconds));
        pki.authority().issue(request)
    };
    replace_server_certificate(&pki, &soon(10 * day));
    let server = Server::start(Options::sqlite().pki(Arc::clone(&pki))).await;
    let announced = "[tls] cert_path: a certificate ends within 14 days, at";
    server.console().expect(announced).await;
    replace_server_certificate(&pki, &soon(day / 2));
    server.hang_up().await;
    let announced = "[tls] cert_path: a certificate ends within a day, at";
    server.console().expect(announced).await;
    replace_server_certificate(&pki, &soon(20 * day));
    let mark = server.console().mark();
    server.hang_up().await;
    let warned = |line: &str| line.contains("a certificate ends").then_some(());
    let found = server
        .console()
        .find(mark, Duration::from_millis(300), warned);
    assert_eq!(found.await, None);
}
