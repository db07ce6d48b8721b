//! `get_crl` and `list_ends`: clients get the server's revocation lists, byte for byte, and learn
//! when its certificates end.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciphermq_client::{Client, RequestErrorKind};
use ciphermq_tests::pki::Request;
use ciphermq_tests::server::Options;
use ciphermq_tests::{Authority, Cli, Pki, RawClient, Server, sdk};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::certificates::{NOT_SOON, replace};

fn der(pem: &str) -> Vec<u8> {
    let list = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap();
    list.to_vec()
}

/// The reply that carries these lists.
fn reply(lists: &[&str]) -> String {
    let encode = |pem: &&str| format!("\"{}\"", BASE64_STANDARD.encode(der(pem)));
    let lists: Vec<String> = lists.iter().map(encode).collect();
    format!("Revocation lists: [{}]", lists.join(","))
}

async fn connect(server: &Server, id: &str) -> Client {
    let identity = server.pki().client(id);
    Client::builder(format!("localhost:{}", server.address().port()))
        .ca_file(server.pki().ca())
        .identity_files(identity.certificate, identity.key)
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn clients_get_the_lists_that_are_in_force() {
    let pki = Arc::new(Pki::new());
    let (pem, binary) = (pki.folder().join("ca.crl"), pki.folder().join("other.crl"));
    let old = pki.authority().revocation_list(1, &[], NOT_SOON);
    let other = Authority::new("another authority").revocation_list(7, &[], NOT_SOON);
    replace(&pem, &old);
    std::fs::write(&binary, der(&other)).unwrap();
    let paths = [&pem, &binary].map(|path| path.display().to_string());
    let options = Options::sqlite()
        .set("tls", "crl_paths", paths.to_vec())
        .set("limits", "max_line_bytes", "2KiB");
    let server = Server::start(options.pki(Arc::clone(&pki))).await;
    let mut client = RawClient::connect(&server, "client").await;
    client.ask("get_crl", &reply(&[&old, &other])).await;
    let sdk = connect(&server, "sdk").await;
    assert_eq!(
        sdk.revocation_lists().await.unwrap(),
        [der(&old), der(&other)]
    );

    let revoked = pki.authority().client("revoked");
    let revoked = revoked.certificate_der();
    let new = pki.authority().revocation_list(2, &[&revoked], NOT_SOON);
    replace(&pem, &new);
    client.ask("get_crl", &reply(&[&old, &other])).await;
    server.hang_up().await;
    client.ask("get_crl", &reply(&[&new, &other])).await;
    // What cannot be used is not handed out.
    replace(&pem, "-----BEGIN X509 CRL-----\n");
    server.hang_up().await;
    client.ask("get_crl", &reply(&[&new, &other])).await;

    // They must fit in a line.
    let many = [&revoked; 60];
    let long = pki.authority().revocation_list(3, &many, NOT_SOON);
    replace(&pem, &long);
    server.hang_up().await;
    let length = reply(&[&long, &other]).len();
    let expected = format!(
        "Error: limit_reached: the server's revocation lists take a line of {length} bytes, and \
         limits.max_line_bytes is 2048; ask for a higher limit"
    );
    client.ask("get_crl", &expected).await;
    let error = sdk.revocation_lists().await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::LimitReached);
}

/// A key that a revoked certificate has signed is not handed out, until its owner has signed it
/// with another one.
#[tokio::test]
async fn keys_of_revoked_certificates_are_not_handed_out() {
    let pki = Arc::new(Pki::new());
    let list = pki.folder().join("ca.crl");
    replace(&list, &pki.authority().revocation_list(1, &[], NOT_SOON));
    let options = Options::sqlite().set("tls", "crl_paths", vec![list.display().to_string()]);
    let server = Server::start(options.pki(Arc::clone(&pki))).await;
    let keys = sdk::Keys::new();
    let receiver = connect(&server, "receiver").await;
    receiver.register_keys(&keys.keyring()).await.unwrap();
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.send_line("get_signed_key receiver").await;
    sender.expect_prefix("Signed key: ").await;
    sender.send_line("get_key receiver").await;
    let bare = sender.expect_prefix("Public key: ").await;
    let stolen = pki.client("receiver");
    let stolen = CertificateDer::from_pem_file(&stolen.certificate).unwrap();
    replace(
        &list,
        &pki.authority().revocation_list(2, &[&stolen], NOT_SOON),
    );
    server.hang_up().await;
    let refused = "Error: key_revoked: receiver has signed its key with a certificate that is revoked, \
                   and has to register it again with another one";
    for command in ["get_signed_key", "get_public_key", "get_key"] {
        sender.ask(&format!("{command} receiver"), refused).await;
    }

    let folder = tempfile::tempdir().unwrap();
    let renewed = pki
        .authority()
        .client("receiver")
        .write(folder.path(), "renewed");
    let renewed = sdk::builder(&server, &renewed).connect().await.unwrap();
    renewed.register_keys(&keys.keyring()).await.unwrap();
    sender.send_line("get_signed_key receiver").await;
    sender.expect_prefix("Signed key: ").await;
    sender
        .ask("get_key receiver", &format!("Public key: {bare}"))
        .await;
}

