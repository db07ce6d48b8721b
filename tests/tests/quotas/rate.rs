//! How fast a client publishes.

use std::time::Duration;

use ciphermq_client::{Event, default_routing_key};
use ciphermq_tests::sdk::{Keys, connect};
use ciphermq_tests::{Backend, Cli, RawClient, Server};
use tokio::time::timeout;

use super::{batch, limits, server, with_limits};

/// Makes the key files of `receiver`, its queue and its binding; returns the keys.
async fn receiver(server: &Server) -> Keys {
    let keys = Keys::new();
    let folder = tempfile::tempdir().unwrap();
    Cli::new("receive")
        .connecting(server, "receiver")
        .arg("--private-key")
        .arg(keys.private_key())
        .arg("--output")
        .arg(folder.path().join("received"))
        .args(["--idle-exit", "0.1"])
        .run()
        .await;
    keys
}

pub(super) async fn the_sdk_slows_down_and_loses_nothing(backend: Backend) {
    let server = server(
        &backend,
        "publish_messages_per_second = 200\npublish_burst = \"100ms\"",
    )
    .await;
    let _keys = receiver(&server).await;
    let sender = connect(&server, "sender").await;
    let mut events = sender.events();
    let publisher = sender
        .publisher(&"receiver".parse().unwrap())
        .start()
        .await
        .unwrap();
    // More than one line, of which the first one is let through whatever its size.
    for number in 0..600 {
        publisher.submit(number.to_string().as_str()).await.unwrap();
    }
    publisher.flush().await.unwrap();
    let limited = timeout(Duration::from_secs(10), async {
        loop {
            if let Event::RateLimited { pause } = events.next().await.unwrap() {
                return pause;
            }
        }
    })
    .await
    .unwrap();
    assert!(!limited.is_zero());
    let summary = publisher.finish().await;
    assert_eq!((summary.acknowledged, summary.unacknowledged), (600, 0));
    // Told once, not for each message or pause.
    sender.close().await;
    while let Some(event) = events.next().await {
        assert!(!matches!(event, Event::RateLimited { .. }));
    }
    let stored: i64 = server
        .database()
        .await
        .number("SELECT COUNT(*) FROM messages")
        .await;
    assert_eq!(stored, 600);
}

pub(super) async fn the_command_line_shows_both_well(backend: Backend) {
    let text = "publish_messages_per_second = 200\npublish_burst = \"100ms\"\n\
                waiting_messages = 500";
    let older = limits("clients = [\"older\"]\npublish_bytes_per_second = 1");
    let options = with_limits(&backend, text).await;
    let options = options.set("limits", "clients", vec![older]).set(
        "authorization",
        "administrators",
        vec!["ops"],
    );
    let server = Server::start(options).await;
    let _keys = receiver(&server).await;
    let lines: String = (0..600).map(|number| format!("line {number}\n")).collect();
    let sent = Cli::new("send")
        .connecting(&server, "sender")
        .args(["--to", "receiver"])
        .input(lines)
        .run()
        .await
        .code(3);
    let slowed = "The server limits how fast this client may publish";
    assert_eq!(sent.stderr.matches(slowed).count(), 1, "{}", sent.stderr);
    let quota = "limits.client.waiting_messages is 500 for sender";
    assert!(sent.stderr.contains(quota), "{}", sent.stderr);

    // A client that knows nothing of it is told when to send the same again.
    let mut older = RawClient::connect(&server, "older").await;
    let all: Vec<String> = (0..100).map(|number| format!("o{number}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let route = default_routing_key(&"receiver".parse().unwrap()).unwrap();
    let line = batch(&all).replace(
        "publish_batch e k",
        &format!("publish_batch ciphermq_exchange {route}"),
    );
    older.send_line(&line).await;
    for id in &all {
        older.expect(&format!("ACK {id}")).await;
    }
    older.send_line(&line).await;
    let prefix = "Error: rate_limited: limits.client.publish_bytes_per_second is 1 for older; \
                  retry in ";
    for id in &all {
        let rest = older.expect_prefix(prefix).await;
        let (pause, of) = rest.split_once(" ms for message ").unwrap();
        assert!(pause.parse::<u64>().unwrap() > 1000, "{rest}");
        assert_eq!(of, *id);
    }

    // An administrator sees it.
    let mut ops = RawClient::connect(&server, "ops").await;
    ops.send_line("list_clients {\"client\":\"older\"}").await;
    let page: serde_json::Value =
        serde_json::from_str(&ops.expect_prefix("Clients: ").await).unwrap();
    let quotas = page["clients"][0]["quotas"].as_array().unwrap();
    let rate = quotas
        .iter()
        .find(|quota| quota["quota"] == "publish_bytes_per_second")
        .unwrap();
    assert_eq!(rate["limit"], 1);
    assert!(rate["held"].as_u64().unwrap() > 1, "{rate}");
}
