//! The effect of each command, and the clients that may use it.

use ciphermq_tests::{Backend, EnvelopeText, RawClient, Server};

use super::{batch, json, owner, until_rejected};

pub(super) async fn a_route_has_a_bounded_number_of_queues(backend: Backend) {
    let options = backend.options().await;
    let server = Server::start(options.set("limits", "max_queues_per_route", 6)).await;
    let mut one = owner(&server).await;
    let mut other = RawClient::connect(&server, "other").await;
    for queue in 1..=4 {
        one.ask(&format!("declare_queue q{queue}"), "Queue declared")
            .await;
    }
    for queue in 1..=3 {
        one.ask(&format!("bind q{queue} e k"), "Queue bound").await;
    }
    one.ask(
        "bind q4 e k",
        "Error: limit_reached: 4 queues of this client are bound to exchange 'e' by 'k', which is \
         the most; unbind one first, or bind by another routing key",
    )
    .await;
    one.ask("bind q1 e k", "Queue bound").await;
    one.ask("bind q4 e other", "Queue bound").await;
    for queue in ["q4", "q5"] {
        other
            .ask(&format!("declare_queue {queue}"), "Queue declared")
            .await;
        other.ask(&format!("bind {queue} e k"), "Queue bound").await;
    }
    other.ask("declare_queue q6", "Queue declared").await;
    other.send_line("bind q6 e k").await;
    let full = other
        .expect_prefix("Error: limit_reached: 6 queues are bound")
        .await;
    assert!(full.contains("unbind one first"), "{full}");
    // Room is made by who has bound a queue, and by nobody else.
    other.send_line("unbind q1 e k").await;
    other
        .expect_prefix("Error: not_authorized: this binding was made by another")
        .await;
    one.ask("unbind q1 e k", "Queue unbound").await;
    other.ask("bind q6 e k", "Queue bound").await;
}

pub(super) async fn only_its_maker_removes_a_queue_exchange_or_binding(backend: Backend) {
    let server = backend.server().await;
    let mut one = owner(&server).await;
    let mut other = RawClient::connect(&server, "other").await;
    for command in [
        "delete_queue q",
        "purge_queue q",
        "delete_exchange e",
        "unbind q e k",
    ] {
        other.send_line(command).await;
        other.expect_prefix("Error: not_authorized: ").await;
    }
    for (command, reply) in [
        (
            "delete_queue none",
            "Error: not_found: queue 'none' does not exist",
        ),
        (
            "purge_queue none",
            "Error: not_found: queue 'none' does not exist",
        ),
        (
            "delete_exchange none",
            "Error: not_found: exchange 'none' does not exist",
        ),
        (
            "unbind q e x",
            "Error: not_found: queue 'q' is not bound to exchange 'e' by 'x'",
        ),
        (
            "unbind x e k",
            "Error: not_found: queue 'x' is not bound to exchange 'e' by 'k'",
        ),
    ] {
        one.ask(command, reply).await;
    }
    // A message for somebody else.
    let envelope = EnvelopeText::modern("theirs", "other");
    one.ask(&format!("publish e k {envelope}"), "ACK theirs")
        .await;
    for command in ["delete_queue q", "purge_queue q"] {
        one.send_line(command).await;
        one.expect_prefix("Error: in_use: queue 'q' holds messages for other clients")
            .await;
    }
    other.ask("ack theirs", "ACK_CONFIRMED theirs").await;
    one.ask(
        "delete_exchange e if-unused",
        "Error: in_use: queues are bound to exchange 'e'; \
        unbind them first",
    )
    .await;
    one.ask("unbind q e k", "Queue unbound").await;
    let envelope = EnvelopeText::modern("m", "owner");
    one.ask(
        &format!("publish e k {envelope}"),
        "Error: no_route: exchange 'e' has no queue bound by 'k'; bind one first",
    )
    .await;
    one.ask("bind q e k", "Queue bound").await;
    one.ask(&format!("publish e k {envelope}"), "ACK m").await;
    one.send_line("delete_queue q if-empty").await;
    one.expect_prefix("Error: in_use: queue 'q' is not empty")
        .await;
    one.ask("delete_queue q if-unused", "Queue deleted").await;
    let found = until_rejected(&mut one, 1).await;
    assert_eq!(found["m"], "queue 'q' was deleted by owner");
    one.ask(
        &format!("publish e k {}", EnvelopeText::modern("n", "owner")),
        "Error: no_route: exchange 'e' has no queue bound by 'k'; bind one first",
    )
    .await;
    one.ask("delete_exchange e if-unused", "Exchange deleted")
        .await;
    one.ask(
        "bind q e k",
        "Error: not_found: queue 'q' does not exist; declare it first",
    )
    .await;
    // A retry of the message that was rejected is recognised once there is a route again.
    one.declare_and_bind("q", "e", "k").await;
    one.ask(&format!("publish e k {envelope}"), "ACK m").await;
    one.ask("fetch q", "No messages").await;
}

