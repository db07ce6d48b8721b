//! `consume`: deliveries, prefetch, competing consumers.

use std::time::Duration;

use ciphermq_tests::{RawClient, Scene};

async fn publish(scene: &Scene, sender: &mut RawClient, messages: std::ops::Range<usize>) {
    let envelopes: Vec<_> = messages
        .clone()
        .map(|index| scene.envelope(&format!("m{index}")))
        .collect();
    sender.send_line(&scene.publish_batch(&envelopes)).await;
    for index in messages {
        sender
            .expect(&format!("ACK {}", scene.id(&format!("m{index}"))))
            .await;
    }
}

async fn expect(
    scene: &Scene,
    receiver: &mut RawClient,
    messages: impl IntoIterator<Item = usize>,
) {
    for index in messages {
        let message = format!("m{index}");
        receiver
            .expect(&scene.delivery(&message, &scene.envelope(&message)))
            .await;
    }
}

fn ack(scene: &Scene, index: usize) -> (String, String) {
    let id = scene.id(&format!("m{index}"));
    (format!("ack {id}"), format!("ACK_CONFIRMED {id}"))
}

pub(super) async fn prefetch_bounds_what_is_delivered(scene: Scene) {
    let mut sender = scene.sender().await;
    let mut receiver = scene.receiver(3).await;
    publish(&scene, &mut sender, 0..8).await;
    expect(&scene, &mut receiver, 0..3).await;
    receiver.ask("ping", "PONG").await;
    receiver.expect_silence(Duration::from_millis(100)).await;
    // Acked out of order: there is room for one each time.
    for (acked, next) in [(1, 3), (2, 4), (0, 5)] {
        let (line, reply) = ack(&scene, acked);
        receiver.ask(&line, &reply).await;
        expect(&scene, &mut receiver, [next]).await;
        receiver.ask("ping", "PONG").await;
    }
    // One of another's message makes no room.
    receiver
        .ask(
            &format!("ack {}", scene.id("unknown")),
            &format!(
                "Error: not_found: no such message waits or was acknowledged for message {}",
                scene.id("unknown")
            ),
        )
        .await;
    let (line, reply) = ack(&scene, 0);
    receiver.ask(&line, &reply).await;
    receiver.ask("ping", "PONG").await;
    receiver.expect_silence(Duration::from_millis(100)).await;
}

pub(super) async fn without_prefetch_one_at_a_time(scene: Scene) {
    let mut sender = scene.sender().await;
    publish(&scene, &mut sender, 0..3).await;
    let mut receiver = scene.client("receiver").await;
    receiver
        .ask(&format!("consume {}", scene.id("q")), "Subscribed to queue")
        .await;
    for index in 0..3 {
        expect(&scene, &mut receiver, [index]).await;
        receiver.ask("ping", "PONG").await;
        let (line, reply) = ack(&scene, index);
        receiver.ask(&line, &reply).await;
    }
    receiver.ask("ping", "PONG").await;
}

pub(super) async fn a_prefetch_may_be_changed(scene: Scene) {
    let mut sender = scene.sender().await;
    publish(&scene, &mut sender, 0..5).await;
    let mut receiver = scene.receiver(1).await;
    expect(&scene, &mut receiver, [0]).await;
    let consume = format!("consume {} 4", scene.id("q"));
    receiver.ask(&consume, "Subscribed to queue").await;
    expect(&scene, &mut receiver, 1..4).await;
    receiver.ask("ping", "PONG").await;
    receiver.expect_silence(Duration::from_millis(100)).await;
    // More than limits.max_prefetch is cut, not refused.
    let consume = format!("consume {} 4294967295", scene.id("q"));
    receiver.ask(&consume, "Subscribed to queue").await;
    expect(&scene, &mut receiver, [4]).await;
}

pub(super) async fn the_confirmation_comes_before_what_it_made_room_for(scene: Scene) {
    let mut sender = scene.sender().await;
    publish(&scene, &mut sender, 0..200).await;
    let mut receiver = scene.receiver(1).await;
    for index in 0..200 {
        expect(&scene, &mut receiver, [index]).await;
        let (line, reply) = ack(&scene, index);
        // To the letter, and with nothing before it: an older receiver throws away other lines.
        receiver.ask(&line, &reply).await;
    }
    receiver.ask("ping", "PONG").await;
}

pub(super) async fn competing_consumers_take_turns(scene: Scene) {
    let mut sender = scene.sender().await;
    let mut first = scene.receiver(100).await;
    let mut second = scene.receiver(100).await;
    publish(&scene, &mut sender, 0..10).await;
    expect(&scene, &mut first, (0..10).step_by(2)).await;
    expect(&scene, &mut second, (1..10).step_by(2)).await;
    // Who has no room is passed over.
    let mut third = scene.receiver(1).await;
    publish(&scene, &mut sender, 10..19).await;
    let mut counts = [0; 3];
    for (count, receiver) in counts.iter_mut().zip([&mut first, &mut second, &mut third]) {
        receiver.send_line("ping").await;
        while receiver.line().await != "PONG" {
            *count += 1;
        }
    }
    assert_eq!(counts, [4, 4, 1]);
}

