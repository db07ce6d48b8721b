//! Expiry of leases, on a server with a short `redelivery_timeout`.

use std::time::Duration;

use ciphermq_tests::{Backend, EnvelopeText, RawClient, Server};

async fn server(backend: &Backend, timeout: &str) -> (Server, RawClient) {
    let options = backend
        .options()
        .await
        .set("limits", "redelivery_timeout", timeout);
    let server = Server::start(options.set("limits", "max_redeliveries", 2)).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    (server, sender)
}

async fn publish(sender: &mut RawClient, id: &str) -> String {
    let envelope = EnvelopeText::older(id, "receiver");
    sender
        .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
        .await;
    format!("Message: {id} {envelope}")
}

async fn consumer(server: &Server, prefetch: u32) -> RawClient {
    let mut client = RawClient::connect(server, "receiver").await;
    client
        .ask(&format!("consume q {prefetch}"), "Subscribed to queue")
        .await;
    client
}

pub(super) async fn silent_connections_lose_their_messages(backend: Backend) {
    let (server, mut sender) = server(&backend, "1s").await;
    let one = publish(&mut sender, "one").await;
    let two = publish(&mut sender, "two").await;
    let mut silent = consumer(&server, 1).await;
    silent.expect(&one).await;
    let mut lively = consumer(&server, 1).await;
    lively.expect(&two).await;

    // Both keep their lease beyond the time-out, as long as the server receives anything from them.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        silent.ask("ping", "PONG").await;
        lively.ask("ping", "PONG").await;
    }
    // One falls silent. The other one makes room, and gets the message of the silent one.
    lively.ask("ack two", "ACK_CONFIRMED two").await;
    let mut got = None;
    for _ in 0..50 {
        match lively.read_line(Duration::from_millis(200)).await {
            Ok(line) => {
                got = line;
                break;
            }
            Err(_) => lively.send_line("ping").await,
        }
        lively.expect("PONG").await;
    }
    assert_eq!(got.as_deref(), Some(one.as_str()));
    // A late ack still counts.
    silent.ask("ack one", "ACK_CONFIRMED one").await;
    lively.ask("ack one", "ACK_CONFIRMED one").await;
    // New messages reach any consumer that has room.
    let three = publish(&mut sender, "three").await;
    lively.expect(&three).await;
}

pub(super) async fn a_message_that_is_never_acked_lets_others_go_first(backend: Backend) {
    let (server, mut sender) = server(&backend, "1m").await;
    let stubborn = publish(&mut sender, "stubborn").await;
    let other = publish(&mut sender, "other").await;
    for _ in 0..2 {
        let mut client = consumer(&server, 1).await;
        client.expect(&stubborn).await;
        // The server must have noticed that this client is gone, or the next one would get the
        // other message.
        client.close_abruptly().await;
    }
    let mut client = consumer(&server, 1).await;
    client.expect(&other).await;
    client.ask("ack other", "ACK_CONFIRMED other").await;
    // It is not dropped: without other messages it is delivered again, after a delay of a second.
    client.expect(&stubborn).await;
    client.ask("ack stubborn", "ACK_CONFIRMED stubborn").await;
}
