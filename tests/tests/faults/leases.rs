//! Leases on a server that is killed and restarted, and of connections that die silently.
//! `tests/protocol` has the tests that need no fault.

use std::time::Duration;

use ciphermq_tests::faults::Proxy;
use ciphermq_tests::faults::proxy::NetworkConditions;
use ciphermq_tests::raw::Tls;
use ciphermq_tests::{Backend, EnvelopeText, RawClient, Server};

const CONSUMER: &str = r#"hello {"consumer":"6b5a1f0e-8f4e-4b57-9f0c-5d8e2f6f9a11"}"#;

/// A server with a sender's connection to it, and a proxy for receivers.
struct LeaseFixture {
    server: Server,
    proxy: Proxy,
    sender: RawClient,
}

impl LeaseFixture {
    async fn new(backend: &Backend, redelivery_timeout: &str) -> Self {
        let options = backend
            .options()
            .await
            .set("limits", "redelivery_timeout", redelivery_timeout)
            .set("limits", "max_redeliveries", 2);
        let server = Server::start(options).await;
        let proxy = Proxy::start(server.address()).await;
        let mut sender = RawClient::connect(&server, "sender").await;
        sender.declare_and_bind("q", "e", "k").await;
        Self {
            server,
            proxy,
            sender,
        }
    }

    async fn publish(&mut self, ids: &[&str]) {
        for id in ids {
            let envelope = EnvelopeText::older(id, "receiver");
            self.sender
                .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
                .await;
        }
    }

    /// Connects a receiver through the proxy.
    async fn receiver(&self) -> RawClient {
        let pki = self.server.pki();
        let tls = Tls::trusting(&pki.ca()).identity(pki.client("receiver"));
        RawClient::handshake(self.proxy.address(), &tls)
            .await
            .unwrap()
    }

    async fn restart_by_kill(&mut self) {
        self.server.kill9().await;
        self.server.restart().await;
        self.sender = RawClient::connect(&self.server, "sender").await;
    }
}

async fn expect_messages(client: &mut RawClient, ids: &[&str]) {
    for id in ids {
        client.expect_prefix(&format!("Message: {id} ")).await;
    }
}

pub(super) async fn a_lost_connection_returns_its_messages_at_the_head_in_order(backend: Backend) {
    let mut fixture = LeaseFixture::new(&backend, "1m").await;
    fixture.publish(&["1", "2", "3"]).await;
    let mut lost = fixture.receiver().await;
    lost.ask("consume q 3", "Subscribed to queue").await;
    expect_messages(&mut lost, &["1", "2", "3"]).await;
    fixture.publish(&["4", "5"]).await;
    lost.ask("ack 2", "ACK_CONFIRMED 2").await;
    expect_messages(&mut lost, &["4"]).await;
    fixture.proxy.cut(true);
    let mut next = fixture.receiver().await;
    next.ask("consume q 9", "Subscribed to queue").await;
    expect_messages(&mut next, &["1", "3", "4", "5"]).await;
    next.ask("ack 1 3 4 5", "ACK_CONFIRMED 1").await;
}

/// The client's machine has vanished. Its successor need not wait for the timeout.
pub(super) async fn hello_takes_over_from_a_connection_that_died_silently(backend: Backend) {
    let mut fixture = LeaseFixture::new(&backend, "1m").await;
    fixture.publish(&["1", "2", "3"]).await;
    let mut dead = fixture.receiver().await;
    dead.send_line(CONSUMER).await;
    dead.expect_prefix("Hello: ").await;
    dead.ask("consume q 2", "Subscribed to queue").await;
    expect_messages(&mut dead, &["1", "2"]).await;
    fixture.proxy.set_conditions(NetworkConditions {
        frozen: true,
        ..NetworkConditions::default()
    });
    let mut next = RawClient::connect(&fixture.server, "receiver").await;
    next.send_line(CONSUMER).await;
    next.expect_prefix("Hello: ").await;
    next.ask("consume q 9", "Subscribed to queue").await;
    expect_messages(&mut next, &["1", "2", "3"]).await;
    // Another client with the same consumer id does not take over.
    let mut other = RawClient::connect(&fixture.server, "other").await;
    other.send_line(CONSUMER).await;
    other.expect_prefix("Hello: ").await;
    next.ask("ack 1 2 3", "ACK_CONFIRMED 1").await;
}

/// Without a consumer id, only the timeout releases the messages.
pub(super) async fn a_connection_that_died_silently_loses_its_messages_after_the_timeout(
    backend: Backend,
) {
    let mut fixture = LeaseFixture::new(&backend, "1s").await;
    fixture.publish(&["1", "2"]).await;
    let mut dead = fixture.receiver().await;
    dead.ask("consume q 2", "Subscribed to queue").await;
    expect_messages(&mut dead, &["1", "2"]).await;
    fixture.proxy.set_conditions(NetworkConditions {
        frozen: true,
        ..NetworkConditions::default()
    });
    let mut next = RawClient::connect(&fixture.server, "receiver").await;
    next.ask("consume q 9", "Subscribed to queue").await;
    next.ask("ping", "PONG").await;
    expect_messages(&mut next, &["1", "2"]).await;
    next.ask("ack 1 2", "ACK_CONFIRMED 1").await;
    next.expect("ACK_CONFIRMED 2").await;
    // Its ack arrives late, but still counts.
    dead.send_line("ack 1").await;
    fixture.proxy.set_conditions(NetworkConditions::default());
    loop {
        let line = dead.line().await;
        if !line.starts_with("Message: ") {
            assert_eq!(line, "ACK_CONFIRMED 1");
            break;
        }
    }
}

