//! How a lease ends by time: with a server whose `redelivery_timeout` is short.

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

    // Both keep theirs for longer than the time-out while anything comes from them.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        silent.ask("ping", "PONG").await;
        lively.ask("ping", "PONG").await;
    }
    // One falls silent. The other makes room, and gets what the first has lost.
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
    // Its ack still counts, late as it is.
    silent.ask("ack one", "ACK_CONFIRMED one").await;
    lively.ask("ack one", "ACK_CONFIRMED one").await;
    // Nothing is lost with it: new messages reach whoever has room.
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
        // Gone without a word, and noticed as its socket is closed: before that, the next one would
        // get the other.
        client.lose().await;
    }
    let mut client = consumer(&server, 1).await;
    client.expect(&other).await;
    client.ask("ack other", "ACK_CONFIRMED other").await;
    // Not dropped: with nothing else to do it is offered again, after a second's delay.
    client.expect(&stubborn).await;
    client.ask("ack stubborn", "ACK_CONFIRMED stubborn").await;
}
