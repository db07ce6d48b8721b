//! The contents of the database and the logs, and databases that cannot be used.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciphermq_tests::server::{Options, Store};
use ciphermq_tests::{
    Backend, Database, EnvelopeText, Postgres, RawClient, Server, on_both_databases, ports,
};
use serde_json::Value;

const KEY: [u8; 32] = *b"an X25519 key, public as it is!!";

async fn sender_with_queue(server: &Server) -> RawClient {
    let mut sender = RawClient::connect(server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    sender
}

/// Publishes three messages: one is delivered and acked, one is delivered, one waits.
async fn process_some_messages(server: &Server) {
    let mut sender = sender_with_queue(server).await;
    let mut receiver = RawClient::connect(server, "receiver").await;
    let key = BASE64_STANDARD.encode(KEY);
    receiver
        .ask(
            &format!("register_key receiver {key}"),
            "Public key registered",
        )
        .await;
    for id in ["acked", "delivered", "waiting"] {
        let envelope = EnvelopeText::older(id, "receiver").set("ciphertext", "VG9wIHNlY3JldA==");
        sender
            .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
            .await;
    }
    for id in ["acked", "delivered"] {
        receiver.send_line("fetch q").await;
        receiver.expect_prefix(&format!("Message: {id} ")).await;
    }
    receiver.ask("ack acked", "ACK_CONFIRMED acked").await;
}

/// The documented query returns the status of every message.
async fn message_metadata_is_complete(backend: Backend) {
    let server = backend.server().await;
    process_some_messages(&server).await;
    let database = server.database().await;
    // If a message stays unacknowledged, its time of delivery is written separately.
    let written = "SELECT count(*) FROM message_metadata WHERE delivered_time IS NOT NULL";
    database.eventually(written, 2).await;
    let rows = database
        .rows(
            "SELECT message_id, client_id, exchange_name, routing_key, sent_time, delivered_time, \
             acknowledged_time \
             FROM message_metadata ORDER BY message_id",
        )
        .await;
    assert_eq!(rows.len(), 3);
    for (row, (id, times)) in rows
        .iter()
        .zip([("acked", 3), ("delivered", 2), ("waiting", 1)])
    {
        let value = |column: usize| row[column].as_deref();
        assert_eq!(
            [value(0), value(1), value(2), value(3)],
            [id, "sender", "e", "k"].map(Some)
        );
        let times_given: Vec<&str> = row[4..].iter().flatten().map(String::as_str).collect();
        assert_eq!(times_given.len(), times, "{row:?}");
        assert!(times_given.is_sorted(), "{row:?}");
        for time in times_given {
            // RFC 3339 in UTC, all of one length, so that they sort as text.
            assert_eq!(time.len(), "2025-09-08T07:03:00.042000Z".len(), "{time}");
            assert!(
                time.starts_with("20") && time.as_bytes()[10] == b'T' && time.ends_with('Z'),
                "{time}"
            );
        }
    }
}

async fn keys_are_sealed_and_no_secret_is_logged(backend: Backend) {
    let at_rest = BASE64_STANDARD.encode([0x5a; 32]);
    for (algorithm, name) in [
        ("aes-256-gcm", "aes-256-gcm"),
        ("chacha20-poly1305", "chacha20-poly1305"),
        ("x25519_chacha20_poly1305", "aes-256-gcm"),
    ] {
        let options = backend
            .options()
            .await
            .set("encryption", "aes_key", at_rest.as_str());
        let options = options.set("encryption", "algorithm", algorithm);
        let mut server = Server::start(options.set("logging", "level", "trace")).await;
        process_some_messages(&server).await;
        let database = server.database().await;
        let rows = database
            .rows("SELECT client_id, public_key_ciphertext, nonce, tag, algorithm FROM public_keys")
            .await;
        let [row] = rows.as_slice() else {
            panic!("{rows:?}")
        };
        let value = |column: usize| row[column].clone().unwrap();
        let bytes = |column: usize| BASE64_STANDARD.decode(value(column)).unwrap();
        assert_eq!((value(0).as_str(), value(4).as_str()), ("receiver", name));
        assert_eq!(
            (bytes(1).len(), bytes(2).len(), bytes(3).len()),
            (32, 12, 16)
        );
        assert_ne!(bytes(1), KEY);
        drop(database);
        server.terminate().await;

        let secrets = [
            at_rest.clone(),
            BASE64_STANDARD.encode(KEY),
            "an X25519 key".to_owned(),
            "VG9wIHNlY3JldA".to_owned(),
        ];
        for secret in &secrets {
            for level in ["info", "debug", "error"] {
                let text = std::fs::read_to_string(
                    server.folder().join(format!("logs/server_{level}.log")),
                )
                .unwrap();
                assert!(
                    !text.contains(secret),
                    "the {level} log contains {secret:?}"
                );
            }
        }
        // The database's files contain neither the public key nor the at-rest key.
        if !backend.is_postgres() {
            for file in std::fs::read_dir(server.folder().join("data")).unwrap() {
                let bytes = match std::fs::read(file.unwrap().path()) {
                    Ok(bytes) => bytes,
                    // The running server removes some of them.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) => panic!("{error}"),
                };
                for secret in [
                    &KEY[..],
                    secrets[0].as_bytes(),
                    secrets[1].as_bytes(),
                    &[0x5a; 32][..],
                ] {
                    assert!(!bytes.windows(secret.len()).any(|window| window == secret));
                }
            }
        }
    }
}

async fn log_files_contain_json_lines_of_their_levels(backend: Backend) {
    let options = backend.options().await.set("logging", "level", "debug");
    let mut server = Server::start(options).await;
    process_some_messages(&server).await;
    // Causes an entry in the error log.
    drop(
        tokio::net::TcpStream::connect(server.address())
            .await
            .unwrap(),
    );
    server.console().expect("TLS handshake failed").await;
    server.terminate().await;
    for (file, levels) in [
        ("info", vec!["INFO"]),
        ("debug", vec!["DEBUG", "TRACE"]),
        ("error", vec!["ERROR", "WARN"]),
    ] {
        let lines = server.log(file);
        assert!(!lines.is_empty(), "server_{file}.log is empty");
        for line in lines {
            let level = line["level"].as_str().unwrap();
            assert!(levels.contains(&level), "server_{file}.log contains {line}");
            assert!(line["message"].is_string(), "{line}");
            let time = line["timestamp"].as_str().unwrap();
            assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "{line}");
        }
    }
    let messages: HashSet<String> = server
        .log("info")
        .iter()
        .map(|line| line["message"].as_str().unwrap().to_owned())
        .collect();
    for expected in [
        "Published message acked to queue 'q' via exchange 'e'",
        "Message acked acknowledged by client, removed from queues and status",
    ] {
        assert!(
            messages.contains(expected),
            "{expected:?} is not in {messages:#?}"
        );
    }
    let failed =
        |line: &Value| line["message"] == "TLS handshake failed" && line["level"] == "ERROR";
    assert!(server.log("error").iter().any(failed));
}

