//! The key directory: bare keys and signed keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::prelude::BASE64_STANDARD;
use ciphermq_tests::{Fixture, RawClient};
use serde_json::{Value, json};

pub(super) async fn public_keys_in_both_spellings(fixture: Fixture) {
    let (mut receiver, mut sender) = (
        fixture.client("receiver").await,
        fixture.client("sender").await,
    );
    let who = fixture.id("receiver");
    for get in ["get_public_key", "get_key"] {
        sender
            .ask(&format!("{get} {who}"), "Public key not found")
            .await;
    }
    for (number, register) in [
        "register_public_key".to_owned(),
        format!("register_key {who}"),
    ]
    .iter()
    .enumerate()
    {
        let key = BASE64_STANDARD.encode([u8::try_from(number).unwrap() + 1; 32]);
        receiver
            .ask(&format!("{register} {key}"), "Public key registered")
            .await;
        for get in ["get_public_key", "get_key"] {
            sender
                .ask(&format!("{get} {who}"), &format!("Public key: {key}"))
                .await;
        }
    }
}

pub(super) async fn a_key_is_registered_by_its_client_only(fixture: Fixture) {
    let mut stranger = fixture.client("stranger").await;
    let key = BASE64_STANDARD.encode([5; 32]);
    let (who, me) = (fixture.id("receiver"), fixture.id("stranger"));
    stranger
        .ask(
            &format!("register_key {who} {key}"),
            &format!(
                "Error: not_authorized: only the client itself registers its key, and this \
                 connection is {me}'s"
            ),
        )
        .await;
    stranger
        .ask(&format!("get_key {who}"), "Public key not found")
        .await;
}

pub(super) async fn invalid_keys_are_refused(fixture: Fixture) {
    let mut client = fixture.client("client").await;
    for bad in [
        "x".to_owned(),
        BASE64_STANDARD.encode([1; 31]),
        BASE64_STANDARD.encode([1; 33]),
        BASE64_STANDARD.encode([0; 32]),
        BASE64_STANDARD
            .encode([1; 32])
            .trim_end_matches('=')
            .to_owned(),
        "=".repeat(44),
        format!(
            "{} {}",
            BASE64_STANDARD.encode([1; 16]),
            BASE64_STANDARD.encode([1; 16])
        ),
    ] {
        client
            .send_line(&format!("register_public_key {bad}"))
            .await;
        client.expect_prefix("Error: bad_key: ").await;
    }
    client
        .ask(
            &format!("get_public_key {}", fixture.id("client")),
            "Public key not found",
        )
        .await;
}

/// A compact JWS with an invalid signature, which the server does not verify.
fn jws(payload: &Value) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let header = json!({"alg": "ES384", "typ": "ciphermq-key+jws", "x5c": []});
    [
        part(header.to_string()),
        part(payload.to_string()),
        part("signature".to_owned()),
    ]
    .join(".")
}

fn payload(client_id: &str, key: &str) -> Value {
    json!({"client_id": client_id, "epoch": 1_757_314_980_000_u64,
        "not_before": "2025-09-08T07:03:00Z", "not_after": "2026-09-08T07:03:00Z",
        "keys": [{"suite": "X25519-AES256GCM", "key_id": "0011223344556677", "key": key}]})
}

/// Registers a signed key, and expects that the server accepts it.
async fn register_signed(client: &mut RawClient, signed: &str) {
    let register = format!("register_signed_key {signed}");
    client.ask(&register, "Public key registered").await;
}

/// Expects that this is the signed key of the client `who`.
async fn expect_signed(client: &mut RawClient, who: &str, signed: &str) {
    let expected = format!("Signed key: {signed}");
    client
        .ask(&format!("get_signed_key {who}"), &expected)
        .await;
}

pub(super) async fn signed_keys(fixture: Fixture) {
    let (mut receiver, mut sender) = (
        fixture.client("receiver").await,
        fixture.client("sender").await,
    );
    let who = fixture.id("receiver");
    sender
        .ask(&format!("get_signed_key {who}"), "Public key not found")
        .await;
    let key = BASE64_STANDARD.encode([7; 32]);
    let signed = jws(&payload(&who, &key));
    register_signed(&mut receiver, &signed).await;
    expect_signed(&mut sender, &who, &signed).await;
    // Older senders get the X25519 key from the signed one.
    sender
        .ask(
            &format!("get_public_key {who}"),
            &format!("Public key: {key}"),
        )
        .await;
    let newer = jws(&payload(&who, &BASE64_STANDARD.encode([8; 32])));
    register_signed(&mut receiver, &newer).await;
    expect_signed(&mut sender, &who, &newer).await;
}

