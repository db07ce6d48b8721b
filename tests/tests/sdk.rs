//! The SDK with the real server: windows, receipts, reconnection, redelivery, sessions, and several
//! consumers.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ciphermq_client::keys::certificates;
use ciphermq_client::{
    BatchLimits, Client, ClientId, Consumer, ConsumerBuilder, Deduplication as _, DeleteQueue,
    Envelope, Event, ExchangeName, InMemory, Keyring, Message, MessageId, OpenPolicy, Opener,
    PrivateKey, PublishErrorKind, Publisher, PublisherBuilder, QueueName, ResendOutcome,
    RoutingKey, default_queue, default_routing_key,
};
use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, PATIENCE, RawClient, Server, on_both_databases};
use rustix::process::Signal;

/// A connected sender and receiver; the receiver's queue is declared and bound.
struct Pair {
    sender: Client,
    receiver: Client,
    key: Vec<u8>,
}

async fn connect(server: &Server, id: &str) -> Client {
    let identity = server.pki().client(id);
    Client::builder(format!("localhost:{}", server.address().port()))
        .ca_file(server.pki().ca())
        .identity_files(identity.certificate, identity.key)
        .connect()
        .await
        .unwrap_or_else(|error| panic!("{id} cannot connect: {error}"))
}

impl Pair {
    async fn new(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_owned();
        keygen::keys::run(&keygen::KeysArgs {
            out,
            force: false,
            post_quantum: false,
        })
        .unwrap();
        let key = std::fs::read(folder.path().join("receiver_private.key")).unwrap();
        let (sender, receiver) = (
            connect(server, "sender").await,
            connect(server, "receiver").await,
        );
        let pair = Self {
            sender,
            receiver,
            key,
        };
        // Starting a consumer declares and binds the queue, and registers the key.
        pair.consumer().start().await.unwrap().close().await;
        pair
    }

    fn keyring(&self) -> Keyring {
        Keyring::new(private_key(&self.key))
    }

    fn queue(&self) -> QueueName {
        default_queue(self.receiver.id()).unwrap()
    }

    fn consumer(&self) -> ConsumerBuilder {
        let route = default_routing_key(self.receiver.id()).unwrap();
        self.receiver
            .consumer(&self.queue())
            .keyring(self.keyring())
            .register_key(true)
            .bind(ExchangeName::new("ciphermq_exchange").unwrap(), route)
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

fn private_key(file: &[u8]) -> PrivateKey {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, file).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).unwrap();
    ciphermq_client::keys::read_private(&path).unwrap()
}

async fn submit(publisher: &Publisher, numbers: std::ops::Range<u64>) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for number in numbers {
        ids.push(publisher.submit(number.to_string().as_str()).await.unwrap());
    }
    ids
}

/// Waits for the next message of a consumer.
async fn next(consumer: &mut Consumer) -> Message {
    tokio::time::timeout(PATIENCE, consumer.next())
        .await
        .expect("no message arrived in time")
        .expect("the consumer is open")
        .expect("the message can be opened")
}

fn number(message: &Message) -> u64 {
    std::str::from_utf8(message.payload())
        .unwrap()
        .parse()
        .unwrap()
}

/// Returns the number of messages that the server stores.
async fn stored_messages(server: &Server) -> i64 {
    server
        .database()
        .await
        .number("SELECT count(*) FROM messages")
        .await
}

/// Suspends the server, and waits until all of its threads are stopped: until then, one of them may
/// still reply.
async fn suspend(server: &Server) {
    server.process().signal(Signal::STOP);
    let pid = server
        .process()
        .pid()
        .expect("the server runs")
        .as_raw_nonzero();
    let runs = || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads.map(Result::unwrap).any(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the name in parentheses (proc(5)).
            !stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .starts_with(" T")
        })
    };
    let waiting = async {
        while runs() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("the server is suspended");
}