async fn a_second_server_on_the_same_database_is_refused(backend: Backend) {
    let mut server = backend.server().await;
    let store = if backend.is_postgres() {
        Store::Postgres(server.database_url())
    } else {
        Store::SqliteFile(server.folder().join("data/ciphermq.db"))
    };
    let mut second = Options::sqlite();
    second.store = store;
    Server::refused(second.clone())
        .await
        .expect_error(&["another", "stop"]);
    // The first one is not affected.
    process_some_messages(&server).await;
    // The lock ends with its holder.
    server.kill9().await;
    let mut second = Server::start(second).await;
    let mut receiver = RawClient::connect(&second, "receiver").await;
    receiver
        .ask("ack delivered", "ACK_CONFIRMED delivered")
        .await;
    second.terminate().await;
}

/// Existing names with invisible characters, which new names may not have, remain usable.
async fn existing_invalid_names_remain_usable(backend: Backend) {
    let mut server = backend.server().await;
    drop(sender_with_queue(&server).await);
    server.terminate().await;
    let database = server.database().await;
    let old = |name: &str| format!("{name}\u{61c}\u{ad}");
    let (q, e, k) = (old("q"), old("e"), old("k"));
    for statement in [
        format!("UPDATE queues SET queue_name = '{q}'"),
        format!("UPDATE exchanges SET exchange_name = '{e}'"),
        format!("UPDATE bindings SET exchange_name = '{e}', routing_key = '{k}'"),
    ] {
        database.execute(&statement).await;
    }
    drop(database);
    server.restart().await;
    let id = old("m1");
    let mut sender = RawClient::connect(&server, "sender").await;
    sender
        .ask(&format!("declare_queue {q}"), "Queue declared")
        .await;
    sender
        .ask(&format!("declare_exchange {e}"), "Exchange declared")
        .await;
    sender
        .ask(&format!("bind {q} {e} {k}"), "Queue bound")
        .await;
    let envelope = EnvelopeText::older(&id, "receiver");
    sender
        .ask(&format!("publish {e} {k} {envelope}"), &format!("ACK {id}"))
        .await;
    let mut receiver = RawClient::connect(&server, "receiver").await;
    receiver
        .ask(&format!("consume {q}"), "Subscribed to queue")
        .await;
    receiver.expect_prefix(&format!("Message: {id} ")).await;
    receiver.ack(&id).await;
    for (command, what) in [
        (format!("declare_queue {}", old("new")), "queue"),
        (format!("declare_exchange {}", old("new")), "exchange"),
        (format!("bind {q} {e} {}", old("new")), "routing key"),
    ] {
        let refused = format!("Error: bad_name: {what}: a new name holds no invisible characters");
        sender.send_line(&command).await;
        sender.expect_prefix(&refused).await;
    }
}