pub(super) async fn a_consumer_learns_that_its_queue_is_gone(backend: Backend) {
    let server = backend.server().await;
    let mut one = owner(&server).await;
    let mut consumer = RawClient::connect(&server, "owner").await;
    consumer.ask("consume q 10", "Subscribed to queue").await;
    one.send_line("delete_queue q if-unused").await;
    one.expect_prefix("Error: in_use: clients consume from queue 'q'")
        .await;
    // Another client's consumer keeps the queue.
    let mut other = RawClient::connect(&server, "other").await;
    other.ask("consume q", "Subscribed to queue").await;
    one.send_line("delete_queue q").await;
    one.expect_prefix("Error: in_use: clients consume from queue 'q'")
        .await;
    other.end().await;
    let envelope = EnvelopeText::modern("m", "owner");
    one.ask(&format!("publish e k {envelope}"), "ACK m").await;
    consumer.expect(&format!("Message: m {envelope}")).await;
    loop {
        one.send_line("delete_queue q").await;
        let reply = one.line().await;
        if reply == "Queue deleted" {
            break;
        }
        // The server may not have noticed the end of the other connection yet.
        assert!(
            reply.starts_with("Error: in_use: clients consume"),
            "{reply}"
        );
        tokio::task::yield_now().await;
    }
    // What it was handed is set aside as well, and the connection ends.
    consumer.expect_closed().await;
    until_rejected(&mut one, 1).await;
    one.ask("ack m", "ACK_CONFIRMED m").await;
    // A connection that deletes its own queue continues.
    one.ask("consume again", "Subscribed to queue").await;
    one.ask("delete_queue again", "Queue deleted").await;
    one.ask("ping", "PONG").await;
    one.ask("consume again", "Subscribed to queue").await;
    one.ask("bind again e k", "Queue bound").await;
    let envelope = EnvelopeText::modern("n", "owner");
    let mut sender = RawClient::connect(&server, "sender").await;
    sender
        .ask(&format!("publish e k {envelope}"), "ACK n")
        .await;
    one.expect(&format!("Message: n {envelope}")).await;
}

pub(super) async fn a_purge_leaves_what_comes_later(backend: Backend) {
    let server = backend.server().await;
    let mut one = owner(&server).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender
        .send_line(&batch((0..1500).map(|n| format!("m{n}"))))
        .await;
    for n in 0..1500 {
        sender.expect(&format!("ACK m{n}")).await;
    }
    let mut consumer = RawClient::connect(&server, "owner").await;
    consumer.ask("consume q 2", "Subscribed to queue").await;
    for n in 0..2 {
        consumer.expect_prefix(&format!("Message: m{n} ")).await;
    }
    one.ask("purge_queue q", "Queue purged").await;
    // The delivered message no longer uses credit, so the next one arrives.
    let later = EnvelopeText::modern("later", "owner");
    sender
        .ask(&format!("publish e k {later}"), "ACK later")
        .await;
    consumer.expect(&format!("Message: later {later}")).await;
    consumer.ask("ack later", "ACK_CONFIRMED later").await;
    let found = until_rejected(&mut one, 1500).await;
    assert!(
        found
            .values()
            .all(|reason| reason == "queue 'q' was purged by owner")
    );
    consumer.ask("ack m0", "ACK_CONFIRMED m0").await;
    drop(consumer);
    one.ask("fetch q", "No messages").await;
}

