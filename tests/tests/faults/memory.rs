//! Memory, open files and disk space are bounded with long queues and slow clients, and released
//! when the queues are drained. To print a table for 10,000, 100,000 and 1,000,000 messages:
//! `cargo run -p ciphermq-tests --bin faults -- memory`.

use std::time::{Duration, Instant};

use ciphermq_tests::faults::backlog::{self, MAX_MEMORY};
use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, EnvelopeText, RawClient, Server};

pub(super) async fn a_long_queue_uses_little_memory_heavy(backend: Backend) {
    let figures = backlog::measure(&backend, 100_000, 100_000).await;
    eprintln!("{}\n{figures}", backlog::Figures::HEADER);
    assert!(figures.is_sound(), "{figures}");
}

/// Limit on memory, in bytes, with messages of 80 kB: `limits.max_ready_bytes` (64 MiB) of
/// prefetched messages, and one and a half times as much for everything else, and for the
/// allocator's fragmentation with pieces of that size. 115 to 145 MB were measured.
const LARGE: u64 = (64 + 96) << 20;

async fn bound(server: &Server) -> RawClient {
    let mut sender = RawClient::connect(server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    sender
}

/// The receiver has the largest prefetch and reads nothing, while 160 MB wait for it.
pub(super) async fn a_receiver_that_stops_reading_uses_little_memory_heavy(backend: Backend) {
    let server = backend.server().await;
    let mut sender = bound(&server).await;
    let mut receiver = RawClient::connect(&server, "receiver").await;
    receiver.ask("consume q 65535", "Subscribed to queue").await;
    let payload = "A".repeat(80_000);
    for number in 0..2000 {
        let id = format!("m-{number}");
        let envelope = EnvelopeText::older(&id, "receiver").set("ciphertext", payload.as_str());
        sender
            .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
            .await;
    }
    let peak = server.process().peak_rss_bytes();
    assert!(peak < LARGE, "{peak}");
    // Once it reads again, it gets all of them in order.
    for number in 0..2000 {
        receiver
            .expect_prefix(&format!("Message: m-{number} "))
            .await;
    }
    let peak = server.process().peak_rss_bytes();
    assert!(peak < LARGE, "{peak}");
}

/// The client sends requests without end, and never reads a reply.
pub(super) async fn the_server_stops_reading_from_a_client_that_reads_no_replies(backend: Backend) {
    let server = backend.server().await;
    let _sender = bound(&server).await;
    let mut silent = RawClient::connect(&server, "sender").await;
    let line = format!("get_public_key {}\n", "x".repeat(200)).repeat(1000);
    let mut sent = 0;
    let taken = tokio::time::timeout(Duration::from_secs(5), async {
        while sent < 400 {
            silent.send_bytes(&line).await;
            sent += 1;
        }
    })
    .await;
    let peak = server.process().peak_rss_bytes();
    assert!(
        peak < MAX_MEMORY,
        "{peak} bytes after {sent} thousand lines"
    );
    assert!(
        taken.is_err(),
        "80 MB of requests were read from a client that reads no replies"
    );
    RawClient::connect(&server, "other")
        .await
        .ask("ping", "PONG")
        .await;
}

/// After a backlog was drained, the store releases its disk space, except for the metadata.
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_space_of_a_drained_queue_is_released_heavy() {
    let server = Backend::Sqlite.server().await;
    let mut sender = bound(&server).await;
    let payload = "A".repeat(40_000);
    let messages = 2000;
    for number in 0..messages {
        let envelope = EnvelopeText::older(&backlog::id(number), "receiver")
            .set("ciphertext", payload.as_str());
        sender.send_line(&format!("publish e k {envelope}")).await;
        sender.expect(&format!("ACK {}", backlog::id(number))).await;
    }
    let data = server.folder().join("data");
    // The space that is set aside stays.
    let is_reserve = |entry: &std::fs::DirEntry| entry.path().ends_with("ciphermq.db.reserve");
    let size = || -> u64 {
        let entries = std::fs::read_dir(&data).unwrap().map(Result::unwrap);
        entries
            .filter(|entry| !is_reserve(entry))
            .map(|entry| entry.metadata().map_or(0, |metadata| metadata.len()))
            .sum()
    };
    let full = size();
    assert!(full > 80_000_000, "{full}");
    let mut receiver = RawClient::connect(&server, "receiver").await;
    backlog::receive(&mut receiver, messages).await;
    // A few megabytes are kept for further messages.
    let end = Instant::now() + Duration::from_secs(60);
    while size() > 24_000_000 {
        assert!(Instant::now() < end, "{} of {full} bytes are left", size());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Of long messages that a receiver does not read, one is on its way to it, and one is ready; the
/// others wait in the database. Other receivers get theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_that_are_not_read_take_bounded_memory() {
    const RECEIVERS: usize = 6;
    const EACH: usize = 6;
    const LENGTH: usize = 8 << 20;
    let options = Options::sqlite()
        .set("limits", "max_unread_bytes", "16MiB")
        .set("limits", "max_ready_bytes", "16MiB");
    let mut server = Server::start(options).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    for number in 0..RECEIVERS {
        let queue = format!("q{number}");
        sender.declare_and_bind(&queue, "e", &queue).await;
        for index in 0..EACH {
            let id = format!("m-{number}-{index}");
            let envelope = EnvelopeText::older(&id, &format!("receiver-{number}"))
                .set("ciphertext", "x".repeat(LENGTH));
            let publish = format!("publish e {queue} {envelope}");
            sender.ask(&publish, &format!("ACK {id}")).await;
        }
    }
    let before = server.rss_bytes();
    let mut receivers = Vec::new();
    for number in 0..RECEIVERS {
        let mut receiver = RawClient::connect(&server, &format!("receiver-{number}")).await;
        receiver
            .send_bytes(format!("consume q{number} 1000\n"))
            .await;
        receivers.push(receiver);
    }
    // By then the server has read and buffered as much as it does.
    tokio::time::sleep(Duration::from_secs(3)).await;
    // All of them together would be 288 MiB.
    let grown = server.rss_bytes().saturating_sub(before);
    assert!(
        grown < 128 << 20,
        "{} MiB for unread deliveries",
        grown >> 20
    );

    sender.declare_and_bind("small", "e", "small").await;
    let mut other = RawClient::connect(&server, "other").await;
    other.ask("consume small 10", "Subscribed to queue").await;
    let envelope = EnvelopeText::older("small-1", "other");
    let publish = format!("publish e small {envelope}");
    sender.ask(&publish, "ACK small-1").await;
    other.expect_prefix("Message: small-1 ").await;

    // One of them reads after all, and nothing is missing.
    let mut slow = RawClient::connect(&server, "receiver-3").await;
    drop(receivers);
    slow.ask("consume q3 1000", "Subscribed to queue").await;
    for index in 0..EACH {
        let envelope = slow.expect_prefix(&format!("Message: m-3-{index} ")).await;
        assert!(envelope.len() > LENGTH, "{}", envelope.len());
    }
    for index in 0..EACH {
        slow.ack(&format!("m-3-{index}")).await;
    }
    server.terminate().await;
}