/// While the server is suspended, exactly the window can be in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_window_makes_the_sender_wait() {
    let server = Server::start(Options::sqlite()).await;
    let pair = Pair::new(&server).await;
    for (messages, bytes, at_least) in [(10, usize::MAX, 10), (usize::MAX, 20_000, 5)] {
        let publisher = pair
            .publisher()
            .window(messages, bytes)
            .start()
            .await
            .unwrap();
        let payload = "x".repeat(1000);
        submit(&publisher, 0..1).await;
        publisher.flush().await.unwrap();

        suspend(&server).await;
        let mut sent = 0usize;
        // That `submit` blocks can only be observed with a timeout. A busy machine may need longer
        // for the calls that should return.
        let limit = |sent| match sent < at_least {
            true => PATIENCE,
            false => Duration::from_millis(300),
        };
        while let Ok(result) =
            tokio::time::timeout(limit(sent), publisher.submit(payload.as_str())).await
        {
            result.unwrap();
            sent += 1;
            assert!(
                sent <= 20,
                "the window holds {messages} messages and {bytes} bytes"
            );
        }
        if messages == 10 {
            assert_eq!(sent, 10);
        } else {
            assert!(
                (at_least..=20).contains(&sent),
                "{sent} of about 1000 bytes and an envelope"
            );
        }
        server.process().signal(Signal::CONT);
        // The window has capacity again, and nothing was lost.
        submit(&publisher, 0..50).await;
        let summary = publisher.finish().await;
        assert_eq!(
            (summary.acknowledged, summary.unacknowledged),
            (51 + u64::try_from(sent).unwrap(), 0)
        );
    }
}

/// A sender that is faster than the server is slowed down: at most the window is in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_window_is_in_flight() {
    let server = Server::start(Options::sqlite()).await;
    let pair = Pair::new(&server).await;
    let settled = Arc::new(AtomicUsize::new(0));
    let counter = settled.clone();
    let publisher = pair
        .publisher()
        .window(100, usize::MAX)
        .on_outcome(move |outcome| {
            assert!(outcome.result.is_ok());
            counter.fetch_add(1, Ordering::SeqCst);
        })
        .start()
        .await
        .unwrap();
    for sent in 1..=5000usize {
        publisher.submit("x").await.unwrap();
        let in_flight = sent - settled.load(Ordering::SeqCst).min(sent);
        assert!(in_flight <= 100, "{in_flight} are in flight");
    }
    assert_eq!(publisher.finish().await.acknowledged, 5000);
    assert_eq!(settled.load(Ordering::SeqCst), 5000);
    assert_eq!(stored_messages(&server).await, 5000);
}

/// Each receipt resolves to its own message's result; a failure does not affect other messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_resolve_to_the_result_of_each_message() {
    let server = Server::start(Options::sqlite().set("limits", "max_line_bytes", 65536)).await;
    let pair = Pair::new(&server).await;
    let publisher = pair.publisher().start().await.unwrap();
    let mut receipts = Vec::new();
    for number in 0..200u64 {
        receipts.push(publisher.send(number.to_string().as_str()).await.unwrap());
        if number == 100 {
            let error = publisher
                .send("x".repeat(65536).as_str())
                .await
                .unwrap_err();
            assert_eq!(error.kind(), PublishErrorKind::TooLarge);
            assert!(!error.is_retryable() && error.advice().is_some());
        }
    }
    for (position, receipt) in (0..).zip(receipts) {
        let expected = publisher.stream().message_id(position).unwrap();
        assert_eq!(receipt.message_id(), &expected, "no position is left out");
        assert_eq!(receipt.await.unwrap(), expected);
    }
    assert_eq!(stored_messages(&server).await, 200);

    // Another route on the same connection.
    let nowhere = RoutingKey::new("nowhere").unwrap();
    let lost = pair.publisher().routing_key(nowhere).start().await.unwrap();
    let receipt = lost.send("x").await.unwrap();
    let id = receipt.message_id().clone();
    let error = receipt.await.unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::NoRoute);
    assert_eq!(
        lost.flush().await.unwrap_err().kind(),
        PublishErrorKind::NoRoute
    );
    let summary = lost.finish().await;
    assert_eq!((summary.acknowledged, summary.unacknowledged), (0, 1));
    assert_eq!(summary.failures[0].0, id);
    publisher.send("201").await.unwrap().await.unwrap();

    let unknown = ExchangeName::new("unknown").unwrap();
    let lost = pair.publisher().exchange(unknown).start().await.unwrap();
    assert_eq!(
        lost.send("x").await.unwrap().await.unwrap_err().kind(),
        PublishErrorKind::NotFound
    );
    let nobody = pair
        .sender
        .publisher(&ClientId::new("nobody").unwrap())
        .start()
        .await;
    assert_eq!(nobody.unwrap_err().kind(), PublishErrorKind::NoReceiverKey);
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

