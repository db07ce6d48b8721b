//! `reload`: an administrator has the server read its configuration again, and learns the result.

use std::sync::Arc;

use ciphermq_client::{RequestErrorKind, default_queue, default_routing_key};
use ciphermq_tests::sdk::{Keys, connect};
use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, Cli, EnvelopeText, PATIENCE, Pki, RawClient, Server};
use tokio::time::timeout;

use crate::{administered, server};

fn limits(text: &str) -> toml::Value {
    text.parse::<toml::Table>().unwrap().into()
}

fn publish(id: &str) -> String {
    format!("publish e k {}", EnvelopeText::modern(id, "owner"))
}

#[tokio::test]
async fn an_administrator_learns_what_has_changed_and_what_is_wrong() {
    let pki = Arc::new(Pki::new());
    let options = administered(Options::sqlite()).pki(Arc::clone(&pki));
    let mut server = Server::start(options).await;
    let mut ops = RawClient::connect(&server, "ops").await;
    let mut other = RawClient::connect(&server, "other").await;
    let refused = "Error: not_authorized: no rule allows it, and the client is none of the \
                   administrators: other may not administer the server";
    other.ask("reload", refused).await;
    ops.ask("reload", "Reloaded: {\"changed\":[],\"restart\":[]}")
        .await;

    server.configure("authorization", "default", "deny");
    server.configure("limits", "max_prefetch", 7);
    server.configure("limits", "max_connections_per_client", 8);
    server.configure("logging", "level", "debug");
    server.write_config();
    let renewed = pki.authority().server(&["localhost", "127.0.0.1"]);
    let certificate = pki.folder().join("server.crt");
    std::fs::write(&certificate, renewed.certificate_pem()).unwrap();
    // Without its key, nothing at all is in force.
    ops.send_line("reload").await;
    let error = ops.expect_prefix("Error: bad_configuration: ").await;
    assert!(
        error.contains("do not belong together. Name a certificate and the key"),
        "{error}"
    );
    other.ask("declare_queue q", "Queue declared").await;
    std::fs::write(pki.folder().join("server.key"), renewed.key_pem()).unwrap();
    ops.ask(
        "reload",
        "Reloaded: {\"changed\":[\"certificate\",\"rules\",\"quotas\",\"log_level\"],\
         \"restart\":[\"[limits] max_prefetch\"]}",
    )
    .await;
    other.send_line("declare_queue q").await;
    other.expect_prefix("Error: not_authorized: ").await;

    let sdk = connect(&server, "ops").await;
    let reloaded = sdk.reload().await.unwrap();
    assert!(reloaded.changed.is_empty(), "{reloaded:?}");
    assert_eq!(reloaded.restart, ["[limits] max_prefetch"]);
    std::fs::write(server.folder().join("config.toml"), "").unwrap();
    let error = sdk.reload().await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::BadConfiguration);
    let failed = reload_with_cli(&server, "ops", &[]).await.code(1).stderr;
    assert!(
        failed.contains("is empty. Write the whole file"),
        "{failed}"
    );
    server.configure("authorization", "default", "allow");
    server.write_config();
    assert_eq!(
        reload_with_cli(&server, "ops", &[]).await.success().stdout,
        "in force: rules\nonly after a restart: [limits] max_prefetch\n"
    );
    assert_eq!(
        reload_with_cli(&server, "ops", &["--json"])
            .await
            .success()
            .stdout,
        "{\"changed\":[],\"restart\":[\"[limits] max_prefetch\"]}\n"
    );
    let refused = reload_with_cli(&server, "other", &[]).await.code(1).stderr;
    assert!(refused.contains("other may not administer"), "{refused}");
}

async fn reload_with_cli(
    server: &Server,
    client: &str,
    arguments: &[&str],
) -> ciphermq_tests::cli::Outcome {
    let command = Cli::new("reload").args(arguments);
    command.connecting(server, client).run().await
}

