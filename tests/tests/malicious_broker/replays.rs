//! Messages that are replayed, to other receivers and with other ids: the right receiver gets each
//! message once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ciphermq_client::dedup::Durable;
use ciphermq_client::{
    Consumer, ExchangeName, Keyring, OpenError, PrivateKey, QueueName, RoutingKey, Timestamp,
    UnopenableReason, default_queue, default_routing_key, start_stream,
};
use ciphermq_tests::malicious::MaliciousBrokerFixture;
use ciphermq_tests::malicious::fixture::{expect_texts, opened, text, unopenable};
use ciphermq_tests::{Backend, on_both_databases};
use serde_json::Value;

use crate::envelopes::{not_authentic, other_id, other_receiver};
use crate::{deliver_to, published};

const EXCHANGE: &str = "ciphermq_exchange";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_another_receiver() {
    let fixture = MaliciousBrokerFixture::new().await;
    let other = fixture.connect("other").await;
    let key = PrivateKey::generate().unwrap();
    let key_id = key.public_key().key_id().to_string();
    let ids = fixture.publish(["for the receiver"]).await;
    let stolen = published(&fixture, "sender").remove(0);
    // Unchanged; addressed to the other receiver; and also with the id of its key.
    let with = |changes: &[(&str, &str)]| {
        let mut fields: Value = serde_json::from_str(&stolen).unwrap();
        for (field, value) in changes {
            assert!(fields[*field].is_string());
            fields[*field] = (*value).into();
        }
        (
            fields["message_id"].as_str().unwrap().to_owned(),
            fields.to_string(),
        )
    };
    let to_other = ("receiver_client_id", "other");
    let deliveries = vec![
        with(&[]),
        with(&[to_other, ("message_id", "a")]),
        with(&[to_other, ("message_id", "b"), ("receiver_key_id", &key_id)]),
    ];
    deliver_to(&fixture, "other", deliveries);

    let mut consumer = other
        .consumer(&default_queue(other.id()).unwrap())
        .keyring(Keyring::new(key))
        .register_key(true)
        .bind(
            ExchangeName::new(EXCHANGE).unwrap(),
            default_routing_key(other.id()).unwrap(),
        )
        .start()
        .await
        .unwrap();
    let refused = unopenable(&mut consumer, "unchanged").await;
    assert!(other_receiver(&refused.reason), "{:?}", refused.reason);
    let readdressed = unopenable(&mut consumer, "addressed to the other receiver").await;
    assert!(
        matches!(
            readdressed.reason,
            UnopenableReason::Sealed(OpenError::NoPrivateKey(_))
        ),
        "{:?}",
        readdressed.reason
    );
    let with_key_id = unopenable(&mut consumer, "with the id of its key").await;
    assert!(
        not_authentic(&with_key_id.reason),
        "{:?}",
        with_key_id.reason
    );
    // A genuine message for the other receiver arrives.
    let publisher = fixture.sender.publisher(other.id()).start().await.unwrap();
    publisher.submit("for the other").await.unwrap();
    publisher.finish().await;
    assert_eq!(text(&opened(&mut consumer).await), "for the other");

    let mut consumer = fixture.consumer().start().await.unwrap();
    let message = opened(&mut consumer).await;
    assert_eq!(
        (message.message_id(), text(&message)),
        (&ids[0], "for the receiver")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_with_another_id() {
    let fixture = MaliciousBrokerFixture::new().await;
    let ids = fixture.publish(["one", "two"]).await;
    let (one, two) = (ids[0].to_string(), ids[1].to_string());
    let envelopes = published(&fixture, "sender");
    let relabelled = envelopes[0].replace(&one, "fresh");
    assert_ne!(relabelled, envelopes[0]);
    fixture
        .broker
        .intercept(move |line| match line.delivery_to("receiver") {
            // The two are swapped; and before them, one is delivered with a new id.
            Some((id, _)) if id == one => vec![
                format!("Message: fresh {relabelled}"),
                format!("Message: {one} {}", envelopes[1]),
                format!("Message: {two} {}", envelopes[0]),
            ],
            Some((id, _)) if id == two => Vec::new(),
            _ => line.honest(),
        });
    let mut consumer = fixture.consumer().start().await.unwrap();
    let fresh = unopenable(&mut consumer, "with a new id").await;
    assert!(not_authentic(&fresh.reason), "{:?}", fresh.reason);
    let mut held = vec![fresh];
    for what in ["two as one", "one as two"] {
        let refused = unopenable(&mut consumer, what).await;
        assert!(other_id(&refused.reason), "{what}: {:?}", refused.reason);
        held.push(refused);
    }
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
    drop(held);
    consumer.close().await;

    fixture.broker.stop_intercepting();
    let mut consumer = fixture.consumer().start().await.unwrap();
    expect_texts(&mut consumer, ["one", "two"]).await;
    fixture
        .honest_traffic_arrives(&mut consumer, "the last")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_another_exchange() {
    let fixture = MaliciousBrokerFixture::new().await;
    let (exchange, key) = (
        ExchangeName::new("alarms").unwrap(),
        RoutingKey::new("fire").unwrap(),
    );
    let queue = QueueName::new("alarms_queue").unwrap();
    fixture.receiver.declare_queue(&queue).await.unwrap();
    fixture.receiver.declare_exchange(&exchange).await.unwrap();
    fixture
        .receiver
        .bind(&queue, &exchange, &key)
        .await
        .unwrap();
    let publisher = fixture
        .publisher()
        .exchange(exchange.clone())
        .routing_key(key);
    let publisher = publisher.start().await.unwrap();
    let id = publisher.submit("fire").await.unwrap();
    publisher.finish().await;
    let moved = published(&fixture, "sender").remove(0);
    deliver_to(&fixture, "receiver", vec![(id.to_string(), moved)]);
    let route = default_routing_key(fixture.receiver.id()).unwrap();
    let consumer = fixture
        .consumer()
        .expect_route(ExchangeName::new(EXCHANGE).unwrap(), route);
    let mut consumer = consumer.start().await.unwrap();
    let refused = unopenable(&mut consumer, "a message of another exchange").await;
    assert_eq!(
        refused.reason,
        UnopenableReason::Sealed(OpenError::OtherExchange(exchange))
    );
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
}

/// Checks that only honest traffic is yielded, although at least `at_least` replays were delivered.
async fn expect_no_replay(
    fixture: &MaliciousBrokerFixture,
    consumer: &mut Consumer,
    at_least: u64,
) {
    fixture.honest_traffic_arrives(consumer, "beside").await;
    assert!(
        consumer.duplicates() >= at_least,
        "{} of {at_least} replays were delivered",
        consumer.duplicates()
    );
}

async fn an_acked_message_is_replayed_at_once_and_after_restarts(backend: Backend) {
    let mut fixture = MaliciousBrokerFixture::with(backend.options().await).await;
    let id = fixture.publish(["once"]).await.remove(0).to_string();
    let envelope = published(&fixture, "sender").remove(0);
    let folder = tempfile::tempdir().unwrap();
    let record = || Durable::open(&folder.path().join("processed")).unwrap();

    // Right after it was acked. The receiver acks it again, so the number of replays is limited.
    let times = Arc::new(AtomicUsize::new(0));
    fixture.broker.intercept({
        let (confirmed, again) = (
            format!("ACK_CONFIRMED {id}"),
            format!("Message: {id} {envelope}"),
        );
        move |line| {
            let mut lines = line.honest();
            if line.reply_to("receiver", &confirmed).is_some()
                && times.fetch_add(1, Ordering::SeqCst) < 3
            {
                lines.push(again.clone());
            }
            lines
        }
    });
    let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
    expect_texts(&mut consumer, ["once"]).await;
    expect_no_replay(&fixture, &mut consumer, 1).await;
    consumer.close().await;

    // To a new consumer, and to another one after a restart of the server.
    for restart in [false, true] {
        if restart {
            fixture.broker.stop_intercepting();
            fixture.server.restart().await;
        }
        deliver_to(&fixture, "receiver", vec![(id.clone(), envelope.clone())]);
        let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
        expect_no_replay(&fixture, &mut consumer, 1).await;
        consumer.close().await;
    }
}

async fn both_envelopes_of_a_message_that_was_resent(backend: Backend) {
    let fixture = MaliciousBrokerFixture::with(backend.options().await).await;
    let stream = start_stream(Timestamp::now()).unwrap();
    let mut id = String::new();
    // A sender that was killed before it received the first ACK sends the message again.
    for client in [&fixture.sender, &fixture.connect("sender").await] {
        let publisher = client.publisher(fixture.receiver.id()).stream(stream);
        let publisher = publisher.start().await.unwrap();
        id = publisher.submit("once").await.unwrap().to_string();
        assert_eq!(publisher.finish().await.acknowledged, 1);
    }
    let [first, second] = &published(&fixture, "sender")[..] else {
        panic!("it was sent twice");
    };
    assert_ne!(first, second, "it was sealed again");

    let folder = tempfile::tempdir().unwrap();
    let record = || Durable::open(&folder.path().join("processed")).unwrap();
    let deliveries = |envelopes: [&String; 2]| -> Vec<(String, String)> {
        envelopes
            .map(|envelope| (id.clone(), envelope.clone()))
            .into()
    };
    // Both before an ack. The second one comes first, in place of the one that is stored.
    deliver_to(&fixture, "receiver", deliveries([second, first]));
    let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
    let message = opened(&mut consumer).await;
    assert_eq!(text(&message), "once");
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
    message.ack().await.unwrap();
    consumer.close().await;
    // And after it was acked.
    for deliveries in [deliveries([first, second]), deliveries([second, first])] {
        deliver_to(&fixture, "receiver", deliveries);
        let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
        expect_no_replay(&fixture, &mut consumer, 1).await;
        consumer.close().await;
    }
}

on_both_databases!(
    an_acked_message_is_replayed_at_once_and_after_restarts,
    both_envelopes_of_a_message_that_was_resent,
);
