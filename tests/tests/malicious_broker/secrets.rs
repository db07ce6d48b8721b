//! Neither what was sent nor a private or session key can be found anywhere on its way: not in the
//! database, the logs, the server's memory, or what passes behind TLS.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciphermq_client::PrivateKey;
use ciphermq_tests::evil::fixture::{opened, text};
use ciphermq_tests::evil::{EvilFixture, search};
use ciphermq_tests::{Backend, RawClient, on_both_databases};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeR};
use serde_json::Value;

use crate::published;

const CANARY: &str = "canary: the vault opens at 04:17 with 58-02-93";

/// What the server is told in clear, so that a search that would find nothing is noticed.
const PLANTED: &str = "planted-canary-31-77-20";

const TRAFFIC: &str = "traffic behind TLS";

type Places = Vec<(String, Vec<u8>)>;

/// Every place that the operator of broker and database can look into, but the server's memory.
fn places(fixture: &EvilFixture, backend: &Backend) -> Places {
    let folders = std::iter::once(fixture.server.folder()).chain(backend.folder());
    let mut places: Places = folders
        .flat_map(search::files)
        .map(|(path, bytes)| (path.display().to_string(), bytes))
        .collect();
    let lines: Vec<String> = fixture
        .evil
        .recorded()
        .into_iter()
        .map(|line| line.text)
        .collect();
    places.push((TRAFFIC.to_owned(), lines.join("\n").into_bytes()));
    places
}

fn found(places: &Places, secret: &[u8]) -> Vec<String> {
    let forms = search::forms(secret);
    places
        .iter()
        .filter(|(_, bytes)| forms.iter().any(|form| search::contains(bytes, form)))
        .map(|(name, _)| name.clone())
        .collect()
}

/// The session key of an envelope, which only the receiver can open: docs/cryptography.md, "The
/// session key".
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
    .expect("the receiver opens it")
}

fn decoded(field: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(field.as_str().unwrap()).unwrap()
}

async fn expect_no_secret(mut fixture: EvilFixture, backend: &Backend) {
    let ids = fixture.publish([CANARY, CANARY]).await;
    let mut planter = RawClient::connect(&fixture.server, "planter").await;
    planter
        .ask(&format!("declare_queue {PLANTED}"), "Queue declared")
        .await;
    // One is delivered and acked, one waits.
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

    // What is there is found: in the memory, the database, the traffic and, of an id, in the log.
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
    expect_no_secret(EvilFixture::with(options().await).await, &backend).await;
    expect_no_secret(EvilFixture::post_quantum(options().await).await, &backend).await;
}

on_both_databases!(no_secret_is_stored_logged_held_or_sent);
