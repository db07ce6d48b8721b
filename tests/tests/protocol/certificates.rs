//! `get_certificate`: the certificate chains that clients have connected with.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciphermq_tests::pki::{Identity, Request};
use ciphermq_tests::raw::Tls;
use ciphermq_tests::{Fixture, PATIENCE, RawClient};
use sha2::{Digest as _, Sha256};

fn reply(identity: &Identity) -> String {
    format!(
        "Certificate: {}",
        BASE64_STANDARD.encode(identity.certificate_der())
    )
}

fn fingerprint(identity: &Identity) -> String {
    hex::encode(Sha256::digest(identity.certificate_der()))
}

/// Repeats a command until the reply is `expected`: a certificate is stored concurrently with the
/// first commands of its connection, not before them.
async fn ask_until(client: &mut RawClient, command: &str, expected: &str) {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        client.send_line(command).await;
        let line = client.line().await;
        if line == expected {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "{command}: {line}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn the_last_or_a_chosen_chain(fixture: Fixture) {
    let folder = tempfile::tempdir().unwrap();
    let (pki, who) = (fixture.server.pki(), fixture.id("who"));
    let [old, new] = [0, 1].map(|_| pki.authority().issue(Request::client(&who)));
    let mut asker = fixture.client("asker").await;
    let last = format!("get_certificate {who}");
    let mut files = Vec::new();
    for (name, identity) in [("old", &old), ("new", &new)] {
        files.push(identity.write(folder.path(), name));
        let tls = Tls::trusting(&pki.ca()).identity(files.last().unwrap().clone());
        let mut client = RawClient::handshake(fixture.server.address(), &tls)
            .await
            .unwrap();
        client.ask("ping", "PONG").await;
        ask_until(&mut asker, &last, &reply(identity)).await;
    }
    for identity in [&old, &new] {
        let named = format!("{last} {}", fingerprint(identity));
        asker.ask(&named, &reply(identity)).await;
        let named = format!("{last} {}", fingerprint(identity).to_uppercase());
        asker.ask(&named, &reply(identity)).await;
    }
    // The older one is used again, and so becomes the last one.
    let tls = Tls::trusting(&pki.ca()).identity(files[0].clone());
    let _client = RawClient::handshake(fixture.server.address(), &tls)
        .await
        .unwrap();
    ask_until(&mut asker, &last, &reply(&old)).await;
}

pub(super) async fn unknown_certificates(fixture: Fixture) {
    let mut client = fixture.client("client").await;
    let (me, nobody) = (fixture.id("client"), fixture.id("nobody"));
    client
        .ask(
            &format!("get_certificate {nobody}"),
            "Certificate not found",
        )
        .await;
    let zeros = "0".repeat(64);
    client
        .ask(
            &format!("get_certificate {me} {zeros}"),
            "Certificate not found",
        )
        .await;
    for bad in ["0", &zeros[1..], &format!("{zeros}0"), &"g".repeat(64)] {
        client
            .ask(
                &format!("get_certificate {me} {bad}"),
                "Error: bad_argument: a fingerprint is SHA-256 in 64 hexadecimal digits",
            )
            .await;
    }
}
