//! The SDK with the real server: windows, receipts, reconnection, redelivery, sessions, renewed
//! certificates, and several consumers.

mod consuming;
mod publishing;
mod renewal;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ciphermq_client::keys::certificates;
use ciphermq_client::{
    BatchLimits, Client, ClientId, Consumer, ConsumerBuilder, Deduplication as _, Envelope, Event,
    ExchangeName, InMemory, Keyring, MessageId, OpenPolicy, Opener, PublishErrorKind,
    PublisherBuilder, QueueName, ResendOutcome, RoutingKey, default_queue,
};
use ciphermq_tests::sdk::{self, Keys, connect, next, number, submit};
use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, PATIENCE, RawClient, Server, on_both_databases};
use rustix::process::Signal;

/// A connected sender and receiver; the receiver's queue is declared and bound.
struct Pair {
    sender: Client,
    receiver: Client,
    keys: Keys,
}

impl Pair {
    async fn new(server: &Server) -> Self {
        let (sender, receiver) = (
            connect(server, "sender").await,
            connect(server, "receiver").await,
        );
        let pair = Self {
            sender,
            receiver,
            keys: Keys::new(),
        };
        // Starting a consumer declares and binds the queue, and registers the key.
        pair.consumer().start().await.unwrap().close().await;
        pair
    }

    fn keyring(&self) -> Keyring {
        self.keys.keyring()
    }

    fn queue(&self) -> QueueName {
        default_queue(self.receiver.id()).unwrap()
    }

    fn consumer(&self) -> ConsumerBuilder {
        sdk::consumer(&self.receiver, self.keyring())
    }

    fn publisher(&self) -> PublisherBuilder {
        self.sender.publisher(self.receiver.id())
    }

    /// Publishes these numbers, and waits until all are acknowledged.
    async fn publish(&self, numbers: std::ops::Range<u64>) -> Vec<MessageId> {
        let publisher = self.publisher().start().await.unwrap();
        let ids = submit(&publisher, numbers).await;
        publisher.flush().await.unwrap();
        ids
    }
}

/// Returns the number of messages that the server stores.
async fn stored_messages(server: &Server) -> i64 {
    server
        .database()
        .await
        .number("SELECT count(*) FROM messages")
        .await
}

/// The server is killed and restarted several times while a publisher and a consumer are active.
async fn publisher_and_consumer_survive_server_restarts(backend: Backend) {
    const COUNT: u64 = 20_000;
    let mut server = backend.server().await;
    let pair = Pair::new(&server).await;
    let mut consumer = pair
        .consumer()
        .prefetch(NonZeroU32::new(200).unwrap())
        .start()
        .await
        .unwrap();
    let mut events = pair.sender.events();
    let publisher = pair
        .publisher()
        .window(500, usize::MAX)
        .batch(BatchLimits {
            messages: 20,
            ..BatchLimits::default()
        })
        .start()
        .await
        .unwrap();
    let sending = tokio::spawn(async move {
        submit(&publisher, 0..COUNT).await;
        publisher.finish().await
    });
    let mut ids = BTreeSet::new();
    let mut restarts = 0;
    for expected in 0..COUNT {
        let message = next(&mut consumer).await;
        assert_eq!(
            number(&message),
            expected,
            "once, and in the order in which they were sent"
        );
        assert!(ids.insert(message.message_id().clone()));
        message.ack_later().unwrap();
        if [1000, 4000, 9000].contains(&expected) {
            server.kill9().await;
            server.restart().await;
            restarts += 1;
        }
    }
    let summary = sending.await.unwrap();
    assert_eq!((summary.acknowledged, summary.unacknowledged), (COUNT, 0));
    let acks = consumer.flush_acks().await;
    assert_eq!((acks.confirmed, acks.unconfirmed), (COUNT, 0));
    assert_eq!(stored_messages(&server).await, 0);
    let mut connected = 0;
    pair.sender.close().await;
    while let Some(event) = events.next().await {
        match event {
            Event::Connected => connected += 1,
            Event::Closed => break,
            _ => {}
        }
    }
    // A sender that has nothing left to send may not have noticed the last restart.
    assert!(
        (1..=restarts).contains(&connected),
        "{connected} connections after {restarts} restarts"
    );
    consumer.close().await;
}

/// Messages that are sent again with the same stream and positions, for example by another process,
/// are stored once.
async fn repeated_positions_of_a_stream_are_stored_once(backend: Backend) {
    let server = backend.server().await;
    let pair = Pair::new(&server).await;
    let publisher = pair.publisher().start().await.unwrap();
    let stream = publisher.stream();
    submit(&publisher, 0..100).await;
    let summary = publisher.finish().await;
    assert_eq!(
        (summary.acknowledged, summary.unacknowledged),
        (100, 0),
        "{summary:?}"
    );
    let again = pair
        .publisher()
        .stream(stream)
        .start_at(50)
        .start()
        .await
        .unwrap();
    submit(&again, 50..150).await;
    let summary = again.finish().await;
    assert_eq!((summary.acknowledged, summary.unacknowledged), (100, 0));
    assert_eq!(stored_messages(&server).await, 150);
    let mut consumer = pair.consumer().start().await.unwrap();
    for expected in 0..150 {
        let message = next(&mut consumer).await;
        assert_eq!(number(&message), expected);
        message.ack_later().unwrap();
    }
    assert_eq!(consumer.flush_acks().await.confirmed, 150);
    assert_eq!(stored_messages(&server).await, 0);
}

use consuming::{redelivered_messages_are_not_handed_over_again, resend_and_reject};
use renewal::{
    kills_during_reloads_lose_and_double_nothing, renewed_certificates_lose_and_double_nothing,
};

on_both_databases!(
    kills_during_reloads_lose_and_double_nothing,
    publisher_and_consumer_survive_server_restarts,
    redelivered_messages_are_not_handed_over_again,
    renewed_certificates_lose_and_double_nothing,
    repeated_positions_of_a_stream_are_stored_once,
    resend_and_reject,
);