/// The application gets each message once, even if the server redelivers it.
async fn redelivered_messages_are_not_handed_over_again(backend: Backend) {
    let mut server = backend.server().await;
    let pair = Pair::new(&server).await;
    pair.publish(0..10).await;

    // Messages that the application holds while the connection is lost remain its own.
    let mut consumer = pair.consumer().start().await.unwrap();
    let mut held = Vec::new();
    for expected in 0..5 {
        let message = next(&mut consumer).await;
        assert_eq!(number(&message), expected);
        held.push(message);
    }
    server.kill9().await;
    server.restart().await;
    for expected in 5..10 {
        assert_eq!(
            number(&next(&mut consumer).await),
            expected,
            "held messages are not handed over again"
        );
    }
    // The last five were dropped without an ack; the first five are acked now, on the new
    // connection.
    for (_, result) in consumer.ack_all(held).await {
        result.unwrap();
    }
    assert_eq!(stored_messages(&server).await, 5);
    consumer.close().await;

    // Messages that the application has recorded as processed, but never acked, are acked now, and
    // not handed over.
    let mut dedup = InMemory::default();
    let mut consumer = pair.consumer().start().await.unwrap();
    for expected in 5..8 {
        let message = next(&mut consumer).await;
        assert_eq!(number(&message), expected);
        dedup
            .record(message.sender(), message.message_id())
            .unwrap();
    }
    drop(consumer);
    let mut consumer = pair.consumer().dedup(dedup).start().await.unwrap();
    for expected in 8..10 {
        let message = next(&mut consumer).await;
        assert_eq!(number(&message), expected);
        message.ack().await.unwrap();
    }
    assert_eq!(consumer.duplicates(), 3);
    let database = server.database().await;
    database
        .eventually("SELECT count(*) FROM messages", 0)
        .await;
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

/// An application can have a message resent, and reject one.
async fn resend_and_reject(backend: Backend) {
    let server = backend.server().await;
    let pair = Pair::new(&server).await;
    let ids = pair.publish(0..3).await;
    let queue = pair.queue();
    let holder = connect(&server, "receiver").await;
    let fetched = holder
        .fetch(&queue)
        .await
        .unwrap()
        .expect("a message waits");
    assert_eq!(fetched.message_id, ids[0]);
    let second = pair
        .receiver
        .fetch(&queue)
        .await
        .unwrap()
        .expect("another message waits");
    assert_eq!(second.message_id, ids[1], "the first is leased");
    assert_eq!(
        pair.receiver.resend(&ids[0]).await.unwrap(),
        ResendOutcome::Unauthorized
    );
    assert_eq!(
        pair.sender.resend(&ids[0]).await.unwrap(),
        ResendOutcome::Requested
    );
    let again = pair
        .receiver
        .fetch(&queue)
        .await
        .unwrap()
        .expect("the resent message waits");
    assert_eq!(
        (again.message_id, again.envelope),
        (fetched.message_id, fetched.envelope)
    );
    holder.close().await;
    pair.receiver.close().await;

    let mut consumer = pair.consumer_on_new_connection(&server).await;
    let mut rejected = None;
    for _ in 0..3 {
        let message = next(&mut consumer).await;
        if number(&message) == 1 {
            rejected = Some(message.message_id().clone());
            message.reject("no use for odd numbers").await.unwrap();
        } else {
            message.ack().await.unwrap();
        }
    }
    assert_eq!(rejected.as_ref(), Some(&ids[1]));
    for id in &ids {
        assert_eq!(
            pair.sender.resend(id).await.unwrap(),
            ResendOutcome::NotWaiting,
            "{id} no longer waits"
        );
    }
    let database = server.database().await;
    assert_eq!(
        database
            .rows("SELECT message_id, reason FROM rejected_messages")
            .await,
        [[
            Some(ids[1].to_string()),
            Some("no use for odd numbers".to_owned())
        ]]
    );
    assert_eq!(stored_messages(&server).await, 0);
}

/// A consumer whose queue is deleted connects again, declares the queue and binds it as at its
/// start, and gets what is sent from then on. What waited is rejected, and may still be
/// acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_outlives_the_deletion_of_its_queue() {
    let server = Server::start(Options::sqlite()).await;
    let pair = Pair::new(&server).await;
    let mut consumer = pair.consumer().start().await.unwrap();
    pair.publish(0..1).await;
    let held = next(&mut consumer).await;
    assert_eq!(number(&held), 0);
    let mut events = consumer.events();
    let queue = pair.queue();
    let deleted = pair.receiver.delete_queue(&queue, DeleteQueue::default());
    deleted.await.unwrap();
    let (mut seen, mut is_connected) = (Vec::new(), false);
    while !is_connected {
        let event = tokio::time::timeout(PATIENCE, events.next()).await;
        let event = event.expect("an event in time").expect("it is not closed");
        is_connected = matches!(event, Event::Connected);
        seen.push(event);
    }
    assert!(matches!(seen[0], Event::Disconnected { .. }), "{seen:?}");
    held.ack().await.unwrap();
    pair.publish(1..2).await;
    assert_eq!(number(&next(&mut consumer).await), 1);
}

