//! `consume`: deliveries, prefetch, competing consumers.

use std::time::Duration;

use ciphermq_tests::{Fixture, RawClient};

async fn publish(fixture: &Fixture, sender: &mut RawClient, messages: std::ops::Range<usize>) {
    let envelopes: Vec<_> = messages
        .clone()
        .map(|index| fixture.envelope(&format!("m{index}")))
        .collect();
    sender.send_line(&fixture.publish_batch(&envelopes)).await;
    for index in messages {
        sender
            .expect(&format!("ACK {}", fixture.id(&format!("m{index}"))))
            .await;
    }
}

async fn expect(
    fixture: &Fixture,
    receiver: &mut RawClient,
    messages: impl IntoIterator<Item = usize>,
) {
    for index in messages {
        let message = format!("m{index}");
        receiver
            .expect(&fixture.delivery(&message, &fixture.envelope(&message)))
            .await;
    }
}

fn ack(fixture: &Fixture, index: usize) -> (String, String) {
    let id = fixture.id(&format!("m{index}"));
    (format!("ack {id}"), format!("ACK_CONFIRMED {id}"))
}

pub(super) async fn prefetch_bounds_what_is_delivered(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let mut receiver = fixture.receiver(3).await;
    publish(&fixture, &mut sender, 0..8).await;
    expect(&fixture, &mut receiver, 0..3).await;
    receiver.ask("ping", "PONG").await;
    receiver.expect_silence(Duration::from_millis(100)).await;
    // Acked out of order, each ack makes room for one message.
    for (acked, next) in [(1, 3), (2, 4), (0, 5)] {
        let (line, reply) = ack(&fixture, acked);
        receiver.ask(&line, &reply).await;
        expect(&fixture, &mut receiver, [next]).await;
        receiver.ask("ping", "PONG").await;
    }
    // A refused ack, and a repeated one, make no room.
    receiver
        .ask(
            &format!("ack {}", fixture.id("unknown")),
            &format!(
                "Error: not_found: no such message waits or was acknowledged for message {}",
                fixture.id("unknown")
            ),
        )
        .await;
    let (line, reply) = ack(&fixture, 0);
    receiver.ask(&line, &reply).await;
    receiver.ask("ping", "PONG").await;
    receiver.expect_silence(Duration::from_millis(100)).await;
}

pub(super) async fn without_prefetch_messages_come_one_at_a_time(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    publish(&fixture, &mut sender, 0..3).await;
    let mut receiver = fixture.client("receiver").await;
    receiver
        .ask(
            &format!("consume {}", fixture.id("q")),
            "Subscribed to queue",
        )
        .await;
    for index in 0..3 {
        expect(&fixture, &mut receiver, [index]).await;
        receiver.ask("ping", "PONG").await;
        let (line, reply) = ack(&fixture, index);
        receiver.ask(&line, &reply).await;
    }
    receiver.ask("ping", "PONG").await;
}

pub(super) async fn a_prefetch_may_be_changed(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    publish(&fixture, &mut sender, 0..5).await;
    let mut receiver = fixture.receiver(1).await;
    expect(&fixture, &mut receiver, [0]).await;
    let consume = format!("consume {} 4", fixture.id("q"));
    receiver.ask(&consume, "Subscribed to queue").await;
    expect(&fixture, &mut receiver, 1..4).await;
    receiver.ask("ping", "PONG").await;
    receiver.expect_silence(Duration::from_millis(100)).await;
    // More than limits.max_prefetch is reduced, not refused.
    let consume = format!("consume {} 4294967295", fixture.id("q"));
    receiver.ask(&consume, "Subscribed to queue").await;
    expect(&fixture, &mut receiver, [4]).await;
}

pub(super) async fn the_confirmation_comes_before_what_it_made_room_for(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    publish(&fixture, &mut sender, 0..200).await;
    let mut receiver = fixture.receiver(1).await;
    for index in 0..200 {
        expect(&fixture, &mut receiver, [index]).await;
        let (line, reply) = ack(&fixture, index);
        // No line may precede the confirmation: an older receiver discards other lines.
        receiver.ask(&line, &reply).await;
    }
    receiver.ask("ping", "PONG").await;
}

pub(super) async fn competing_consumers_take_turns(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let mut first = fixture.receiver(100).await;
    let mut second = fixture.receiver(100).await;
    publish(&fixture, &mut sender, 0..10).await;
    expect(&fixture, &mut first, (0..10).step_by(2)).await;
    expect(&fixture, &mut second, (1..10).step_by(2)).await;
    // A consumer without room is skipped.
    let mut third = fixture.receiver(1).await;
    publish(&fixture, &mut sender, 10..19).await;
    let mut counts = [0; 3];
    for (count, receiver) in counts.iter_mut().zip([&mut first, &mut second, &mut third]) {
        receiver.send_line("ping").await;
        while receiver.line().await != "PONG" {
            *count += 1;
        }
    }
    assert_eq!(counts, [4, 4, 1]);
}