/// A client hands in a certificate that it signs with, if it is its own and valid.
#[tokio::test]
async fn certificates_that_sign_are_registered() {
    let pki = Arc::new(Pki::new());
    let list = pki.folder().join("ca.crl");
    let revoked = pki.authority().client("sender");
    let revoked = revoked.certificate_der();
    replace(
        &list,
        &pki.authority().revocation_list(1, &[&revoked], NOT_SOON),
    );
    let options = Options::sqlite().set("tls", "crl_paths", vec![list.display().to_string()]);
    let mut server = Server::start(options.pki(Arc::clone(&pki))).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    let base64 = |der: &CertificateDer<'_>| BASE64_STANDARD.encode(der);
    let signing = pki.authority().client("sender").certificate_der();
    let register = |chain: &str| format!("register_certificate {chain}");
    for _ in 0..2 {
        let command = register(&base64(&signing));
        sender.ask(&command, "Certificate registered").await;
    }
    let ca = pki.authority().certificate_der();
    let with_issuer = format!("{},{}", base64(&signing), base64(&ca));
    // The one that is there will do.
    sender
        .ask(&register(&with_issuer), "Certificate registered")
        .await;

    let others = pki.authority().client("receiver").certificate_der();
    let expired = pki.authority().issue(Request::client("sender").expired());
    let stranger = Authority::new("another authority").client("sender");
    let nine = [base64(&signing).as_str(); 9].join(",");
    for (chain, error) in [
        (
            base64(&others),
            "not_authorized: only the client itself registers its certificate, and this \
             connection is sender's",
        ),
        (base64(&revoked), "bad_key: the certificate is revoked"),
        (
            base64(&expired.certificate_der()),
            "bad_key: the certificate expired",
        ),
        (
            base64(&stranger.certificate_der()),
            "bad_key: the certificate was not issued by",
        ),
        ("AA==".to_owned(), "bad_key: the certificate "),
        (
            "?".to_owned(),
            "bad_argument: a certificate chain is base64",
        ),
        (nine, "bad_argument: a certificate chain is base64"),
    ] {
        sender.send_line(&register(&chain)).await;
        sender.expect_prefix(&format!("Error: {error}")).await;
    }
    let fingerprint = ciphermq_crypto::identity::fingerprint(&signing);
    server.restart().await;
    let mut receiver = RawClient::connect(&server, "receiver").await;
    let command = format!("get_certificate sender {fingerprint}");
    receiver
        .ask(&command, &format!("Certificate: {}", base64(&signing)))
        .await;
}

#[tokio::test]
async fn clients_learn_when_certificates_and_lists_end() {
    let pki = Arc::new(Pki::new());
    let list = pki.folder().join("ca.crl");
    replace(&list, &pki.authority().revocation_list(1, &[], NOT_SOON));
    let options = Options::sqlite().set("tls", "crl_paths", vec![list.display().to_string()]);
    let server = Server::start(options.pki(Arc::clone(&pki))).await;
    let mut client = RawClient::connect(&server, "client").await;
    let ends = "Ends: {\"ends\":[\
        {\"kind\":\"authority\",\"subject\":\"CN=CipherMQ test CA\",\
        \"not_before\":\"2020-01-01T00:00:00Z\",\"not_after\":\"2100-01-01T00:00:00Z\"},\
        {\"kind\":\"revocation_list\",\"subject\":\"CN=CipherMQ test CA\",\
        \"not_before\":\"2021-01-01T00:00:00Z\",\"not_after\":\"2096-10-02T07:06:40Z\"},\
        {\"kind\":\"certificate\",\"subject\":\"O=CipherMQ tests, CN=localhost\",\
        \"not_before\":\"2020-01-01T00:00:00Z\",\"not_after\":\"2100-01-01T00:00:00Z\"}]}";
    client.ask("list_ends", ends).await;
    let status = Cli::new("status").connecting(&server, "client");
    let status = status.run().await.success().stdout;
    for row in [
        "authority     CN=CipherMQ test CA ends at 2100-01-01T00:00:00Z\n",
        "server list   CN=CipherMQ test CA ends at 2096-10-02T07:06:40Z\n",
        "server cert   O=CipherMQ tests, CN=localhost ends at 2100-01-01T00:00:00Z\n",
    ] {
        assert!(status.contains(row), "{row:?} is not in:\n{status}");
    }
}