impl Pair {
    /// Starts a consumer on a new connection, for tests that have closed the pair's.
    async fn consumer_on_new_connection(&self, server: &Server) -> Consumer {
        let client = connect(server, "receiver").await;
        client
            .consumer(&self.queue())
            .keyring(self.keyring())
            .start()
            .await
            .unwrap()
    }
}

/// `flush_acks` waits for every preceding `ack_later`, and counts all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushing_waits_for_every_preceding_ack() {
    let server = Server::start(Options::sqlite()).await;
    let pair = Pair::new(&server).await;
    pair.publish(0..2000).await;
    let mut consumer = pair.consumer().start().await.unwrap();
    for round in 0..200 {
        for _ in 0..10 {
            next(&mut consumer).await.ack_later().unwrap();
        }
        let acks = consumer.flush_acks().await;
        assert_eq!(
            (acks.confirmed, acks.unconfirmed),
            (10, 0),
            "in round {round}"
        );
    }
    assert_eq!(stored_messages(&server).await, 0);
}

/// One session key encrypts at most 65,536 messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_after_65536_messages() {
    const COUNT: u64 = 65_536 + 500;
    let server = Server::start(Options::sqlite()).await;
    let pair = Pair::new(&server).await;
    let publisher = pair.publisher().start().await.unwrap();
    let sending = tokio::spawn(async move {
        submit(&publisher, 0..COUNT).await;
        publisher.finish().await
    });

    let mut raw = RawClient::connect(&server, "receiver").await;
    raw.ask("consume receiver_queue 1000", "Subscribed to queue")
        .await;
    let mut opener = Opener::new(
        pair.receiver.id().clone(),
        pair.keyring(),
        pair.receiver.authority().clone(),
        OpenPolicy::default(),
    );
    let chain = pair
        .receiver
        .certificate(pair.sender.id(), None)
        .await
        .unwrap()
        .unwrap();
    opener.add_sender_chain(certificates(&chain).unwrap());
    let mut sessions: BTreeMap<String, u64> = BTreeMap::new();
    let mut nonces = BTreeSet::new();
    let (mut arrived, mut acks) = (0, String::from("ack"));
    while arrived < COUNT {
        let line = raw.line().await;
        if line.starts_with("ACK_CONFIRMED ") {
            continue;
        }
        let delivery = line
            .strip_prefix("Message: ")
            .unwrap_or_else(|| panic!("{line:.100}"));
        let (id, json) = delivery.split_once(' ').unwrap();
        let envelope: serde_json::Value = serde_json::from_str(json).unwrap();
        let key = envelope["enc_session_key"].as_str().unwrap();
        *sessions.entry(key.to_owned()).or_default() += 1;
        assert!(
            nonces.insert(envelope["nonce"].as_str().unwrap().to_owned()),
            "a nonce is used twice"
        );
        let opened = opener
            .open(&Envelope::parse(json.to_owned().into_bytes().into()).unwrap())
            .unwrap();
        assert_eq!(opened.payload, arrived.to_string().as_bytes());
        arrived += 1;
        acks.push(' ');
        acks.push_str(id);
        if arrived % 250 == 0 || arrived == COUNT {
            raw.send_line(&acks).await;
            acks.truncate("ack".len());
        }
    }
    let mut counts: Vec<u64> = sessions.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [500, 65_536]);
    let summary = sending.await.unwrap();
    assert_eq!((summary.acknowledged, summary.unacknowledged), (COUNT, 0));
}

