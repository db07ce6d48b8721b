//! Receivers that neither ack nor reject what they cannot open, as the older generations do, on a
//! server with a short `redelivery_timeout`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ciphermq_tests::server::Options;
use ciphermq_tests::{EnvelopeText, RawClient, Server};

const TIMEOUT: Duration = Duration::from_secs(2);

async fn server() -> (Server, RawClient) {
    let options = Options::sqlite().set("limits", "redelivery_timeout", "2s");
    let server = Server::start(options).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    (server, sender)
}

/// Publishes `bad` bad and `good` good messages. The first of every `spread` messages is bad, until
/// there are enough of them.
async fn publish(sender: &mut RawClient, bad: usize, spread: usize, good: usize) {
    let (mut bads, mut goods) = (0, 0);
    while bads < bad || goods < good {
        let is_bad = bads < bad && (bads + goods).is_multiple_of(spread);
        let id = if is_bad {
            format!("bad-{bads}")
        } else {
            format!("good-{goods}")
        };
        bads += usize::from(is_bad);
        goods += usize::from(!is_bad);
        let envelope = EnvelopeText::older(&id, "receiver");
        sender
            .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
            .await;
    }
}

/// Reads messages and acks the good ones, until it has `good` of them. Returns their ids in order
/// of arrival. With `waits` it behaves like the oldest generation, which discards all lines before
/// the confirmation.
async fn receive(server: &Server, prefetch: usize, waits: bool, good: usize) -> Vec<String> {
    let mut client = RawClient::connect(server, "receiver").await;
    client
        .ask(&format!("consume q {prefetch}"), "Subscribed to queue")
        .await;
    let (mut seen, mut order) = (HashSet::new(), Vec::new());
    while order.len() < good {
        let line = client.line().await;
        let Some(id) = line
            .strip_prefix("Message: ")
            .and_then(|rest| rest.split(' ').next())
        else {
            assert!(line.starts_with("ACK_CONFIRMED "), "{line}");
            continue;
        };
        if id.starts_with("bad") || (!waits && !seen.insert(id.to_owned())) {
            continue;
        }
        order.push(id.to_owned());
        client.send_line(&format!("ack {id}")).await;
        while waits && client.line().await != format!("ACK_CONFIRMED {id}") {}
    }
    order
}

async fn expect_in_time(bad: usize, spread: usize, prefetch: usize, waits: bool) {
    let good = 50;
    let (server, mut sender) = server().await;
    publish(&mut sender, bad, spread, good).await;
    let start = Instant::now();
    let order = receive(&server, prefetch, waits, good).await;
    // One time-out for all bad messages together, and a margin for a slow machine.
    let took = start.elapsed();
    assert!(took < TIMEOUT * 2, "{bad} bad ones: {took:?}");
    if !waits {
        let expected: Vec<String> = (0..good).map(|n| format!("good-{n}")).collect();
        assert_eq!(order, expected);
    }
    let log = server.log("error");
    let is_reported = |line: &&serde_json::Value| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("neither acknowledged nor rejected in time"))
    };
    assert!(log.iter().any(|line| is_reported(&line)), "{log:?}");
}

#[tokio::test]
async fn one_bad_message_costs_the_others_one_timeout() {
    expect_in_time(1, 1, 1, false).await;
    expect_in_time(1, 1, 1, true).await;
}

#[tokio::test]
async fn fifty_bad_messages_in_a_row_cost_no_more() {
    expect_in_time(50, 1, 1, false).await;
    expect_in_time(50, 1, 1, true).await;
    expect_in_time(50, 1, 10, false).await;
}

#[tokio::test]
async fn bad_messages_among_good_ones_cost_no_more() {
    expect_in_time(50, 2, 1, false).await;
    expect_in_time(20, 3, 1, true).await;
    expect_in_time(20, 3, 4, false).await;
}

/// A restarted server no longer knows which receiver could not open which messages, so they cost
/// one more time-out.
#[tokio::test]
async fn a_restart_costs_one_timeout_more() {
    let (mut server, mut sender) = server().await;
    publish(&mut sender, 20, 2, 40).await;
    receive(&server, 1, false, 10).await;
    drop(sender);
    server.restart().await;
    let start = Instant::now();
    receive(&server, 1, false, 30).await;
    assert!(start.elapsed() < TIMEOUT * 2, "{:?}", start.elapsed());
    // A receiver that can open them still gets them.
    let mut client = RawClient::connect(&server, "receiver").await;
    client.ask("consume q 50", "Subscribed to queue").await;
    let mut left: HashSet<String> = (0..20).map(|n| format!("bad-{n}")).collect();
    while !left.is_empty() {
        let line = client.line().await;
        if let Some(id) = line
            .strip_prefix("Message: ")
            .and_then(|rest| rest.split(' ').next())
        {
            left.remove(id);
            client.send_line(&format!("ack {id}")).await;
        }
    }
}