pub(super) async fn a_late_consumer_gets_the_backlog_in_order(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    // More than the server prefetches at once, from several batches.
    for start in (0..3000).step_by(500) {
        publish(&fixture, &mut sender, start..start + 500).await;
    }
    let mut receiver = fixture.receiver(5000).await;
    publish(&fixture, &mut sender, 3000..3100).await;
    expect(&fixture, &mut receiver, 0..3100).await;
    receiver.ask("ping", "PONG").await;
}

pub(super) async fn messages_go_to_their_receiver_only(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let mut receiver = fixture.receiver(10).await;
    let mut stranger = fixture.client("stranger").await;
    let consume = format!("consume {} 10", fixture.id("q"));
    stranger.ask(&consume, "Subscribed to queue").await;
    let foreign = fixture
        .envelope("foreign")
        .set("receiver_client_id", fixture.id("stranger"));
    let own = fixture.envelope("own");
    sender
        .send_line(&fixture.publish_batch(&[&foreign, &own]))
        .await;
    receiver.expect(&fixture.delivery("own", &own)).await;
    stranger
        .expect(&fixture.delivery("foreign", &foreign))
        .await;
    receiver.ask("ping", "PONG").await;
    stranger.ask("ping", "PONG").await;
}

pub(super) async fn a_lost_connection_returns_its_messages_in_order(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    let mut first = fixture.receiver(4).await;
    publish(&fixture, &mut sender, 0..6).await;
    expect(&fixture, &mut first, 0..4).await;
    let (line, reply) = ack(&fixture, 1);
    first.ask(&line, &reply).await;
    expect(&fixture, &mut first, [4]).await;
    first.end().await;
    // First the returned messages, then those that were never delivered.
    let mut second = fixture.receiver(10).await;
    expect(&fixture, &mut second, [0, 2, 3, 4, 5]).await;
    second.ask("ping", "PONG").await;
}

pub(super) async fn a_consumer_that_reconnects_takes_over(fixture: Fixture) {
    let mut sender = fixture.sender().await;
    publish(&fixture, &mut sender, 0..3).await;
    let hello = "hello {\"consumer\":\"0f5cf04a-8d42-4c3a-a1a4-5d6b7d3e2f10\"}";
    let mut old = fixture.client("receiver").await;
    old.send_line(hello).await;
    old.expect_prefix("Hello: ").await;
    let consume = format!("consume {} 10", fixture.id("q"));
    old.ask(&consume, "Subscribed to queue").await;
    expect(&fixture, &mut old, 0..3).await;

    // The old connection is still open, as if the network had lost it silently.
    let mut new = fixture.client("receiver").await;
    new.send_line(hello).await;
    new.expect_prefix("Hello: ").await;
    old.expect_closed().await;
    new.ask(&consume, "Subscribed to queue").await;
    expect(&fixture, &mut new, 0..3).await;

    // Neither another consumer of this client, nor another client's consumer with this id, is
    // affected.
    let mut other = fixture.client("receiver").await;
    other.send_line("hello {\"consumer\":\"another\"}").await;
    other.expect_prefix("Hello: ").await;
    sender.send_line(hello).await;
    sender.expect_prefix("Hello: ").await;
    for client in [&mut new, &mut other, &mut sender] {
        client.ask("ping", "PONG").await;
    }
}

pub(super) async fn several_queues_on_one_connection(fixture: Fixture) {
    let mut sender = fixture.client("sender").await;
    fixture.bind_queue(&mut sender, "q").await;
    let (other, exchange) = (fixture.id("other"), fixture.id("e"));
    sender
        .ask(&format!("declare_queue {other}"), "Queue declared")
        .await;
    sender
        .ask(&format!("bind {other} {exchange} o"), "Queue bound")
        .await;
    let mut receiver = fixture.receiver(1).await;
    receiver
        .ask(&format!("consume {other} 1"), "Subscribed to queue")
        .await;
    let [a, b] = ["a", "b"].map(|id| fixture.envelope(id));
    fixture.publish_acked(&mut sender, "a", &a).await;
    receiver.expect(&fixture.delivery("a", &a)).await;
    sender
        .ask(
            &format!("publish {exchange} o {b}"),
            &format!("ACK {}", fixture.id("b")),
        )
        .await;
    receiver.expect(&fixture.delivery("b", &b)).await;
}