/// Two consumers of one client: each message goes to one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_consumers_share_a_queue() {
    let server = Server::start(Options::sqlite()).await;
    let pair = Pair::new(&server).await;
    let prefetch = NonZeroU32::new(10).unwrap();
    let mut one = pair.consumer().prefetch(prefetch).start().await.unwrap();
    let mut two = pair.consumer().prefetch(prefetch).start().await.unwrap();
    pair.publish(0..1000).await;
    let mut arrived: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
    while arrived[0].len() + arrived[1].len() < 1000 {
        let (consumer, message) = tokio::select! {
            message = next(&mut one) => (0, message),
            message = next(&mut two) => (1, message),
        };
        arrived[consumer].push(number(&message));
        message.ack_later().unwrap();
    }
    assert!(
        arrived
            .iter()
            .all(|numbers| !numbers.is_empty() && numbers.is_sorted()),
        "{arrived:?}"
    );
    let all: BTreeSet<u64> = arrived.iter().flatten().copied().collect();
    assert_eq!(all, (0..1000).collect());

    // Messages that one consumer holds unacknowledged go to the other when the first one ends.
    pair.publish(0..5).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(tokio::select! {
            message = next(&mut one) => (0, message),
            message = next(&mut two) => (1, message),
        });
    }
    let of_one: BTreeSet<u64> = held
        .iter()
        .filter(|(consumer, _)| *consumer == 0)
        .map(|(_, m)| number(m))
        .collect();
    let (one_held, two_held): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|(consumer, _)| *consumer == 0);
    for (_, message) in two_held {
        message.ack().await.unwrap();
    }
    one.flush_acks().await;
    drop(one_held);
    drop(one);
    let mut again = BTreeSet::new();
    while again.len() < of_one.len() {
        let message = next(&mut two).await;
        again.insert(number(&message));
        message.ack().await.unwrap();
    }
    assert_eq!(again, of_one);
    assert_eq!(stored_messages(&server).await, 0);
}

on_both_databases!(
    publisher_and_consumer_survive_server_restarts,
    redelivered_messages_are_not_handed_over_again,
    repeated_positions_of_a_stream_are_stored_once,
    resend_and_reject,
);
