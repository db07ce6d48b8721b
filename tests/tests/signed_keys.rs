//! Of two signed keys of a client, the server keeps the one with the higher epoch, regardless of
//! their order.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::prelude::BASE64_STANDARD;
use ciphermq_tests::{Backend, RawClient, on_both_databases};
use serde_json::{Value, json};

/// Returns a compact JWS with an invalid signature, which the server does not verify.
fn jws(payload: &Value) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let payload = part(&payload.to_string());
    format!(
        "{}.{payload}.{}",
        part(r#"{"alg":"ES384"}"#),
        part("signature")
    )
}

fn bare(number: u8) -> String {
    BASE64_STANDARD.encode([number; 32])
}

fn signed(epoch: u64, number: u8) -> String {
    jws(&json!({"client_id": "receiver", "epoch": epoch,
        "keys": [{"suite": "X25519-AES256GCM", "key": bare(number)}]}))
}

async fn expect_keys(client: &mut RawClient, signed: &str, bare: &str) {
    client
        .ask("get_signed_key receiver", &format!("Signed key: {signed}"))
        .await;
    client
        .ask("get_public_key receiver", &format!("Public key: {bare}"))
        .await;
}

const REGISTERED: &str = "Public key registered";

async fn an_older_signed_key_never_replaces_a_newer_one(backend: Backend) {
    let mut server = backend.server().await;
    let mut receiver = RawClient::connect(&server, "receiver").await;
    let register = |key: &str| format!("register_signed_key {key}");
    let stale = |epoch: u64| {
        format!(
            "Error: stale_key: a signed key with the epoch {epoch} is registered already; ask for \
             it with \
             get_signed_key"
        )
    };
    receiver.ask(&register(&signed(1000, 1)), REGISTERED).await;
    receiver.ask(&register(&signed(999, 2)), &stale(1000)).await;
    receiver.ask(&register(&signed(0, 2)), &stale(1000)).await;
    expect_keys(&mut receiver, &signed(1000, 1), &bare(1)).await;
    // A key with the same epoch is stored, regardless of its contents: senders verify those.
    receiver.ask(&register(&signed(1000, 3)), REGISTERED).await;
    expect_keys(&mut receiver, &signed(1000, 3), &bare(3)).await;
    receiver.ask(&register(&signed(1001, 4)), REGISTERED).await;
    receiver
        .ask(&register(&signed(1000, 3)), &stale(1001))
        .await;

    // The epoch survives a restart.
    server.terminate().await;
    server.restart().await;
    let mut receiver = RawClient::connect(&server, "receiver").await;
    receiver
        .ask(&register(&signed(1000, 3)), &stale(1001))
        .await;
    expect_keys(&mut receiver, &signed(1001, 4), &bare(4)).await;

    // Older clients register bare keys only: senders that verify continue to use the signed one.
    receiver
        .ask(&format!("register_public_key {}", bare(9)), REGISTERED)
        .await;
    expect_keys(&mut receiver, &signed(1001, 4), &bare(9)).await;

    for bad in [
        json!({"client_id": "receiver", "keys": [{"suite": "X25519-AES256GCM", "key": bare(5)}]}),
        json!({"client_id": "receiver", "epoch": 2000}),
        json!({"client_id": "receiver", "epoch": "2000", "keys": [{"suite": "X25519-AES256GCM", "key": bare(5)}]}),
        json!({"client_id": "receiver", "epoch": 2000.5, "keys": [{"suite": "X25519-AES256GCM", "key": bare(5)}]}),
    ] {
        receiver.send_line(&register(&jws(&bad))).await;
        receiver.expect_prefix("Error: bad_key: ").await;
    }
    expect_keys(&mut receiver, &signed(1001, 4), &bare(9)).await;
}

/// Eight connections register eighty keys concurrently: the newest one remains, with its bare key.
async fn the_newest_of_many_concurrent_keys_remains(backend: Backend) {
    const CONNECTIONS: u64 = 8;
    const KEYS: u64 = 10;
    let server = backend.server().await;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(RawClient::connect(&server, "receiver").await);
    }
    let (count, mut running) = (CONNECTIONS * KEYS, tokio::task::JoinSet::new());
    for (connection, mut client) in (0..).zip(clients) {
        running.spawn(async move {
            for turn in 0..KEYS {
                // Every epoch once, and neighbours on different connections.
                let epoch = (turn * CONNECTIONS + connection) * 37 % count;
                let key = signed(epoch, u8::try_from(epoch).unwrap() + 1);
                client
                    .send_line(&format!("register_signed_key {key}"))
                    .await;
                let reply = client.line().await;
                assert!(
                    reply == REGISTERED || reply.starts_with("Error: stale_key: "),
                    "{reply}"
                );
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    let mut client = RawClient::connect(&server, "sender").await;
    let newest = u8::try_from(count - 1).unwrap();
    expect_keys(
        &mut client,
        &signed(u64::from(newest), newest + 1),
        &bare(newest + 1),
    )
    .await;
}

on_both_databases!(
    an_older_signed_key_never_replaces_a_newer_one,
    the_newest_of_many_concurrent_keys_remains,
);
