//! Consumers: redelivery, confirmation, rejection, and several on one queue.

use ciphermq_client::DeleteQueue;

use super::*;

/// The application gets each message once, even if the server redelivers it.
pub(crate) async fn redelivered_messages_are_not_handed_over_again(backend: Backend) {
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

/// An application can have a message resent, and reject one.
pub(crate) async fn resend_and_reject(backend: Backend) {
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
