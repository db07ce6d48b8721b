//! `get_crl` and `list_ends`: clients get the server's revocation lists, byte for byte, and learn
//! when its certificates end.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciphermq_client::{Client, RequestErrorKind};
use ciphermq_tests::server::Options;
use ciphermq_tests::{Authority, Cli, Pki, RawClient, Server};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;

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