pub(super) async fn a_signed_key_is_registered_by_its_client_only(fixture: Fixture) {
    let mut stranger = fixture.client("stranger").await;
    let (who, me) = (fixture.id("receiver"), fixture.id("stranger"));
    let signed = jws(&payload(&who, &BASE64_STANDARD.encode([7; 32])));
    stranger
        .ask(
            &format!("register_signed_key {signed}"),
            &format!(
                "Error: not_authorized: only the client itself registers its key, and this \
                 connection is {me}'s"
            ),
        )
        .await;
    for who in [who, me] {
        let none = "Public key not found";
        stranger.ask(&format!("get_signed_key {who}"), none).await;
    }
}

/// The receiver announces only an X-Wing key, or only suites that this server does not know.
pub(super) async fn a_signed_key_without_an_x25519_key(fixture: Fixture) {
    let (mut receiver, mut sender) = (
        fixture.client("receiver").await,
        fixture.client("sender").await,
    );
    let who = fixture.id("receiver");
    let bare = format!("Public key: {}", BASE64_STANDARD.encode([7; 32]));
    for (epoch, keys) in (1..).zip([
        json!([{"suite": "XWING-AES256GCM", "key_id": "0011223344556677", "key": "AA=="}]),
        json!([{"suite": "NEW", "key": "AA=="}]),
        json!([{"suite": "NEW"}, {"suite": "NEWER", "key": null, "key_id": {"a": []}}]),
    ]) {
        let register = format!("register_public_key {}", &bare["Public key: ".len()..]);
        receiver.ask(&register, "Public key registered").await;
        sender.ask(&format!("get_public_key {who}"), &bare).await;
        let mut announced = payload(&who, "");
        announced["keys"] = keys;
        announced["epoch"] = epoch.into();
        let signed = jws(&announced);
        register_signed(&mut receiver, &signed).await;
        expect_signed(&mut sender, &who, &signed).await;
        // The receiver no longer announces an X25519 key.
        sender
            .ask(&format!("get_public_key {who}"), "Public key not found")
            .await;
    }
    // A known suite is still found among unknown ones, and its key must be valid.
    let mut announced = payload(&who, "AA==");
    announced["epoch"] = 10.into();
    receiver
        .send_line(&format!("register_signed_key {}", jws(&announced)))
        .await;
    receiver.expect_prefix("Error: bad_key: ").await;
    announced = payload(&who, &bare["Public key: ".len()..]);
    let keys = announced["keys"].as_array_mut().unwrap();
    keys.insert(0, json!({"suite": "NEW", "key": "AA=="}));
    receiver
        .ask(
            &format!("register_signed_key {}", jws(&announced)),
            "Public key registered",
        )
        .await;
    sender.ask(&format!("get_public_key {who}"), &bare).await;
}

pub(super) async fn invalid_signed_keys_are_refused(fixture: Fixture) {
    let mut client = fixture.client("client").await;
    let (me, key) = (fixture.id("client"), BASE64_STANDARD.encode([7; 32]));
    let good = jws(&payload(&me, &key));
    let mut without_key = payload(&me, &key);
    without_key["keys"] = json!([]);
    for bad in [
        "nonsense".to_owned(),
        "a.b.c".to_owned(),
        good.replace('.', ".."),
        format!("{good}.x"),
        format!("{good} x"),
        jws(&payload(&me, "no key")),
        jws(&without_key),
        jws(&json!([])),
    ] {
        client
            .send_line(&format!("register_signed_key {bad}"))
            .await;
        client.expect_prefix("Error: bad_key: ").await;
    }
    client
        .ask(&format!("get_signed_key {me}"), "Public key not found")
        .await;
    client
        .ask(&format!("get_public_key {me}"), "Public key not found")
        .await;
}