pub(super) async fn only_the_receiver_settles_also_after_a_restart(backend: Backend) {
    let mut fixture = LeaseFixture::new(&backend, "1m").await;
    fixture.publish(&["1", "2", "3"]).await;
    let mut receiver = fixture.receiver().await;
    receiver.ask("consume q 9", "Subscribed to queue").await;
    expect_messages(&mut receiver, &["1", "2", "3"]).await;
    fixture.restart_by_kill().await;
    for stranger in ["other", "sender"] {
        let mut stranger = RawClient::connect(&fixture.server, stranger).await;
        for command in ["ack 1", "reject 1 no"] {
            stranger.send_line(command).await;
            stranger.expect_prefix("Error: not_authorized: ").await;
        }
    }
    // Messages written before the restart can be acked after it, without being redelivered first.
    let mut receiver = RawClient::connect(&fixture.server, "receiver").await;
    receiver.ask("ack 1", "ACK_CONFIRMED 1").await;
    receiver.ask("reject 2 because", "Rejected 2").await;
    fixture.restart_by_kill().await;
    let mut receiver = RawClient::connect(&fixture.server, "receiver").await;
    receiver.ask("ack 1", "ACK_CONFIRMED 1").await;
    receiver.ask("consume q 9", "Subscribed to queue").await;
    expect_messages(&mut receiver, &["3"]).await;
    receiver.ask("ack 3", "ACK_CONFIRMED 3").await;
    let kept = "SELECT message_id, reason FROM rejected_messages";
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        fixture.server.database().await.rows(kept).await,
        [[text("2"), text("because")]]
    );
}

/// Fetches a message that becomes available once the server has noticed that a connection ended.
async fn expect_fetched(client: &mut RawClient, id: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        client.send_line("fetch q").await;
        let line = client.line().await;
        if line.starts_with(&format!("Message: {id} ")) {
            return;
        }
        assert_eq!(line, "No messages");
        assert!(
            tokio::time::Instant::now() < deadline,
            "{id} has not become available again"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn resend_and_fetch_lease_over_a_restart(backend: Backend) {
    let mut fixture = LeaseFixture::new(&backend, "1m").await;
    fixture.publish(&["1", "2"]).await;
    let mut one = fixture.receiver().await;
    one.send_line("fetch q").await;
    expect_messages(&mut one, &["1"]).await;
    one.send_line("fetch q").await;
    expect_messages(&mut one, &["2"]).await;
    one.ask("fetch q", "No messages").await;
    fixture.sender.ask("resend 2", "Resend requested").await;
    one.send_line("fetch q").await;
    expect_messages(&mut one, &["2"]).await;
    // Fetched and lost with its connection.
    fixture.proxy.cut(true);
    let mut two = fixture.receiver().await;
    expect_fetched(&mut two, "1").await;
    fixture.restart_by_kill().await;
    fixture.sender.ask("resend 1", "Resend requested").await;
    fixture.sender.ask("resend 3", "Message ID not found").await;
    let mut three = RawClient::connect(&fixture.server, "receiver").await;
    three.send_line("fetch q").await;
    expect_messages(&mut three, &["1"]).await;
    three.ask("ack 1", "ACK_CONFIRMED 1").await;
    fixture.sender.ask("resend 1", "Message ID not found").await;
}

/// A message that is never acked is delivered a few times, then after the others. It is not
/// dropped.
pub(super) async fn an_unacked_message_does_not_block_its_queue(backend: Backend) {
    let mut fixture = LeaseFixture::new(&backend, "1m").await;
    fixture.publish(&["stubborn", "1", "2", "3"]).await;
    for _ in 0..2 {
        let mut client = fixture.receiver().await;
        client.ask("consume q 1", "Subscribed to queue").await;
        expect_messages(&mut client, &["stubborn"]).await;
        fixture.proxy.cut(true);
        client.expect_closed().await;
    }
    let mut client = fixture.receiver().await;
    client.ask("consume q 1", "Subscribed to queue").await;
    for id in ["1", "2", "3"] {
        expect_messages(&mut client, &[id]).await;
        client.ack(id).await;
    }
    expect_messages(&mut client, &["stubborn"]).await;
    tokio::time::timeout(
        Duration::from_secs(5),
        client.ask("ack stubborn", "ACK_CONFIRMED stubborn"),
    )
    .await
    .unwrap();
}
