//! Memory, open files and disk space are bounded with long queues and slow clients, and released
//! when the queues are drained. To print a table for 10,000, 100,000 and 1,000,000 messages:
//! `cargo run -p ciphermq-tests --bin faults -- memory`.

use std::time::{Duration, Instant};

use ciphermq_tests::faults::backlog::{self, MAX_MEMORY};
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
