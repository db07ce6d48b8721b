//! Stored keys that older servers have sealed: adopted once, and refused afterwards.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ciphermq_tests::{Backend, Database, RawClient, Server, on_both_databases};

const AT_REST: [u8; 32] = [0x42; 32];
const KEY: [u8; 32] = [7; 32];

fn text(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// Seals a key with this associated data, and returns the columns of the row.
fn sealed(key: &[u8], aad: &[u8]) -> [String; 3] {
    let cipher = aes_gcm::Aes256Gcm::new(&AT_REST.into());
    let nonce = [9; 12];
    let sealed = cipher
        .encrypt(&nonce.into(), Payload { msg: key, aad })
        .unwrap();
    let (ciphertext, tag) = sealed.split_at(key.len());
    [text(ciphertext), text(&nonce), text(tag)]
}

async fn put(database: &Database, client: &str, columns: &[String; 3], algorithm: Option<&str>) {
    let [ciphertext, nonce, tag] = columns;
    let algorithm = algorithm.map_or("NULL".to_owned(), |name| format!("'{name}'"));
    database
        .execute(&format!(
            "DELETE FROM public_keys WHERE client_id = '{client}'"
        ))
        .await;
    database
        .execute(&format!(
            "INSERT INTO public_keys (client_id, public_key_ciphertext, nonce, tag, algorithm) \
             VALUES ('{client}', '{ciphertext}', '{nonce}', '{tag}', {algorithm})"
        ))
        .await;
}

async fn ask(server: &Server, client: &str) -> String {
    let mut asker = RawClient::connect(server, "asker").await;
    asker.send_line(&format!("get_public_key {client}")).await;
    asker.line().await
}

/// Checks that a reply is a permanent error with advice, since the at-rest key itself is correct.
fn assert_older(line: &str) {
    assert!(
        line.starts_with("Error: bad_key: ")
            && line
                .contains("has the form of an older server, and is no longer accepted; let the ")
            && line.contains("client register its key again"),
        "{line}"
    );
}

/// Starts a server with the at-rest key, and stops it.
async fn stopped(backend: &Backend) -> Server {
    let options = backend
        .options()
        .await
        .set("encryption", "aes_key", text(&AT_REST));
    let mut server = Server::start(options).await;
    server.terminate().await;
    server
}

/// Creates a stopped server on a database of an older server, with one row that is not bound to
/// anything, and one that is bound only to its client.
async fn left_by_an_older_server(backend: &Backend) -> Server {
    let server = stopped(backend).await;
    let database = server.database().await;
    database.execute("DELETE FROM at_rest_adoption").await;
    put(&database, "alice", &sealed(&KEY, b""), None).await;
    let aad = b"CipherMQ public key at rest v1\0aes-256-gcm\0bob";
    put(
        &database,
        "bob",
        &sealed(&[8; 32], aad),
        Some("aes-256-gcm"),
    )
    .await;
    let _ = std::fs::remove_file(server.folder().join("data/at-rest.key.adopted"));
    server
}

async fn older_rows_are_adopted_once(backend: Backend) {
    let mut server = left_by_an_older_server(&backend).await;
    server.restart().await;
    assert_eq!(
        ask(&server, "alice").await,
        format!("Public key: {}", text(&KEY))
    );
    assert_eq!(
        ask(&server, "bob").await,
        format!("Public key: {}", text(&[8; 32]))
    );
    server.terminate().await;

    // Mallory's old row replaces alice's; then also the record of the adoption is removed, and
    // everything else in the database that shows it.
    for is_thorough in [false, true] {
        let database = server.database().await;
        put(&database, "alice", &sealed(&[6; 32], b""), None).await;
        if is_thorough {
            database.execute("DELETE FROM at_rest_adoption").await;
            database
                .execute("DELETE FROM public_keys WHERE client_id = 'bob'")
                .await;
        }
        drop(database);
        server.restart().await;
        let line = ask(&server, "alice").await;
        assert_older(&line);
        let console = server.console().text();
        assert!(console.contains("older_rows"), "{console}");
        server.terminate().await;
    }

    // Older rows that are bound to their client are restored as well, with bare and signed keys.
    let database = server.database().await;
    let aad = |client: &str| format!("CipherMQ public key at rest v1\0aes-256-gcm\0{client}");
    let bare = sealed(&[8; 32], aad("bob").as_bytes());
    put(&database, "bob", &bare, Some("aes-256-gcm")).await;
    let [ciphertext, nonce, tag] = sealed(b"e30.e30.e30", aad("carol").as_bytes());
    database
        .execute(&format!(
            "INSERT INTO signed_keys (client_id, signed_key_ciphertext, nonce, tag, algorithm) \
             VALUES ('carol', '{ciphertext}', '{nonce}', '{tag}', 'aes-256-gcm')"
        ))
        .await;
    drop(database);
    server.restart().await;
    assert_older(&ask(&server, "bob").await);
    let mut asker = RawClient::connect(&server, "asker").await;
    asker.send_line("get_signed_key carol").await;
    assert_older(&asker.line().await);
    drop(asker);
    server.terminate().await;
    let database = server.database().await;
    database
        .execute("DELETE FROM signed_keys WHERE client_id = 'carol'")
        .await;
    drop(database);

    // The operator permits the adoption again.
    server.configure("encryption", "older_rows", "accept");
    server.restart().await;
    assert_eq!(
        ask(&server, "alice").await,
        format!("Public key: {}", text(&[6; 32]))
    );
    server.terminate().await;
}

async fn older_rows_may_be_refused_from_the_start(backend: Backend) {
    let mut server = left_by_an_older_server(&backend).await;
    server.configure("encryption", "older_rows", "refuse");
    server.restart().await;
    for client in ["alice", "bob"] {
        let line = ask(&server, client).await;
        assert_older(&line);
    }
    // The client registers its key again.
    let mut alice = RawClient::connect(&server, "alice").await;
    let register = format!("register_public_key {}", text(&KEY));
    alice.ask(&register, "Public key registered").await;
    assert_eq!(
        ask(&server, "alice").await,
        format!("Public key: {}", text(&KEY))
    );
}

/// The error for a missing table contains its name, and advice.
async fn a_missing_table_is_named(backend: Backend) {
    let mut server = stopped(&backend).await;
    let database = server.database().await;
    database.execute("DROP TABLE at_rest_adoption").await;
    drop(database);
    let refusal = server.launch().await.unwrap_err();
    let stderr = refusal.stderr;
    assert!(
        stderr.contains("lacks the table at_rest_adoption"),
        "{stderr}"
    );
    assert!(stderr.contains("from a backup"), "{stderr}");
    // The statement in the advice creates the table.
    let statement = stderr
        .split('`')
        .nth(1)
        .unwrap_or_else(|| panic!("{stderr}"));
    let database = server.database().await;
    database.execute(statement).await;
    drop(database);
    server.restart().await;
    server.terminate().await;
    let database = server.database().await;
    database.execute("DROP TABLE rejected_messages").await;
    drop(database);
    let stderr = server.launch().await.unwrap_err().stderr;
    assert!(
        stderr.contains("lacks the table rejected_messages"),
        "{stderr}"
    );
    assert!(
        stderr.contains("Restore the database from a backup"),
        "{stderr}"
    );
}

on_both_databases!(
    a_missing_table_is_named,
    older_rows_are_adopted_once,
    older_rows_may_be_refused_from_the_start
);