on_both_databases!(
    existing_invalid_names_remain_usable,
    message_metadata_is_complete,
    keys_are_sealed_and_no_secret_is_logged,
    log_files_contain_json_lines_of_their_levels,
    a_second_server_on_the_same_database_is_refused,
);

#[tokio::test]
async fn postgres_that_cannot_be_used_is_reported() {
    let mut postgres = Postgres::start().await;
    let name = postgres.create_database().await;
    let good = postgres.url(&name);

    let wrong = "no-such-secret";
    let refusal =
        Server::refused(Options::postgres(good.replace(postgres.password(), wrong))).await;
    refusal.expect_error(&[
        "refuses user \"ciphermq\"",
        "check user and password in [database]",
    ]);
    assert!(!refusal.stderr.contains(wrong), "{}", refusal.stderr);

    let refusal = Server::refused(Options::postgres(postgres.url("nowhere"))).await;
    refusal.expect_error(&["there is no database \"nowhere\"", "createdb"]);
    assert!(
        !refusal.stderr.contains(postgres.password()),
        "{}",
        refusal.stderr
    );

    let unreachable = good.replace(
        &format!(":{}/", postgres.port()),
        &format!(":{}/", ports::free()),
    );
    let refusal = Server::refused(Options::postgres(unreachable)).await;
    refusal.expect_error(&[
        "cannot reach PostgreSQL at 127.0.0.1:",
        "check that it runs",
    ]);

    postgres.stop(ciphermq_tests::postgres::Stop::Fast).await;
    let refusal = Server::refused(Options::postgres(&good)).await;
    refusal.expect_error(&["cannot reach PostgreSQL at 127.0.0.1:"]);

    // Separate settings are equivalent to the URL.
    postgres.restart().await;
    let mut options = Options::sqlite().set("database", "port", i64::from(postgres.port()));
    for (field, value) in [
        ("host", "127.0.0.1"),
        ("user", "ciphermq"),
        ("password", postgres.password()),
        ("dbname", &name),
    ] {
        options = options.set("database", field, value);
    }
    let mut server = Server::start(options.without("database", "url")).await;
    expect_stored_in(&server, &good).await;
    server.terminate().await;
}

async fn expect_stored_in(server: &Server, url: &str) {
    drop(sender_with_queue(server).await);
    let database = Database::connect(url).await;
    assert_eq!(database.number("SELECT count(*) FROM queues").await, 1);
}

#[tokio::test]
async fn sqlite_that_cannot_be_used_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.db");
    std::fs::write(
        &file,
        "this is a text file, and not a database. ".repeat(100),
    )
    .unwrap();
    let with = |path: &std::path::Path| {
        let mut options = Options::sqlite();
        options.store = Store::SqliteFile(path.to_owned());
        options
    };
    Server::refused(with(&file))
        .await
        .expect_error(&[&file.display().to_string()]);
    let below_a_file = file.join("ciphermq.db");
    Server::refused(with(&below_a_file))
        .await
        .expect_error(&[&file.display().to_string()]);
    Server::refused(with(folder.path()))
        .await
        .expect_error(&[&folder.path().display().to_string()]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.starts_with("this is a text file"),
        "the file is unchanged"
    );
}

