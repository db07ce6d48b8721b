//! A sender over raw sockets: it sends the protocol's lines, keeps a book of what became of each
//! message, and sends again, under the same ids and with the same bytes, what it has no answer to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::record::{Outcome, Sent};
use crate::raw::Tls;
use crate::{EnvelopeText, RawClient};

/// How long a reply may take: longer than the server lets a publish wait for its store.
const REPLY: Duration = Duration::from_secs(12);

/// Between two tries to connect, and after an answer that says to try again.
const PAUSE: Duration = Duration::from_millis(50);

/// Where messages go.
#[derive(Debug, Clone)]
pub struct Route {
    /// The exchange.
    pub exchange: String,
    /// A routing key that a queue is bound by.
    pub routing_key: String,
    /// Whom they are for.
    pub receiver: String,
}

/// How a sender behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Misbehaviour {
    /// As it should.
    #[default]
    Good,
    /// It takes a message for acknowledged as soon as it has been sent.
    TakesSentForAcknowledged,
}

/// What a sender has sent, and what it knows of it. It survives the sender, as a synced file would.
#[derive(Debug, Default)]
struct Book {
    entries: Vec<Entry>,
    anomalies: Vec<String>,
    connections: usize,
    put_off: u64,
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
    /// The most messages a second, about; 0 for as many as will go.
    rate: u32,
    book: Arc<Mutex<Book>>,
    /// Aborted when it is dropped.
    task: JoinSet<()>,
    stopping: watch::Sender<bool>,
}

impl Sender {
    /// A sender that connects to `address` with these certificates, which are for the client
    /// `name`.
    pub fn new(name: &str, route: Route, tls: Tls, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            route,
            tls,
            address,
            misbehaviour: Misbehaviour::Good,
            rate: 0,
            book: Arc::default(),
            task: JoinSet::new(),
            stopping: watch::Sender::new(false),
        }
    }

    /// With other manners.
    #[must_use]
    pub fn misbehaviour(self, misbehaviour: Misbehaviour) -> Self {
        Self {
            misbehaviour,
            ..self
        }
    }

    /// At most about so many messages a second.
    #[must_use]
    pub fn rate(self, rate: u32) -> Self {
        Self { rate, ..self }
    }

    /// Starts it; what has no answer yet is sent again first.
    pub fn start(&mut self, seed: u64) {
        let work = Work {
            name: self.name.clone(),
            route: self.route.clone(),
            tls: self.tls.clone(),
            address: self.address,
            misbehaviour: self.misbehaviour,
            rate: self.rate,
            book: Arc::clone(&self.book),
            stopping: self.stopping.subscribe(),
            random: StdRng::seed_from_u64(seed),
        };
        self.task.spawn(work.run());
    }

    /// How many connections it has made.
    pub fn connections(&self) -> usize {
        lock(&self.book).connections
    }

    /// Ends it at once, whatever it is doing; its connection is gone with it.
    pub async fn kill(&mut self) {
        self.task.shutdown().await;
    }

    /// Forgets those that have no answer: their outcome stays unknown. Not while it runs.
    pub fn give_up(&self) {
        for entry in lock(&self.book)
            .entries
            .iter_mut()
            .filter(|entry| entry.outcome.is_none())
        {
            entry.outcome = Some(Outcome::Unknown);
        }
    }

    /// Makes nothing new any more, and waits until everything has an answer; what has none after
    /// `limit` stays unknown.
    pub async fn finish(&mut self, limit: Duration) {
        self.stopping.send_replace(true);
        let _ = tokio::time::timeout(limit, self.task.join_next()).await;
        self.kill().await;
        self.give_up();
    }

    /// How many messages have been sent, and how many of them have an answer.
    pub fn progress(&self) -> (usize, usize) {
        let book = lock(&self.book);
        let answered = book
            .entries
            .iter()
            .filter(|entry| entry.outcome.is_some())
            .count();
        (book.entries.len(), answered)
    }

    /// How often the server has put off a message, with `storage_unavailable`, `storage_full` or
    /// `shutting_down`.
    pub fn put_off(&self) -> u64 {
        lock(&self.book).put_off
    }

    /// What was sent, and what should not have been answered.
    pub fn record(&self) -> (Vec<Sent>, Vec<String>) {
        let book = lock(&self.book);
        let sent = book.entries.iter().map(|entry| Sent {
            sender: self.name.clone(),
            id: Some(entry.id.clone()),
            payload: entry.payload.clone(),
            outcome: entry.outcome.unwrap_or(Outcome::Unknown),
        });
        (sent.collect(), book.anomalies.clone())
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the sender's task has.
struct Work {
    name: String,
    route: Route,
    tls: Tls,
    address: SocketAddr,
    misbehaviour: Misbehaviour,
    rate: u32,
    book: Arc<Mutex<Book>>,
    stopping: watch::Receiver<bool>,
    random: StdRng,
}

impl Work {
    async fn run(mut self) {
        loop {
            if let Ok(Ok(mut client)) = tokio::time::timeout(
                Duration::from_secs(5),
                RawClient::handshake(self.address, &self.tls),
            )
            .await
            {
                lock(&self.book).connections += 1;
                // An error ends the connection only.
                if let Ok(()) = self.send(&mut client).await {
                    return;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends until it is told to stop and everything has an answer.
    async fn send(&mut self, client: &mut RawClient) -> std::io::Result<()> {
        loop {
            let mut burst = self.unanswered();
            if burst.is_empty() {
                if *self.stopping.borrow() {
                    return Ok(());
                }
                burst = self.write_new();
            }
            let mut lines = String::new();
            let is_batch = self.random.random_bool(0.5);
            self.put(&burst, is_batch, &mut lines);
            let started = tokio::time::Instant::now();
            client.try_send(lines.as_bytes()).await?;
            if self.misbehaviour == Misbehaviour::TakesSentForAcknowledged {
                for index in &burst {
                    self.settle(*index, Outcome::Acknowledged);
                }
            }
            let count = burst.len();
            let mut waiting: VecDeque<usize> = burst.into();
            let mut is_put_off = false;
            while let Some(index) = waiting.pop_front() {
                let Some(line) = client.read_line(REPLY).await? else {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                };
                is_put_off |= self.answer(index, &line);
            }
            if is_put_off {
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
        let book = lock(&self.book);
        let open = book
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

    /// Puts a few new messages into the book. One in fifty goes where no queue is bound.
    fn write_new(&mut self) -> Vec<usize> {
        let count = self.random.random_range(1..=40);
        let mut book = lock(&self.book);
        (0..count)
            .map(|_| {
                let index = book.entries.len();
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
                book.entries.push(Entry {
                    id,
                    line,
                    payload,
                    outcome: None,
                });
                index
            })
            .collect()
    }

    /// The lines that publish these: each alone, or runs of one routing key as batches.
    fn put(&self, burst: &[usize], is_batch: bool, lines: &mut String) {
        let book = lock(&self.book);
        let entries: Vec<&Entry> = burst
            .iter()
            .filter_map(|index| book.entries.get(*index))
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

    /// Whether the message was put off.
    fn answer(&self, index: usize, line: &str) -> bool {
        let id = lock(&self.book)
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
            lock(&self.book).put_off += 1;
            return true;
        } else {
            lock(&self.book)
                .anomalies
                .push(format!("{id} was answered {line:?}"));
        }
        false
    }

    fn settle(&self, index: usize, outcome: Outcome) {
        if let Some(entry) = lock(&self.book).entries.get_mut(index) {
            // A sender that takes sent for acknowledged does not look at what comes later.
            entry.outcome.get_or_insert(outcome);
        }
    }
}
