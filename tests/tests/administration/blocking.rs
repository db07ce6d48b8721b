//! Blocked clients: live sessions end, new ones are refused, messages wait.

use ciphermq_tests::{Backend, EnvelopeText, RawClient, Server};
use serde_json::Value;

use crate::{connections, json, server, until};

const BLOCKED: &str = "Error: blocked: an administrator of the server has blocked the client \
                       'owner'; it is admitted again when an administrator unblocks it";

/// Connects as a client that is refused with a line.
async fn expect_blocked(server: &Server) {
    let mut refused = RawClient::connect(server, "owner").await;
    assert_eq!(refused.line().await, BLOCKED);
    refused.expect_closed().await;
}

pub(super) async fn a_blocked_client_is_ended_at_once(backend: Backend) {
    let server = server(&backend).await;
    let mut ops = RawClient::connect(&server, "ops").await;
    let mut idle = RawClient::connect(&server, "owner").await;
    idle.declare_and_bind("q", "e", "k").await;
    let mut consumer = RawClient::connect(&server, "owner").await;
    consumer.ask("consume q", "Subscribed to queue").await;
    ops.ask("block_client owner", "Client blocked").await;
    for live in [&mut idle, &mut consumer] {
        let _ = live.try_send(b"declare_queue late\n").await;
        assert_eq!(live.line().await, BLOCKED);
        live.expect_closed().await;
    }
    expect_blocked(&server).await;
    until("no connection is left", async || {
        connections(&mut ops, "owner").await.is_empty()
    })
    .await;
    let queues = json(&mut ops, "list_queues {\"queue\":\"late\"}", "Queues: ").await;
    assert_eq!(
        queues["queues"],
        serde_json::json!([]),
        "nothing is carried out any more"
    );
    // Others are not affected, and the block is listed with who has made it.
    let clients = json(&mut ops, "list_clients {\"client\":\"owner\"}", "Clients: ").await;
    let blocked = &clients["clients"][0]["blocked"];
    assert_eq!(blocked["by"], "ops");
    assert!(
        blocked["since"]
            .as_str()
            .is_some_and(|since| since.ends_with('Z'))
    );
    assert_eq!(clients["clients"][0]["connections"], 0);
    ops.ask("block_client owner", "Client blocked").await;
    ops.ask("unblock_client owner", "Client unblocked").await;
    ops.ask(
        "unblock_client owner",
        "Error: not_found: client 'owner' is not blocked",
    )
    .await;
    let mut again = RawClient::connect(&server, "owner").await;
    again.ask("ping", "PONG").await;
}

pub(super) async fn a_block_survives_a_restart_and_messages_wait(backend: Backend) {
    let mut server = server(&backend).await;
    let mut owner = RawClient::connect(&server, "owner").await;
    owner.declare_and_bind("q", "e", "k").await;
    let mut ops = RawClient::connect(&server, "ops").await;
    ops.ask("block_client owner", "Client blocked").await;
    let envelope = EnvelopeText::modern("m", "owner");
    ops.ask(&format!("publish e k {envelope}"), "ACK m").await;
    server.kill9().await;
    server.restart().await;
    expect_blocked(&server).await;
    let mut ops = RawClient::connect(&server, "ops").await;
    ops.ask("unblock_client owner", "Client unblocked").await;
    server.restart().await;
    let mut owner = RawClient::connect(&server, "owner").await;
    owner.ask("consume q", "Subscribed to queue").await;
    owner.expect_prefix("Message: m ").await;
}

#[tokio::test]
async fn administrators_are_not_kept_out() {
    let mut server = server(&Backend::Sqlite).await;
    server.configure("authorization", "administrators", vec!["ops", "root"]);
    let mut ops = RawClient::connect(&server, "ops").await;
    ops.ask("block_client root", "Client blocked").await;
    server.reload().await;
    for administrator in ["ops", "root"] {
        ops.ask(
            &format!("block_client {administrator}"),
            &format!(
                "Error: not_authorized: {administrator} is an administrator; take that away in \
                 the server's configuration first"
            ),
        )
        .await;
    }
    // The configuration goes before the block, which waits.
    let mut root = RawClient::connect(&server, "root").await;
    let clients = json(&mut root, "list_clients {\"client\":\"root\"}", "Clients: ").await;
    assert_eq!(clients["clients"][0]["blocked"]["by"], "ops");
    server.configure("authorization", "administrators", vec!["ops"]);
    server.reload().await;
    let last = root.line().await;
    assert!(last.starts_with("Error: blocked: "), "{last}");
    root.expect_closed().await;
    let clients = json(&mut ops, "list_clients {\"client\":\"root\"}", "Clients: ").await;
    assert_eq!(clients["clients"][0]["administrator"], Value::Null);
}

/// Clients that connect again and again hold no more than the pool of handshakes allows.
#[tokio::test]
async fn a_blocked_client_takes_no_connections_from_others() {
    let server = server(&Backend::Sqlite).await;
    let mut ops = RawClient::connect(&server, "ops").await;
    ops.ask("block_client owner", "Client blocked").await;
    for _ in 0..20 {
        expect_blocked(&server).await;
    }
    let clients = json(&mut ops, "list_clients {\"client\":\"owner\"}", "Clients: ").await;
    assert_eq!(clients["clients"][0]["connections"], 0);
    let lines = server.console().text();
    let refused = lines
        .matches("Connection refused: the client is blocked")
        .count();
    assert_eq!(refused, 1, "the others are counted: {lines}");
}
