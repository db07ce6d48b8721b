//! Publishes while their queue is deleted and declared again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ciphermq_tests::{Backend, PATIENCE, RawClient, Server};
use tokio::time::{Instant, sleep, timeout};

use super::{batch, owner, rejected};

/// The number of times that the queue is deleted and declared again.
const ROUNDS: usize = 25;
/// The number of messages in a line.
const LINE: usize = 20;

/// The ids of a sender's messages, by outcome.
#[derive(Default)]
struct Sent {
    acknowledged: BTreeSet<String>,
    refused: BTreeSet<String>,
}

/// Publishes lines of messages, some of them in flight at once, until `stop` is set.
async fn publish(server: Arc<Server>, name: String, stop: Arc<AtomicBool>) -> Sent {
    let mut sender = RawClient::connect(&server, &name).await;
    let (mut sent, mut lines, mut answered) = (Sent::default(), 0, 0);
    loop {
        let is_stopping = stop.load(Ordering::Relaxed);
        while !is_stopping && lines < answered + 4 {
            let ids = (0..LINE).map(|at| format!("{name}-{lines}-{at}"));
            sender.send_line(&batch(ids)).await;
            lines += 1;
        }
        if answered == lines {
            sender.end().await;
            return sent;
        }
        for at in 0..LINE {
            let id = format!("{name}-{answered}-{at}");
            let reply = sender.line().await;
            if reply == format!("ACK {id}") {
                sent.acknowledged.insert(id);
            } else {
                let is_refusal = reply.starts_with("Error: no_route: ");
                assert!(
                    is_refusal && reply.ends_with(&format!(" for message {id}")),
                    "{reply}"
                );
                sent.refused.insert(id);
            }
        }
        answered += 1;
    }
}

/// A receiver's deliveries by message id, and the ids whose acks are confirmed.
#[derive(Default)]
struct Received {
    times: BTreeMap<String, usize>,
    confirmed: BTreeSet<String>,
}

/// Consumes, acknowledges each message, and reconnects whenever the queue is deleted.
async fn receive(server: Arc<Server>, stop: Arc<AtomicBool>) -> Received {
    let mut received = Received::default();
    'connect: while !stop.load(Ordering::Relaxed) {
        let mut receiver = RawClient::connect(&server, "owner").await;
        if receiver.try_send(b"consume q 10\n").await.is_err() {
            continue;
        }
        while let Ok(Some(line)) = receiver.read_line(PATIENCE).await {
            if let Some(delivery) = line.strip_prefix("Message: ") {
                let id = delivery.split(' ').next().unwrap().to_owned();
                *received.times.entry(id.clone()).or_default() += 1;
                if receiver
                    .try_send(format!("ack {id}\n").as_bytes())
                    .await
                    .is_err()
                {
                    continue 'connect;
                }
            } else if let Some(id) = line.strip_prefix("ACK_CONFIRMED ") {
                received.confirmed.insert(id.to_owned());
            } else {
                assert_eq!(line, "Subscribed to queue");
            }
        }
    }
    received
}

pub(super) async fn publishes_race_with_deletions(backend: Backend) {
    let server = Arc::new(backend.server().await);
    let mut one = owner(&server).await;
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..3)
        .map(|sender| {
            let (server, stop) = (Arc::clone(&server), Arc::clone(&stop));
            tokio::spawn(publish(server, format!("sender{sender}"), stop))
        })
        .collect();
    let receiver = tokio::spawn(receive(Arc::clone(&server), Arc::clone(&stop)));
    for round in 0..ROUNDS {
        sleep(Duration::from_millis(20)).await;
        let command = if round % 3 == 0 {
            "purge_queue q"
        } else {
            "delete_queue q"
        };
        one.send_line(command).await;
        let reply = one.line().await;
        assert!(
            matches!(&*reply, "Queue purged" | "Queue deleted"),
            "{reply}"
        );
        one.ask("declare_queue q", "Queue declared").await;
        one.ask("bind q e k", "Queue bound").await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = Sent::default();
    for sender in senders {
        let of_sender = timeout(PATIENCE, sender).await.unwrap().unwrap();
        sent.acknowledged.extend(of_sender.acknowledged);
        sent.refused.extend(of_sender.refused);
    }
    // Ends the receiver's connection, too. It may be about to make the queue again.
    while !receiver.is_finished() {
        one.ask("declare_queue q", "Queue declared").await;
        one.ask("delete_queue q", "Queue deleted").await;
        sleep(Duration::from_millis(20)).await;
    }
    let received = receiver.await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    let set_aside = loop {
        let set_aside = rejected(&mut one).await;
        let is_found = |id: &String| received.times.contains_key(id) || set_aside.contains_key(id);
        let lost: Vec<_> = sent
            .acknowledged
            .iter()
            .filter(|id| !is_found(id))
            .collect();
        if lost.is_empty() {
            break set_aside;
        }
        assert!(Instant::now() < deadline, "lost: {lost:?}");
        sleep(Duration::from_millis(50)).await;
    };
    assert!(!received.confirmed.is_empty() && !set_aside.is_empty());
    let twice: Vec<_> = received
        .times
        .iter()
        .filter(|(_, times)| **times > 1)
        .collect();
    assert!(twice.is_empty(), "received twice: {twice:?}");
    for id in &sent.refused {
        assert!(
            !received.times.contains_key(id) && !set_aside.contains_key(id),
            "{id} was refused and stored"
        );
    }
}
