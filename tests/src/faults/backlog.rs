//! Cost of a long queue for the server: memory while it grows and while it is consumed, and the
//! time to start with it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::envelope::EnvelopeText;
use crate::process::Process;
use crate::{Backend, RawClient, Server};

/// Limit on the server's resident memory, in bytes.
pub const MAX_MEMORY: u64 = 100 * 1000 * 1000;
/// Limit on the time that the server takes to start.
pub const MAX_START: Duration = Duration::from_secs(2);

/// Additional memory, in bytes, that an idle server may use after work, compared to before it.
pub const IDLE_MEMORY_MARGIN: u64 = 16 * 1000 * 1000;

/// Additional open files that an idle server may have after work: those of the database connection
/// for reading.
pub const IDLE_FILES_MARGIN: usize = 3;

/// Messages in one `publish_batch`.
const BATCH: u64 = 500;
/// Batches in flight.
const PIPELINE: u64 = 8;
/// Size of each payload, in bytes.
const PAYLOAD: usize = 256;

/// Results of a measurement.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Name of the database.
    pub database: &'static str,
    /// Number of messages published.
    pub messages: u64,
    /// Number of messages received.
    pub received: u64,
    /// Peak memory while publishing, in bytes.
    pub publishing: u64,
    /// Time to start with all messages waiting.
    pub start: Duration,
    /// Memory after that start, in bytes.
    pub started: u64,
    /// Peak memory while messages were received and acked, in bytes.
    pub receiving: u64,
    /// Memory in bytes, and open files, before the first message and when idle after the last.
    pub idle: [(u64, usize); 2],
    /// Duration of publishing and of receiving.
    pub times: [Duration; 2],
}

impl Figures {
    /// The header of a table of figures.
    pub const HEADER: &'static str = "database    messages   peak publishing  start    after \
                                      start  peak receiving  \
                                      idle before -> after        published/s  received/s";

    /// Whether all limits were respected.
    pub fn is_sound(&self) -> bool {
        let [before, after] = self.idle;
        let is_idle =
            after.0 <= before.0 + IDLE_MEMORY_MARGIN && after.1 <= before.1 + IDLE_FILES_MARGIN;
        is_idle
            && self.publishing < MAX_MEMORY
            && self.receiving < MAX_MEMORY
            && self.started < MAX_MEMORY
            && self.start < MAX_START
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

/// Publishes `messages` messages for a receiver that is not connected, restarts the server, and
/// receives `received` of them.
///
/// # Panics
///
/// If the server sends an unexpected reply, or delivers out of order.
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
    let after = settled(
        &server,
        (before.0 + IDLE_MEMORY_MARGIN, files + IDLE_FILES_MARGIN),
    )
    .await;
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

/// Waits until memory and open files are at most these, since the server releases what it does not
/// need after a while, and returns them. After 30 seconds it returns the values at that time.
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

/// Number of files and sockets that a process has open.
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

/// The id of the message `number`.
pub fn id(number: u64) -> String {
    format!("sender-{number:08}-receiver")
}

/// Publishes the messages with the numbers `0..messages` in large batches, several of them in
/// flight.
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

/// Receives and acks the messages with the numbers `0..messages`, in order.
///
/// # Panics
///
/// If they are delivered out of order, or an ack is not confirmed.
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