#[tokio::test]
async fn other_quotas_are_in_force_on_open_connections() {
    let mut server = server(&Backend::Sqlite).await;
    let mut ops = RawClient::connect(&server, "ops").await;
    let mut owner = RawClient::connect(&server, "owner").await;
    let reload = async |server: &Server, ops: &mut RawClient| {
        server.write_config();
        let changed = "Reloaded: {\"changed\":[\"quotas\"],\"restart\":[]}";
        ops.ask("reload", changed).await;
    };
    owner.declare_and_bind("q", "e", "k").await;
    owner.ask("declare_queue q2", "Queue declared").await;
    for id in ["m1", "m2", "m3"] {
        owner.ask(&publish(id), &format!("ACK {id}")).await;
    }
    let lowered = "publish_bytes_per_second = 1\nqueues = 1";
    server.configure("limits", "client", limits(lowered));
    reload(&server, &mut ops).await;
    // What was sent before is not owed.
    owner.ask(&publish("m4"), "ACK m4").await;
    owner.send_line(&publish("m5")).await;
    let limited = "Error: rate_limited: limits.client.publish_bytes_per_second is 1 for owner; ";
    owner.expect_prefix(limited).await;
    // What there is stays.
    owner.ask("declare_queue q2", "Queue declared").await;
    owner.send_line("declare_queue q3").await;
    owner.expect_prefix("Error: quota_exceeded: ").await;

    // Only certain clients are limited now.
    let certain = limits("clients = [\"own*\"]\nwaiting_messages = 4");
    server.configure("limits", "client", limits(""));
    server.configure("limits", "clients", vec![certain]);
    reload(&server, &mut ops).await;
    owner.ask("declare_queue q3", "Queue declared").await;
    owner.send_line(&publish("m5")).await;
    owner
        .expect_prefix("Error: quota_exceeded: limits.client.waiting_messages is 4 for owner; ")
        .await;
    owner.ask("ack m1", "ACK_CONFIRMED m1").await;
    owner.ask(&publish("m5"), "ACK m5").await;
}

#[tokio::test]
async fn another_log_level_is_in_force() {
    let mut server = server(&Backend::Sqlite).await;
    let mut ops = RawClient::connect(&server, "ops").await;
    let mut connect_at = async |level: &str, client: &str| {
        server.configure("logging", "level", level);
        server.write_config();
        ops.send_line("reload").await;
        ops.expect_prefix("Reloaded: {\"changed\":[\"log_level\"]")
            .await;
        RawClient::connect(&server, client)
            .await
            .ask("ping", "PONG")
            .await;
    };
    connect_at("warn", "unseen").await;
    connect_at("info", "seen").await;
    let logged = server.console().expect("Client disconnected").await;
    assert!(
        logged.contains("seen") && !logged.contains("unseen"),
        "{logged}"
    );
    let text = server.console().text();
    assert!(!text.contains("unseen"), "{text}");
}

/// The messages that flow while the configuration and certificates are read again.
const MESSAGES: u64 = 3000;

pub(super) async fn a_reload_while_messages_flow_loses_and_doubles_nothing(backend: Backend) {
    let pki = Arc::new(Pki::new());
    let options = administered(backend.options().await).pki(Arc::clone(&pki));
    let server = Server::start(options).await;
    let (ops, receiver, sender) = (
        connect(&server, "ops").await,
        connect(&server, "receiver").await,
        connect(&server, "sender").await,
    );
    let queue = default_queue(receiver.id()).unwrap();
    let consumer = receiver
        .consumer(&queue)
        .keyring(Keys::new().keyring())
        .register_key(true);
    let key = default_routing_key(receiver.id()).unwrap();
    let exchange = "ciphermq_exchange".parse().unwrap();
    let mut consumer = consumer.bind(exchange, key).start().await.unwrap();
    let publisher = sender.publisher(receiver.id()).start().await.unwrap();
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            publisher.submit(number.to_string().as_str()).await.unwrap();
            if number % 100 == 0 {
                publisher.flush().await.unwrap();
            }
        }
        let summary = publisher.finish().await;
        assert_eq!(summary.unacknowledged, 0);
    });
    let certificate = pki.folder().join("server.crt");
    let mut reloads = 0;
    for expected in 0..MESSAGES {
        let message = timeout(PATIENCE, consumer.next()).await.unwrap();
        let message = message.unwrap().unwrap();
        assert_eq!(message.payload(), expected.to_string().as_bytes());
        message.ack().await.unwrap();
        if expected % 200 == 0 {
            let renewed = pki.authority().server(&["localhost", "127.0.0.1"]);
            std::fs::write(&certificate, renewed.certificate_pem()).unwrap();
            std::fs::write(pki.folder().join("server.key"), renewed.key_pem()).unwrap();
            let reloaded = ops.reload().await.unwrap();
            assert_eq!(reloaded.changed, ["certificate"]);
            reloads += 1;
        }
    }
    assert_eq!(reloads, 15);
    sending.await.unwrap();
    consumer.close().await;
    let waiting: i64 = server
        .database()
        .await
        .number("SELECT COUNT(*) FROM messages")
        .await;
    assert_eq!(waiting, 0);
}
