//! A large backlog for an absent receiver: it neither fills the server's memory nor delays another
//! receiver, and is delivered in order when the receiver connects.
//!
//! `CIPHERMQ_BACKLOG_MESSAGES` sets the number of messages; the default is a million on SQLite and
//! 200,000 on PostgreSQL.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ciphermq_protocol::StreamId;
use ciphermq_tests::{Backend, PATIENCE, RawClient, Server, on_both_databases};

const BATCH: usize = 1000;
/// The limit on unacknowledged batches.
const PIPELINE: usize = 8;
/// The number of messages that the late receiver takes, which are many pages of the store.
const SAMPLE: usize = 50_000;
/// The limit on the server's peak resident memory, in bytes.
const MEMORY: u64 = 150 << 20;

fn messages(backend: &Backend) -> usize {
    let default = if backend.is_postgres() {
        200_000
    } else {
        1_000_000
    };
    match std::env::var("CIPHERMQ_BACKLOG_MESSAGES") {
        Ok(number) => number
            .parse()
            .expect("CIPHERMQ_BACKLOG_MESSAGES is a number"),
        Err(_) => default,
    }
}

fn envelope(id: &str, receiver: &str) -> String {
    format!(
        "{{\"message_id\":\"{id}\",\"receiver_client_id\":\"{receiver}\",\"enc_session_key\":\"c2Vzc2lvbiBrZXk=\",\
         \"nonce\":\"AAAAAAAAAAAAAAAA\",\"tag\":\"AAAAAAAAAAAAAAAAAAAAAA==\",\"ciphertext\":\"Y2lwaGVydGV4dA==\",\
         \"suite\":\"X25519-AES256GCM\"}}"
    )
}

async fn heavy_backlog_for_an_absent_receiver(backend: Backend) {
    let count = messages(&backend);
    // A log line for each message would dominate the work.
    let options = backend.options().await.set("logging", "level", "warn");
    let mut server = Server::start(options).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    let mut present = RawClient::connect(&server, "present").await;
    present.ask("consume q 10", "Subscribed to queue").await;

    let stream = StreamId::new(1_757_314_980_000, 17);
    let id = |index: usize| {
        stream
            .message_id(u64::try_from(index).unwrap())
            .unwrap()
            .to_string()
    };
    let start = Instant::now();
    let batches: Vec<_> = (0..count)
        .step_by(BATCH)
        .map(|first| first..(first + BATCH).min(count))
        .collect();
    let mut acked = 0;
    for (number, batch) in batches.iter().enumerate() {
        let mut line = String::from("publish_batch e k ");
        for index in batch.clone() {
            let comma = if index == batch.start { '[' } else { ',' };
            write!(line, "{comma}{}", envelope(&id(index), "absent")).unwrap();
        }
        line += "]\n";
        sender.send_bytes(line).await;
        while number + 1 >= PIPELINE && acked < batches[number + 1 - PIPELINE].end {
            sender.expect(&format!("ACK {}", id(acked))).await;
            acked += 1;
        }
        if number == batches.len() / 2 {
            // Halfway, a message for the connected receiver.
            expect_immediate_delivery(&server, &mut present, "middle").await;
        }
    }
    while acked < count {
        sender.expect(&format!("ACK {}", id(acked))).await;
        acked += 1;
    }
    let published = start.elapsed();
    expect_immediate_delivery(&server, &mut present, "last").await;

    let start = Instant::now();
    let mut absent = RawClient::connect(&server, "absent").await;
    absent.ask("consume q 2000", "Subscribed to queue").await;
    let sample = SAMPLE.min(count);
    let mut acks = String::new();
    let mut next = 0;
    while next < sample {
        let line = absent.line().await;
        if let Some(delivery) = line.strip_prefix("Message: ") {
            let id = id(next);
            assert_eq!(delivery, format!("{id} {}", envelope(&id, "absent")));
            write!(acks, " {id}").unwrap();
            next += 1;
            if next % 500 == 0 {
                absent
                    .send_line(&format!("ack{}", std::mem::take(&mut acks)))
                    .await;
            }
        } else {
            assert!(line.starts_with("ACK_CONFIRMED "), "{line}");
        }
    }
    let drained = start.elapsed();
    let peak = server.process().peak_rss_bytes();
    println!(
        "{count} published in {published:?}, {sample} of them drained in {drained:?}, {} MiB at \
         most",
        peak >> 20
    );
    assert!(peak < MEMORY, "{} MiB", peak >> 20);
    server.terminate().await;
}

async fn expect_immediate_delivery(server: &Server, present: &mut RawClient, id: &str) {
    let mut sender = RawClient::connect(server, "another").await;
    let envelope = envelope(id, "present");
    sender
        .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
        .await;
    let acked = Instant::now();
    let line = present.read_line(PATIENCE).await.unwrap();
    assert_eq!(line, Some(format!("Message: {id} {envelope}")));
    assert!(
        acked.elapsed() < Duration::from_secs(1),
        "{:?}",
        acked.elapsed()
    );
    present.ack(id).await;
}

on_both_databases!(heavy_backlog_for_an_absent_receiver);
