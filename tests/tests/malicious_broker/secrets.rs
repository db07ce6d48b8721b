//! Payloads, private keys and session keys cannot be found in the database, in the logs, in the
//! server's memory, or in the traffic inside TLS.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciphermq_client::PrivateKey;
use ciphermq_tests::malicious::fixture::{opened, text};
use ciphermq_tests::malicious::{MaliciousBrokerFixture, search};
use ciphermq_tests::{Backend, RawClient, on_both_databases};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR};
use serde_json::Value;

use crate::published;

const CANARY: &str = "canary: the vault opens at 04:17 with 58-02-93";

/// A value that the server receives in plaintext, to check that the search works.
const PLANTED: &str = "planted-canary-31-77-20";

/// Name of the recorded traffic among the places.
const TRAFFIC: &str = "traffic inside TLS";

/// Names of places that an attacker could search, with their content.
type Places = Vec<(String, Vec<u8>)>;

/// All places that an operator of the broker and the database can read, except for memory.
fn places(fixture: &MaliciousBrokerFixture, backend: &Backend) -> Places {
    let folders = std::iter::once(fixture.server.folder()).chain(backend.folder());
    let mut places: Places = folders
        .flat_map(search::files)
        .map(|(path, bytes)| (path.display().to_string(), bytes))
        .collect();
    let lines: Vec<String> = fixture
        .broker
        .recorded()
        .into_iter()
        .map(|line| line.text)
        .collect();
    places.push((TRAFFIC.to_owned(), lines.join("\n").into_bytes()));
    places
}

/// Names of the places that contain a secret in any encoding.
fn found(places: &Places, secret: &[u8]) -> Vec<String> {
    let forms = search::forms(secret);
    places
        .iter()
        .filter(|(_, bytes)| forms.iter().any(|form| search::contains(bytes, form)))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Decrypts the session key of an envelope with the receiver's key; see "The session key" in
/// docs/cryptography.md.
fn session_key(envelope: &Value, key: &PrivateKey) -> Vec<u8> {
    let mut info = Vec::new();
    let fields = [
        "suite",
        "sender_client_id",
        "receiver_client_id",
        "receiver_key_id",
        "session_time",
    ];
    let fields = fields.map(|field| envelope[field].as_str().unwrap());
    for field in std::iter::once("CipherMQ session 1").chain(fields) {
        info.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
        info.extend(field.as_bytes());
    }
    let sealed = decoded(&envelope["enc_session_key"]);
    let (enc, ciphertext) = sealed.split_at(32);
    let key = BASE64_STANDARD.decode(key.to_base64().as_bytes()).unwrap();
    hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &<X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&key).unwrap(),
        &<X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(enc).unwrap(),
        &info,
        ciphertext,
        b"",
    )
    .expect("the receiver can decrypt it")
}

fn decoded(field: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(field.as_str().unwrap()).unwrap()
}

async fn expect_no_secret(mut fixture: MaliciousBrokerFixture, backend: &Backend) {
    let ids = fixture.publish([CANARY, CANARY]).await;
    let mut planter = RawClient::connect(&fixture.server, "planter").await;
    planter
        .ask(&format!("declare_queue {PLANTED}"), "Queue declared")
        .await;
    // One message is delivered and acked, and one waits.
    let mut consumer = fixture.consumer().start().await.unwrap();
    let message = opened(&mut consumer).await;
    assert_eq!(text(&message), CANARY);
    message.ack().await.unwrap();
    consumer.close().await;

    let envelope: Value = serde_json::from_str(&published(&fixture, "sender")[1]).unwrap();
    let ciphertext = decoded(&envelope["ciphertext"]);
    let key = BASE64_STANDARD.decode(fixture.private_key_text()).unwrap();
    let mut secrets = vec![
        ("the payload", CANARY.as_bytes().to_vec()),
        ("the private key", key),
    ];
    match fixture.x_wing_text() {
        Some(seed) => secrets.push(("the X-Wing seed", BASE64_STANDARD.decode(seed).unwrap())),
        None => secrets.push((
            "the session key",
            session_key(&envelope, &fixture.private_key()),
        )),
    }
    assert!(secrets[1..].iter().all(|(_, key)| key.len() == 32));

    let memory = search::memory(fixture.server.process());
    let running = places(&fixture, backend);
    let console = fixture.server.terminate().await;
    let mut ended = places(&fixture, backend);
    ended.push(("console".to_owned(), console.into_bytes()));

    // The search finds what is there: in memory, in the database, in the traffic, and ids in the
    // log.
    assert_ne!(found(&memory, PLANTED.as_bytes()), [""; 0]);
    assert_ne!(found(&memory, ids[1].as_str().as_bytes()), [""; 0]);
    let database = match backend.folder() {
        Some(folder) => folder.display().to_string(),
        None => "ciphermq.db".to_owned(),
    };
    for places in [&running, &ended] {
        let seen = found(places, &ciphertext);
        assert!(seen.iter().any(|name| name.contains(&database)), "{seen:?}");
        assert!(seen.iter().any(|name| name == TRAFFIC), "{seen:?}");
        let seen = found(places, PLANTED.as_bytes());
        assert!(seen.iter().any(|name| name.contains(&database)), "{seen:?}");
        assert!(
            found(places, ids[0].as_str().as_bytes())
                .iter()
                .any(|name| name.ends_with(".log"))
        );
    }
    for places in [&memory, &running, &ended] {
        for (what, secret) in &secrets {
            assert_eq!(found(places, secret), [""; 0], "{what}");
        }
    }
}

async fn no_secret_is_stored_logged_held_or_sent(backend: Backend) {
    let options = || async { backend.options().await.set("logging", "level", "debug") };
    expect_no_secret(
        MaliciousBrokerFixture::with(options().await).await,
        &backend,
    )
    .await;
    expect_no_secret(
        MaliciousBrokerFixture::post_quantum(options().await).await,
        &backend,
    )
    .await;
}

on_both_databases!(no_secret_is_stored_logged_held_or_sent);