/// The oldest servers' database has two tables, and its keys are sealed with AES-256-GCM without
/// associated data.
#[tokio::test]
async fn postgres_database_of_an_older_server_is_adopted() {
    use aes_gcm::aead::{Aead as _, KeyInit as _};
    let postgres = Postgres::start().await;
    let url = postgres.url(&postgres.create_database().await);
    let at_rest = [0x42; 32];
    let nonce = [9; 12];
    let cipher = aes_gcm::Aes256Gcm::new(&at_rest.into());
    let sealed = cipher.encrypt(&nonce.into(), &KEY[..]).unwrap();
    let (ciphertext, tag) = sealed.split_at(32);
    let text = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let database = Database::connect(&url).await;
    database
        .execute(&format!(
            "CREATE TABLE message_metadata (message_id TEXT PRIMARY KEY, client_id TEXT, \
             exchange_name TEXT, \
             routing_key TEXT, sent_time TEXT, delivered_time TEXT, acknowledged_time \
             TEXT);
             CREATE TABLE public_keys (client_id TEXT PRIMARY KEY, \
             public_key_ciphertext TEXT, nonce TEXT, tag TEXT);
             INSERT INTO \
             message_metadata VALUES
               ('old-1', 'sender', 'e', 'k', \
             '2025-09-08T07:03:00Z', '2025-09-08T07:03:01Z', \
             '2025-09-08T07:03:02Z'),
               ('old-2', 'sender', 'e', 'k', \
             '2025-09-08T07:03:00Z', NULL, NULL);
             INSERT INTO public_keys VALUES \
             ('receiver', '{}', '{}', '{}')",
            text(ciphertext),
            text(&nonce),
            text(tag),
        ))
        .await;
    let options = Options::postgres(&url)
        .set("encryption", "algorithm", "x25519_chacha20_poly1305")
        .set("encryption", "aes_key", text(&at_rest));
    let mut server = Server::start(options).await;
    let mut sender = sender_with_queue(&server).await;
    let key = format!("Public key: {}", text(&KEY));
    sender.ask("get_public_key receiver", &key).await;
    // The key was sealed again, and can still be read.
    let sealed = "SELECT public_key_ciphertext, algorithm FROM public_keys";
    let rows = database.rows(sealed).await;
    assert_ne!(rows[0][0].as_deref(), Some(text(ciphertext).as_str()));
    assert_eq!(rows[0][1].as_deref(), Some("aes-256-gcm"));
    sender.ask("get_public_key receiver", &key).await;
    let metadata = "SELECT sent_time, delivered_time, acknowledged_time FROM message_metadata \
                    ORDER BY message_id";
    let time = |second: u8| Some(format!("2025-09-08T07:03:0{second}Z"));
    assert_eq!(
        database.rows(metadata).await,
        [[time(0), time(1), time(2)], [time(0), None, None]]
    );
    // The ids of old messages are in use; waiting messages were in the older server's memory only.
    let old = EnvelopeText::older("old-1", "receiver");
    sender.send_line(&format!("publish e k {old}")).await;
    sender.expect_prefix("Error: id_in_use: ").await;
    sender.ask("resend old-2", "Message ID not found").await;
    let new = EnvelopeText::older("new", "receiver");
    sender.ask(&format!("publish e k {new}"), "ACK new").await;
    server.restart().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.ask("get_public_key receiver", &key).await;
}

#[tokio::test]
async fn the_at_rest_key_is_created_on_the_first_start_and_is_private() {
    let mut server = Server::start(Options::sqlite()).await;
    let path = server.folder().join("data/at-rest.key");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let made = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        BASE64_STANDARD.decode(made.trim_ascii_end()).unwrap().len(),
        32
    );
    assert!(
        server.console().text().contains("at-rest.key"),
        "it is logged"
    );
    process_some_messages(&server).await;
    server.restart().await;
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        made,
        "it is created once"
    );
    let mut sender = RawClient::connect(&server, "sender").await;
    let key = format!("Public key: {}", BASE64_STANDARD.encode(KEY));
    sender.ask("get_public_key receiver", &key).await;
    server.terminate().await;

    // An exposed key file is refused.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = Server::refused(Options::sqlite().set(
        "encryption",
        "aes_key_file",
        path.display().to_string(),
    ))
    .await;
    refused.expect_error(&[&path.display().to_string(), "chmod"]);
    // With another key the directory cannot be read, which is reported; it is not emptied.
    server.configure("encryption", "aes_key", BASE64_STANDARD.encode([1; 32]));
    server.restart().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.send_line("get_public_key receiver").await;
    sender.expect_prefix("Error: storage_unavailable: ").await;
    sender.ask("ping", "PONG").await;
}

#[tokio::test]
async fn an_invalid_at_rest_key_is_reported() {
    for bad in [
        "",
        "short",
        &BASE64_STANDARD.encode([1; 31]),
        &BASE64_STANDARD.encode([1; 33]),
        "AAA=AAA=",
    ] {
        let refused = Server::refused(Options::sqlite().set("encryption", "aes_key", bad)).await;
        refused.expect_error(&["aes_key", "openssl rand -base64 32"]);
        assert!(
            bad.is_empty() || !refused.stderr.contains(bad),
            "{}",
            refused.stderr
        );
    }
}
