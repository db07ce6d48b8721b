//! A sender over raw sockets, which sends the protocol's lines and keeps a journal of their
//! outcomes. Messages without a reply are sent again, with the same ids and bytes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::record::{Outcome, Sent};
use crate::raw::Tls;
use crate::{EnvelopeText, RawClient};

/// Time limit for a reply, longer than the server's `limits.storage_wait`.
const REPLY: Duration = Duration::from_secs(12);

/// Pause between two attempts to connect, and after a reply that asks to retry.
const PAUSE: Duration = Duration::from_millis(50);

/// Destination of messages.
#[derive(Debug, Clone)]
pub struct Route {
    /// Name of the exchange.
    pub exchange: String,
    /// Routing key by which a queue is bound.
    pub routing_key: String,
    /// Client id of the receiver.
    pub receiver: String,
}

/// Misbehaviour of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Misbehaviour {
    /// No misbehaviour.
    #[default]
    None,
    /// Takes a message for acknowledged as soon as it has been sent.
    TakesSentForAcknowledged,
}

/// Everything that a sender has sent, with the outcomes. It survives the sender, like a synced
/// file.
#[derive(Debug, Default)]
struct Journal {
    entries: Vec<Entry>,
    anomalies: Vec<String>,
    connections: usize,
    deferred: u64,
}

#[derive(Debug)]
struct Entry {
    id: String,
    line: String,
    payload: String,
    outcome: Option<Outcome>,
}

/// A sender that can be killed and started again.
pub struct Sender {
    name: String,
    route: Route,
    tls: Tls,
    address: SocketAddr,
    misbehaviour: Misbehaviour,
    /// Approximate maximum of messages per second, or 0 for no limit.
    rate: u32,
    journal: Arc<Mutex<Journal>>,
    /// The running task, aborted on drop.
    task: JoinSet<()>,
    stopping: watch::Sender<bool>,
}

