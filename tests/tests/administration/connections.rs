//! `list_connections`, `close_connection` and `list_clients`.

use ciphermq_tests::{Backend, EnvelopeText, RawClient};
use serde_json::{Value, json};

use crate::{connections, json as reply, server};

const NOT_ALLOWED: &str = "Error: not_authorized: no rule allows it, and the client is none of \
                           the administrators: owner may not administer the server";

#[tokio::test]
async fn others_learn_which_right_they_lack() {
    let server = server(&Backend::Sqlite).await;
    let mut owner = RawClient::connect(&server, "owner").await;
    for command in [
        "list_connections",
        "close_connection 1",
        "list_clients",
        "block_client ops",
        "unblock_client ops",
    ] {
        owner.ask(command, NOT_ALLOWED).await;
    }
    // The first refusal is logged, the others are counted.
    let line = server.console().expect("Refused: ").await;
    assert!(line.contains("owner may not administer"), "{line}");
    let lines = server.console().text();
    assert_eq!(lines.matches("Refused: ").count(), 1, "{lines}");
}

#[tokio::test]
async fn connections_are_listed_with_what_they_do() {
    let server = server(&Backend::Sqlite).await;
    let mut ops = RawClient::connect(&server, "ops").await;
    let mut owner = RawClient::connect(&server, "owner").await;
    owner
        .send_line(r#"hello {"client":"program 1","consumer":"u","packed":true}"#)
        .await;
    owner.expect_prefix("Hello: ").await;
    owner.declare_and_bind("q", "e", "k").await;
    owner.ask("consume q 5", "Subscribed to queue").await;
    for id in ["m", "n"] {
        let envelope = EnvelopeText::modern(id, "owner");
        ops.ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
            .await;
        owner.line().await;
    }
    owner.ask("ack m", "ACK_CONFIRMED_ALL 1").await;
    let listed = connections(&mut ops, "owner").await;
    let [connection] = &listed[..] else {
        panic!("{listed:?}");
    };
    let mut connection = connection.clone();
    for field in ["since", "address"] {
        let text = connection[field].take();
        assert!(text.as_str().is_some_and(|text| text.len() > 8), "{text}");
    }
    let number = connection["connection"].take();
    assert_eq!(
        connection,
        json!({
            "connection": null, "client": "owner", "address": null, "since": null, "tls": "1.3",
            "program": "program 1", "consumer": "u", "queues": ["q"], "in_flight": 1,
            "packed": true,
        })
    );
    // Pages continue after a number.
    let all = reply(&mut ops, "list_connections", "Connections: ").await;
    let first = reply(&mut ops, "list_connections {\"limit\":1}", "Connections: ").await;
    let rest = format!("list_connections {{\"after\":{}}}", first["next"]);
    let rest = reply(&mut ops, &rest, "Connections: ").await;
    assert_eq!(rest["next"], Value::Null);
    let pages: Vec<&Value> = [&first, &rest]
        .iter()
        .flat_map(|page| page["connections"].as_array().unwrap())
        .collect();
    assert_eq!(pages.len(), 2);
    let listed = all["connections"].as_array().unwrap().iter();
    assert!(
        listed
            .zip(pages)
            .all(|(one, other)| one["connection"] == other["connection"])
    );

    ops.ask(&format!("close_connection {number}"), "Connection closed")
        .await;
    let last = owner.line().await;
    assert!(last.starts_with("Error: connection_closed: "), "{last}");
    owner.expect_closed().await;
    assert!(connections(&mut ops, "owner").await.is_empty());
    let none = format!("Error: not_found: there is no connection {number}");
    ops.ask(&format!("close_connection {number}"), &none).await;
    // What it has not acknowledged comes again.
    let mut again = RawClient::connect(&server, "owner").await;
    again.ask("consume q 5", "Subscribed to queue").await;
    again.expect_prefix("Message: n ").await;
}

#[tokio::test]
async fn commands_before_the_end_are_answered_and_later_ones_are_not() {
    let server = server(&Backend::Sqlite).await;
    let mut ops = RawClient::connect(&server, "ops").await;
    let mut owner = RawClient::connect(&server, "owner").await;
    owner.ask("ping", "PONG").await;
    let number = connections(&mut ops, "owner").await[0]["connection"].clone();
    ops.ask(&format!("close_connection {number}"), "Connection closed")
        .await;
    // It may have been closed already.
    let _ = owner.try_send(b"declare_queue late\n").await;
    let last = owner.line().await;
    assert!(last.starts_with("Error: connection_closed: "), "{last}");
    let queues = reply(&mut ops, "list_queues", "Queues: ").await;
    assert_eq!(queues["queues"], json!([]));
}

#[tokio::test]
async fn clients_are_listed_with_what_they_hold() {
    let server = server(&Backend::Sqlite).await;
    let mut ops = RawClient::connect(&server, "ops").await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut other = RawClient::connect(&server, "owner").await;
        other.ask("ping", "PONG").await;
        others.push(other);
    }
    let page = reply(&mut ops, "list_clients", "Clients: ").await;
    let clients = page["clients"].as_array().unwrap();
    let ids: Vec<&Value> = clients.iter().map(|client| &client["client"]).collect();
    assert_eq!(ids, ["ops", "owner"]);
    assert_eq!(clients[0]["administrator"], true);
    assert_eq!(clients[1]["administrator"], Value::Null);
    assert_eq!(clients[1]["connections"], 3);
    let quotas = clients[1]["quotas"].as_array().unwrap();
    let connections = quotas.iter().find(|quota| quota["quota"] == "connections");
    let connections = connections.expect("connections have a quota");
    assert_eq!(
        (&connections["held"], &connections["limit"]),
        (&json!(3), &json!(2000))
    );
    let first = reply(&mut ops, "list_clients {\"limit\":1}", "Clients: ").await;
    assert_eq!(first["next"], "ops");
    let rest = reply(&mut ops, "list_clients {\"after\":\"ops\"}", "Clients: ").await;
    assert_eq!(rest["clients"].as_array().unwrap().len(), 1);
    assert_eq!(rest["next"], Value::Null);
    let none = reply(
        &mut ops,
        "list_clients {\"client\":\"nobody\"}",
        "Clients: ",
    )
    .await;
    assert_eq!(none, json!({"clients": []}));
}