pub(super) async fn a_late_consumer_gets_the_backlog_in_order(scene: Scene) {
    let mut sender = scene.sender().await;
    // More than what is held ready at once, from several batches.
    for start in (0..3000).step_by(500) {
        publish(&scene, &mut sender, start..start + 500).await;
    }
    let mut receiver = scene.receiver(5000).await;
    publish(&scene, &mut sender, 3000..3100).await;
    expect(&scene, &mut receiver, 0..3100).await;
    receiver.ask("ping", "PONG").await;
}

pub(super) async fn messages_go_to_their_receiver_only(scene: Scene) {
    let mut sender = scene.sender().await;
    let mut receiver = scene.receiver(10).await;
    let mut stranger = scene.client("stranger").await;
    let consume = format!("consume {} 10", scene.id("q"));
    stranger.ask(&consume, "Subscribed to queue").await;
    let foreign = scene
        .envelope("foreign")
        .set("receiver_client_id", scene.id("stranger"));
    let own = scene.envelope("own");
    sender
        .send_line(&scene.publish_batch(&[&foreign, &own]))
        .await;
    receiver.expect(&scene.delivery("own", &own)).await;
    stranger.expect(&scene.delivery("foreign", &foreign)).await;
    receiver.ask("ping", "PONG").await;
    stranger.ask("ping", "PONG").await;
}

pub(super) async fn a_lost_connection_returns_its_messages_in_order(scene: Scene) {
    let mut sender = scene.sender().await;
    let mut first = scene.receiver(4).await;
    publish(&scene, &mut sender, 0..6).await;
    expect(&scene, &mut first, 0..4).await;
    let (line, reply) = ack(&scene, 1);
    first.ask(&line, &reply).await;
    expect(&scene, &mut first, [4]).await;
    first.end().await;
    // Those that came back first, then what was never handed out.
    let mut second = scene.receiver(10).await;
    expect(&scene, &mut second, [0, 2, 3, 4, 5]).await;
    second.ask("ping", "PONG").await;
}

pub(super) async fn a_consumer_that_reconnects_takes_over(scene: Scene) {
    let mut sender = scene.sender().await;
    publish(&scene, &mut sender, 0..3).await;
    let hello = "hello {\"consumer\":\"0f5cf04a-8d42-4c3a-a1a4-5d6b7d3e2f10\"}";
    let mut old = scene.client("receiver").await;
    old.send_line(hello).await;
    old.expect_prefix("Hello: ").await;
    let consume = format!("consume {} 10", scene.id("q"));
    old.ask(&consume, "Subscribed to queue").await;
    expect(&scene, &mut old, 0..3).await;

    // The old connection is still open, as when the network lost it without a word.
    let mut new = scene.client("receiver").await;
    new.send_line(hello).await;
    new.expect_prefix("Hello: ").await;
    old.expect_closed().await;
    new.ask(&consume, "Subscribed to queue").await;
    expect(&scene, &mut new, 0..3).await;

    // Neither another consumer of the client nor another client's consumer of that name is touched.
    let mut other = scene.client("receiver").await;
    other.send_line("hello {\"consumer\":\"another\"}").await;
    other.expect_prefix("Hello: ").await;
    sender.send_line(hello).await;
    sender.expect_prefix("Hello: ").await;
    for client in [&mut new, &mut other, &mut sender] {
        client.ask("ping", "PONG").await;
    }
}

pub(super) async fn several_queues_on_one_connection(scene: Scene) {
    let mut sender = scene.client("sender").await;
    scene.bind_queue(&mut sender, "q").await;
    let (other, exchange) = (scene.id("other"), scene.id("e"));
    sender
        .ask(&format!("declare_queue {other}"), "Queue declared")
        .await;
    sender
        .ask(&format!("bind {other} {exchange} o"), "Queue bound")
        .await;
    let mut receiver = scene.receiver(1).await;
    receiver
        .ask(&format!("consume {other} 1"), "Subscribed to queue")
        .await;
    let [a, b] = ["a", "b"].map(|id| scene.envelope(id));
    sender
        .ask(&scene.publish(&a), &format!("ACK {}", scene.id("a")))
        .await;
    receiver.expect(&scene.delivery("a", &a)).await;
    sender
        .ask(
            &format!("publish {exchange} o {b}"),
            &format!("ACK {}", scene.id("b")),
        )
        .await;
    receiver.expect(&scene.delivery("b", &b)).await;
}
