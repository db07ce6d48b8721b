//! Keys that older servers have sealed: taken over once, and refused afterwards.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ciphermq_tests::{Backend, Database, RawClient, Server, on_both_databases};

const AT_REST: [u8; 32] = [0x42; 32];
const KEY: [u8; 32] = [7; 32];

fn text(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// The columns of a sealed row, with this associated data.
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

/// A definite answer, on one line, that says what helps: the at-rest key is the right one.
fn assert_older(line: &str) {
    assert!(
        line.starts_with("Error: bad_key: ")
            && line
                .contains("has the form of an older server, and is no longer accepted; let the ")
            && line.contains("client register its key again"),
        "{line}"
    );
}

/// A server that was started once with the at-rest key, and stopped.
async fn stopped(backend: &Backend) -> Server {
    let options = backend
        .options()
        .await
        .set("encryption", "aes_key", text(&AT_REST));
    let mut server = Server::start(options).await;
    server.terminate().await;
    server
}

/// A stopped server on a database as a server of before has left it: a row bound to nobody, and one
/// bound to its client only.
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

async fn older_rows_are_taken_over_once(backend: Backend) {
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

    // Mallory's old row is put in alice's place; the note in the database is removed, and all that
    // shows it.
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

    // Rows bound to their client come back as well, bare and signed.
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

    // The server's operator says that it is so: once more.
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
    // Whoever they are for registers anew.
    let mut alice = RawClient::connect(&server, "alice").await;
    let register = format!("register_public_key {}", text(&KEY));
    alice.ask(&register, "Public key registered").await;
    assert_eq!(
        ask(&server, "alice").await,
        format!("Public key: {}", text(&KEY))
    );
}

/// A table that somebody has removed is told by its name, with what to do.
async fn a_table_that_was_removed_is_named(backend: Backend) {
    let mut server = stopped(&backend).await;
    let database = server.database().await;
    database.execute("DROP TABLE at_rest_adoption").await;
    drop(database);
    let refusal = server.launch_again().await.unwrap_err();
    let told = refusal.stderr;
    assert!(told.contains("lacks the table at_rest_adoption"), "{told}");
    assert!(told.contains("from a backup"), "{told}");
    // What is told to make it again does.
    let statement = told.split('`').nth(1).unwrap_or_else(|| panic!("{told}"));
    let database = server.database().await;
    database.execute(statement).await;
    drop(database);
    server.restart().await;
    server.terminate().await;
    let database = server.database().await;
    database.execute("DROP TABLE rejected_messages").await;
    drop(database);
    let told = server.launch_again().await.unwrap_err().stderr;
    assert!(told.contains("lacks the table rejected_messages"), "{told}");
    assert!(
        told.contains("Restore the database from a backup"),
        "{told}"
    );
}

on_both_databases!(
    a_table_that_was_removed_is_named,
    older_rows_are_taken_over_once,
    older_rows_may_be_refused_from_the_start
);