pub(super) async fn lists_show_what_a_client_may_see(backend: Backend) {
    let server = backend.server().await;
    let mut one = owner(&server).await;
    let mut other = RawClient::connect(&server, "other").await;
    other.ask("consume q", "Subscribed to queue").await;
    let envelope = EnvelopeText::modern("m", "owner");
    one.ask(&format!("publish e k {envelope}"), "ACK m").await;
    let mut third = RawClient::connect(&server, "third").await;
    third.declare_and_bind("mine", "e", "theirs").await;

    let queues = json(&mut one, "list_queues", "Queues: ").await;
    assert_eq!(
        queues,
        serde_json::json!({"queues": [
            {"queue": "q", "made_by": "owner", "bindings": 1, "consumers": 1, "messages": 1}
        ]})
    );
    // Who only consumes sees the queue, and of the messages its own.
    let queues = json(&mut other, "list_queues {\"queue\":\"q\"}", "Queues: ").await;
    assert_eq!(
        queues,
        serde_json::json!({"queues": [
            {"queue": "q", "made_by": "owner", "bindings": 1, "consumers": 1, "messages": 0}
        ]})
    );
    assert_eq!(
        json(&mut other, "list_exchanges", "Exchanges: ").await["exchanges"],
        { serde_json::json!([]) }
    );
    let exchanges = json(&mut third, "list_exchanges", "Exchanges: ").await;
    assert_eq!(
        exchanges,
        serde_json::json!({"exchanges": [{"exchange": "e", "made_by": "owner", "bindings": 2}]})
    );
    let bindings = json(&mut third, "list_bindings", "Bindings: ").await;
    let theirs = serde_json::json!(
        {"exchange": "e", "routing_key": "theirs", "queue": "mine", "made_by": "third"}
    );
    assert_eq!(bindings, serde_json::json!({"bindings": [theirs]}));
    // Who has made the exchange sees all that is bound to it, page by page.
    let page = json(&mut one, "list_bindings {\"limit\":1}", "Bindings: ").await;
    assert_eq!(page["bindings"][0]["routing_key"], "k");
    let next = format!("list_bindings {{\"after\":{}}}", page["next"]);
    let page = json(&mut one, &next, "Bindings: ").await;
    assert_eq!(page, serde_json::json!({"bindings": [theirs]}));
    other.send_line("delete_queue mine").await;
    other.expect_prefix("Error: not_authorized: ").await;
}

pub(super) async fn an_administrator_removes_everything(backend: Backend) {
    let administrators = toml::Value::from(vec!["admin-*"]);
    let options = backend.options().await;
    let server =
        Server::start(options.set("authorization", "administrators", administrators)).await;
    let mut one = owner(&server).await;
    let mut consumer = RawClient::connect(&server, "other").await;
    consumer.ask("consume q", "Subscribed to queue").await;
    for (id, receiver) in [("a", "other"), ("b", "owner")] {
        let envelope = EnvelopeText::modern(id, receiver);
        one.ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
            .await;
    }
    consumer.expect_prefix("Message: a ").await;
    let mut admin = RawClient::connect(&server, "admin-1").await;
    let queues = json(&mut admin, "list_queues", "Queues: ").await;
    assert_eq!(queues["queues"][0]["messages"], 2);
    // One client's share of a route is no limit for it.
    for queue in 0..5 {
        admin
            .ask(&format!("declare_queue a{queue}"), "Queue declared")
            .await;
        admin
            .ask(&format!("bind a{queue} e many"), "Queue bound")
            .await;
    }
    admin.send_line("delete_queue q if-empty").await;
    admin
        .expect_prefix("Error: in_use: queue 'q' is not empty")
        .await;
    admin.ask("unbind q e k", "Queue unbound").await;
    admin.ask("delete_queue q", "Queue deleted").await;
    consumer.expect_closed().await;
    let found = until_rejected(&mut one, 2).await;
    assert_eq!(found["a"], "queue 'q' was deleted by admin-1");
    admin.send_line("delete_exchange e if-unused").await;
    admin.expect_prefix("Error: in_use: ").await;
    admin.ask("delete_exchange e", "Exchange deleted").await;
    one.send_line("bind a0 e k").await;
    one.expect_prefix("Error: not_found: exchange 'e' does not exist")
        .await;
}