impl Sender {
    /// Creates a sender that connects to `address` as the client `name`, whose certificate is in
    /// `tls`.
    pub fn new(name: &str, route: Route, tls: Tls, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            route,
            tls,
            address,
            misbehaviour: Misbehaviour::None,
            rate: 0,
            journal: Arc::default(),
            task: JoinSet::new(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Sets the misbehaviour.
    #[must_use]
    pub fn misbehaviour(self, misbehaviour: Misbehaviour) -> Self {
        Self {
            misbehaviour,
            ..self
        }
    }

    /// Sets the approximate maximum of messages per second, or 0 for no limit.
    #[must_use]
    pub fn rate(self, rate: u32) -> Self {
        Self { rate, ..self }
    }

    /// Starts the sender. It first sends the messages again that have no reply yet.
    pub fn start(&mut self, seed: u64) {
        let task = SenderTask {
            name: self.name.clone(),
            route: self.route.clone(),
            tls: self.tls.clone(),
            address: self.address,
            misbehaviour: self.misbehaviour,
            rate: self.rate,
            journal: Arc::clone(&self.journal),
            stopping: self.stopping.subscribe(),
            random: StdRng::seed_from_u64(seed),
        };
        self.task.spawn(task.run());
    }

    /// Number of connections made so far.
    pub fn connections(&self) -> usize {
        self.journal.lock().connections
    }

    /// Aborts the sender at once, and drops its connection.
    pub async fn kill(&mut self) {
        self.task.shutdown().await;
    }

    /// Gives up all messages without a reply: their outcome stays unknown. Must not be called while
    /// the sender runs.
    pub fn give_up(&self) {
        for entry in self
            .journal
            .lock()
            .entries
            .iter_mut()
            .filter(|entry| entry.outcome.is_none())
        {
            entry.outcome = Some(Outcome::Unknown);
        }
    }

    /// Stops creating messages, and waits until all have a reply. The outcome of those without a
    /// reply after `limit` stays unknown.
    pub async fn finish(&mut self, limit: Duration) {
        self.stopping.send_replace(true);
        let _ = tokio::time::timeout(limit, self.task.join_next()).await;
        self.kill().await;
        self.give_up();
    }

    /// Returns the number of messages created, and the number of those that have an outcome.
    pub fn progress(&self) -> (usize, usize) {
        let journal = self.journal.lock();
        let answered = journal
            .entries
            .iter()
            .filter(|entry| entry.outcome.is_some())
            .count();
        (journal.entries.len(), answered)
    }

    /// Number of replies that asked to retry: `storage_unavailable`, `storage_full` or
    /// `shutting_down`.
    pub fn deferred(&self) -> u64 {
        self.journal.lock().deferred
    }

    /// Returns the messages sent, and the anomalies.
    pub fn record(&self) -> (Vec<Sent>, Vec<String>) {
        let journal = self.journal.lock();
        let sent = journal.entries.iter().map(|entry| Sent {
            sender: self.name.clone(),
            id: Some(entry.id.clone()),
            payload: entry.payload.clone(),
            outcome: entry.outcome.unwrap_or(Outcome::Unknown),
        });
        (sent.collect(), journal.anomalies.clone())
    }
}

/// State of the sender's task.
struct SenderTask {
    name: String,
    route: Route,
    tls: Tls,
    address: SocketAddr,
    misbehaviour: Misbehaviour,
    rate: u32,
    journal: Arc<Mutex<Journal>>,
    stopping: watch::Receiver<bool>,
    random: StdRng,
}

impl SenderTask {
    async fn run(mut self) {
        loop {
            if let Ok(Ok(mut client)) = tokio::time::timeout(
                Duration::from_secs(5),
                RawClient::handshake(self.address, &self.tls),
            )
            .await
            {
                self.journal.lock().connections += 1;
                // An error ends only the connection.
                if let Ok(()) = self.send(&mut client).await {
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends until the sender is stopping and all messages have a reply.
    async fn send(&mut self, client: &mut RawClient) -> std::io::Result<()> {
        loop {
            let mut indices = self.unanswered();
            if indices.is_empty() {
                if *self.stopping.borrow() {
                    return Ok(());
                }
                indices = self.create_messages();
            }
            let mut lines = String::new();
            let is_batch = self.random.random_bool(0.5);
            self.encode(&indices, is_batch, &mut lines);
            let started = tokio::time::Instant::now();
            client.try_send(lines.as_bytes()).await?;
            if self.misbehaviour == Misbehaviour::TakesSentForAcknowledged {
                for index in &indices {
                    self.settle(*index, Outcome::Acknowledged);
                }
            }
            let count = indices.len();
            let mut waiting: VecDeque<usize> = indices.into();
            let mut is_deferred = false;
            while let Some(index) = waiting.pop_front() {
                let Some(line) = client.read_line(REPLY).await? else {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                };
                is_deferred |= self.handle_reply(index, &line);
            }
            if is_deferred {
                tokio::time::sleep(PAUSE).await;
            }
            if self.rate > 0 {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                tokio::time::sleep_until(started + Duration::from_secs(1) * count / self.rate)
                    .await;
            }
        }
    }

    fn unanswered(&self) -> Vec<usize> {
        let journal = self.journal.lock();
        let open = journal
            .entries
            .iter()
            .enumerate()
            .rev()
            .take(5000)
            .filter(|(_, entry)| entry.outcome.is_none());
        let mut open: Vec<usize> = open.map(|(index, _)| index).collect();
        open.reverse();
        open
    }

    /// Adds a few new messages to the journal. One in fifty has a routing key by which no queue is
    /// bound.
    fn create_messages(&mut self) -> Vec<usize> {
        let count = self.random.random_range(1..=40);
        let mut journal = self.journal.lock();
        (0..count)
            .map(|_| {
                let index = journal.entries.len();
                let id = format!("{}-{index:07}-{}", self.name, self.route.receiver);
                let filling = "x".repeat(self.random.random_range(0..300));
                let payload = format!("message {index} of {} {filling}", self.name);
                let key = if self.random.random_bool(0.02) {
                    "nowhere"
                } else {
                    &self.route.routing_key
                };
                let envelope = EnvelopeText::older(&id, &self.route.receiver)
                    .set("ciphertext", STANDARD.encode(&payload));
                let line = format!("{} {key} {envelope}", self.route.exchange);
                journal.entries.push(Entry {
                    id,
                    line,
                    payload,
                    outcome: None,
                });
                index
            })
            .collect()
    }

    /// Encodes the lines that publish these messages, one by one, or in a batch for each run of
    /// messages with the same routing key.
    fn encode(&self, indices: &[usize], is_batch: bool, lines: &mut String) {
        let journal = self.journal.lock();
        let entries: Vec<&Entry> = indices
            .iter()
            .filter_map(|index| journal.entries.get(*index))
            .collect();
        if !is_batch {
            for entry in entries {
                lines.extend(["publish ", &entry.line, "\n"]);
            }
            return;
        }
        let parts = |entry: &Entry| {
            let at = entry.line.find('{').unwrap_or_default();
            let (to, envelope) = entry.line.split_at(at);
            (to.to_owned(), envelope.to_owned())
        };
        let parts: Vec<(String, String)> = entries.into_iter().map(parts).collect();
        for run in parts.chunk_by(|one, other| one.0 == other.0) {
            let envelopes: Vec<&str> = run.iter().map(|(_, envelope)| envelope.as_str()).collect();
            let to = run.first().map_or("", |(to, _)| to);
            lines.extend(["publish_batch ", to, "[", &envelopes.join(","), "]\n"]);
        }
    }

    /// Records the reply to a message. Returns whether the message was deferred.
    fn handle_reply(&self, index: usize, line: &str) -> bool {
        let id = self
            .journal
            .lock()
            .entries
            .get(index)
            .map(|entry| entry.id.clone())
            .unwrap_or_default();
        if line == format!("ACK {id}") {
            self.settle(index, Outcome::Acknowledged);
        } else if line.starts_with("Error: no_route: ") {
            self.settle(index, Outcome::Refused);
        } else if [
            "Error: storage_unavailable: ",
            "Error: storage_full: ",
            "Error: shutting_down: ",
        ]
        .iter()
        .any(|code| line.starts_with(code))
        {
            self.journal.lock().deferred += 1;
            return true;
        } else {
            self.journal
                .lock()
                .anomalies
                .push(format!("unexpected reply to {id}: {line:?}"));
        }
        false
    }

    fn settle(&self, index: usize, outcome: Outcome) {
        if let Some(entry) = self.journal.lock().entries.get_mut(index) {
            // The first outcome counts: a sender that takes sent messages for acknowledged ignores
            // the reply.
            entry.outcome.get_or_insert(outcome);
        }
    }
}
