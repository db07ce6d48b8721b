//! What a long queue costs the server: memory while it grows, while it is received, and the time to
//! start with it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::envelope::EnvelopeText;
use crate::process::Process;
use crate::{Backend, RawClient, Server};

/// The promise.
pub const MEMORY: u64 = 100 * 1000 * 1000;
/// The promise.
pub const START: Duration = Duration::from_secs(2);

/// How much more memory a server may have that has done something than one that has not.
pub const SPARE: u64 = 16 * 1000 * 1000;

/// How many more files it may have open: those of the connection that reads the database, which has
/// been used.
pub const SPARE_FILES: usize = 3;

/// Messages in one `publish_batch`.
const BATCH: u64 = 500;
/// Batches under way.
const PIPELINE: u64 = 8;
/// Bytes of each payload.
const PAYLOAD: usize = 256;

/// What was measured.
#[derive(Debug, Clone)]
pub struct Figures {
    /// On which database.
    pub database: &'static str,
    /// How many messages there were.
    pub messages: u64,
    /// How many of them were received.
    pub received: u64,
    /// The most memory while they were published, in bytes.
    pub publishing: u64,
    /// How long the start took with all of them waiting.
    pub start: Duration,
    /// Memory right after it.
    pub started: u64,
    /// The most memory while they were received and acked.
    pub receiving: u64,
    /// Memory and open files before the first message, and when all was drained and idle.
    pub idle: [(u64, usize); 2],
    /// How long publishing and receiving took.
    pub times: [Duration; 2],
}

impl Figures {
    /// The first line of a table.
    pub const HEADER: &'static str = "database    messages   peak publishing  start    after \
                                      start  peak receiving  \
                                      idle before -> after        published/s  received/s";

    /// Whether the promises were kept.
    pub fn is_sound(&self) -> bool {
        let [before, after] = self.idle;
        let is_idle = after.0 <= before.0 + SPARE && after.1 <= before.1 + SPARE_FILES;
        is_idle
            && self.publishing < MEMORY
            && self.receiving < MEMORY
            && self.started < MEMORY
            && self.start < START
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let [before, after] = self.idle;
        let rate = |count: u64, time: Duration| count as f64 / time.as_secs_f64();
        write!(
            f,
            "{:<10} {:>9}   {:>12}   {:>7.3} s  {:>9}  {:>13}   {} {} fds -> {} {} fds   {:>9.0}  \
             {:>9.0}",
            self.database,
            self.messages,
            mb(self.publishing),
            self.start.as_secs_f64(),
            mb(self.started),
            mb(self.receiving),
            mb(before.0),
            before.1,
            mb(after.0),
            after.1,
            rate(self.messages, self.times[0]),
            rate(self.received, self.times[1]),
        )
    }
}

/// Publishes so many messages for a receiver that is away, starts the server anew, and receives
/// `received` of them.
///
/// # Panics
///
/// If the server answers anything but what it should, or delivers out of order.
pub async fn measure(backend: &Backend, messages: u64, received: u64) -> Figures {
    let mut server = backend.server().await;
    let mut client = RawClient::connect(&server, "sender").await;
    client.ask("declare_queue q", "Queue declared").await;
    client.ask("declare_exchange e", "Exchange declared").await;
    client.ask("bind q e k", "Queue bound").await;
    let files = open_files(server.process()) - 1;
    let before = (server.rss_bytes(), files);
    let began = Instant::now();
    publish(&mut client, messages).await;
    let published = began.elapsed();
    let publishing = server.process().peak_rss_bytes();
    client.close().await.expect("the connection closes");

    server.terminate().await;
    let began = Instant::now();
    server.restart().await;
    let start = began.elapsed();
    let started = server.rss_bytes();

    let mut client = RawClient::connect(&server, "receiver").await;
    let began = Instant::now();
    receive(&mut client, received).await;
    let times = [published, began.elapsed()];
    let receiving = server.process().peak_rss_bytes();
    client.close().await.expect("the connection closes");
    let after = settled(&server, (before.0 + SPARE, files + SPARE_FILES)).await;
    server.terminate().await;
    Figures {
        database: if backend.is_postgres() {
            "PostgreSQL"
        } else {
            "SQLite"
        },
        messages,
        received,
        publishing,
        start,
        started,
        receiving,
        idle: [before, after],
        times,
    }
}

/// Memory and open files once they are no more than these: what is not needed is given back and
/// closed after a while.
async fn settled(server: &Server, (bytes, files): (u64, usize)) -> (u64, usize) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let now = (server.rss_bytes(), open_files(server.process()));
        if now.0 <= bytes && now.1 <= files || Instant::now() > end {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How many files and sockets a process has open.
///
/// # Panics
///
/// If it has ended.
pub fn open_files(process: &Process) -> usize {
    let pid = process.pid().expect("the process runs").as_raw_nonzero();
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process runs")
        .count()
}

/// The id of the n-th message.
pub fn id(number: u64) -> String {
    format!("sender-{number:08}-receiver")
}

/// Publishes messages 0 to `messages` in big batches, some of them under way at a time.
///
/// # Panics
///
/// If one is not acknowledged.
pub async fn publish(client: &mut RawClient, messages: u64) {
    let payload = "A".repeat(PAYLOAD.div_ceil(3) * 4);
    let mut sent = 0;
    let mut acknowledged = 0;
    while acknowledged < messages {
        while sent < messages && sent - acknowledged < BATCH * PIPELINE {
            let end = messages.min(sent + BATCH);
            let envelopes: Vec<String> = (sent..end)
                .map(|number| {
                    EnvelopeText::older(&id(number), "receiver")
                        .set("ciphertext", payload.as_str())
                        .to_string()
                })
                .collect();
            client
                .send_line(&format!("publish_batch e k [{}]", envelopes.join(",")))
                .await;
            sent = end;
        }
        for _ in 0..BATCH.min(messages - acknowledged) {
            client.expect(&format!("ACK {}", id(acknowledged))).await;
            acknowledged += 1;
        }
    }
}

/// Receives and acks messages 0 to `messages`, in order.
///
/// # Panics
///
/// If they do not come in order, or an ack is not confirmed.
pub async fn receive(client: &mut RawClient, messages: u64) {
    client.ask("consume q 2000", "Subscribed to queue").await;
    let (mut received, mut confirmed) = (0, 0);
    let mut unacked = Vec::new();
    while confirmed < messages {
        let line = client.line().await;
        if let Some(delivered) = line.strip_prefix("Message: ") {
            assert!(
                delivered.starts_with(&id(received)),
                "number {received} is {delivered}"
            );
            unacked.push(id(received));
            received += 1;
        } else {
            assert_eq!(line, format!("ACK_CONFIRMED {}", id(confirmed)));
            confirmed += 1;
        }
        if unacked.len() >= 500 || (received == messages && !unacked.is_empty()) {
            client
                .send_line(&format!("ack {}", unacked.join(" ")))
                .await;
            unacked.clear();
        }
    }
}
