//! Queues, exchanges, bindings, consumers and connections.

use ciphermq_tests::{Backend, PATIENCE, RawClient, Server};
use tokio::time::Instant;

use super::{exceeded, limits, server, with_limits};

pub(super) async fn each_quota_refuses_with_its_name(backend: Backend) {
    let options = with_limits(&backend, "queues = 2\nexchanges = 1\nbindings = 2").await;
    let entries = [
        "clients = [\"big-*\"]\nqueues = 3",
        "clients = [\"*\"]\nexchanges = 2",
    ];
    let entries: Vec<toml::Value> = entries.map(limits).into();
    let mut server = Server::start(options.set("limits", "clients", entries)).await;
    let mut one = RawClient::connect(&server, "one").await;
    for queue in ["q1", "q2", "q1"] {
        one.ask(&format!("declare_queue {queue}"), "Queue declared")
            .await;
    }
    assert_eq!(exceeded(&mut one, "declare_queue q3", "queues").await, 2);
    assert_eq!(exceeded(&mut one, "consume q3", "queues").await, 2);
    // The second entry names everybody else.
    for exchange in ["e1", "e2", "e1"] {
        one.ask(&format!("declare_exchange {exchange}"), "Exchange declared")
            .await;
    }
    assert_eq!(
        exceeded(&mut one, "declare_exchange e3", "exchanges").await,
        2
    );
    for key in ["k1", "k2", "k1"] {
        one.ask(&format!("bind q1 e1 {key}"), "Queue bound").await;
    }
    assert_eq!(exceeded(&mut one, "bind q1 e1 k3", "bindings").await, 2);
    // What another one has made counts for the other one, and is no new queue.
    let mut big = RawClient::connect(&server, "big-1").await;
    for queue in ["q1", "b1", "b2", "b3", "q2"] {
        big.ask(&format!("declare_queue {queue}"), "Queue declared")
            .await;
    }
    assert_eq!(exceeded(&mut big, "declare_queue b4", "queues").await, 3);
    big.ask("declare_exchange e1", "Exchange declared").await;
    big.ask("declare_exchange b1", "Exchange declared").await;
    assert_eq!(
        exceeded(&mut big, "declare_exchange b2", "exchanges").await,
        1
    );
    big.ask("ping", "PONG").await;

    // The same after a restart, and with lower limits: what exists stays, and is declared.
    server.terminate().await;
    server.configure(
        "limits",
        "client",
        limits("queues = 1\nexchanges = 1\nbindings = 1"),
    );
    server.restart().await;
    let mut one = RawClient::connect(&server, "one").await;
    one.ask("declare_queue q2", "Queue declared").await;
    one.ask("bind q1 e1 k2", "Queue bound").await;
    assert_eq!(exceeded(&mut one, "declare_queue q3", "queues").await, 1);
    assert_eq!(exceeded(&mut one, "bind q2 e1 k2", "bindings").await, 1);
    server.terminate().await;
}

pub(super) async fn what_is_removed_makes_room(backend: Backend) {
    let server = server(&backend, "queues = 2\nexchanges = 1\nbindings = 3").await;
    let mut one = RawClient::connect(&server, "one").await;
    one.ask("declare_exchange e", "Exchange declared").await;
    for queue in ["q1", "q2"] {
        one.ask(&format!("declare_queue {queue}"), "Queue declared")
            .await;
    }
    for (queue, key) in [("q1", "k1"), ("q1", "k2"), ("q2", "k1")] {
        one.ask(&format!("bind {queue} e {key}"), "Queue bound")
            .await;
    }
    assert_eq!(exceeded(&mut one, "bind q2 e k2", "bindings").await, 3);
    one.ask("unbind q1 e k1", "Queue unbound").await;
    one.ask("bind q2 e k2", "Queue bound").await;
    // A queue takes its bindings with it, and an exchange, too.
    one.ask("delete_queue q2", "Queue deleted").await;
    one.ask("declare_queue q3", "Queue declared").await;
    for key in ["k3", "k4"] {
        one.ask(&format!("bind q3 e {key}"), "Queue bound").await;
    }
    assert_eq!(exceeded(&mut one, "bind q3 e k5", "bindings").await, 3);
    one.ask("delete_exchange e", "Exchange deleted").await;
    one.ask("declare_exchange f", "Exchange declared").await;
    for key in ["k1", "k2", "k3"] {
        one.ask(&format!("bind q3 f {key}"), "Queue bound").await;
    }
    assert_eq!(exceeded(&mut one, "bind q3 f k4", "bindings").await, 3);
}

pub(super) async fn connections_and_consumers_are_bounded(backend: Backend) {
    let server = server(&backend, "connections = 2\nconsumers = 2").await;
    let mut one = RawClient::connect(&server, "one").await;
    let mut two = RawClient::connect(&server, "one").await;
    one.ask("consume q1 1", "Subscribed to queue").await;
    two.ask("consume q1 1", "Subscribed to queue").await;
    assert_eq!(exceeded(&mut one, "consume q2 1", "consumers").await, 2);
    one.ask("consume q1 5", "Subscribed to queue").await;
    let mut third = RawClient::connect(&server, "one").await;
    let prefix = "Error: overloaded: limits.client.connections, or its older name";
    third.expect_prefix(prefix).await;
    let mut other = RawClient::connect(&server, "other").await;
    other.ask("consume q2 1", "Subscribed to queue").await;
    // The end of a connection makes room, once the server has noticed it.
    two.end().await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        one.send_line("consume q2 1").await;
        let reply = one.line().await;
        if reply == "Subscribed to queue" {
            break;
        }
        assert!(reply.starts_with("Error: quota_exceeded"), "{reply}");
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}
