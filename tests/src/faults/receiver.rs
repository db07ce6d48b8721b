//! A receiver over raw sockets, which writes down every delivery and every confirmation in the
//! order of its lines.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::record::{Received, Wire};
use crate::RawClient;
use crate::raw::Tls;

/// After so much silence it acks what it has, or sends a ping.
const QUIET: Duration = Duration::from_millis(150);
/// Nothing at all for so long, in spite of the pings: the connection is dead. Answers wait behind
/// acks, and acks as long as the store is away.
const DEAD: u32 = 300;
const PAUSE: Duration = Duration::from_millis(50);

/// How a receiver behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Misbehaviour {
    /// As it should.
    #[default]
    Good,
    /// It writes whatever it gets.
    DoesNotDeduplicate,
    /// It acks now and then what it has not written.
    AcksUnwritten,
    /// It writes payloads that are not quite what came.
    Alters,
}

/// What a receiver has written. It survives the receiver, as a synced file would.
#[derive(Debug, Default)]
struct Book {
    output: Vec<Received>,
    written: HashSet<String>,
    wire: Vec<Wire>,
    anomalies: Vec<String>,
    connections: usize,
}

/// A receiver that can be killed and started again.
pub struct Receiver {
    queue: String,
    tls: Tls,
    address: SocketAddr,
    misbehaviour: Misbehaviour,
    book: Arc<Mutex<Book>>,
    /// Aborted when it is dropped.
    task: JoinSet<()>,
    consumer: String,
}

impl Receiver {
    /// A receiver that connects to `address` with these certificates and consumes `queue`, which is
    /// there.
    pub fn new(queue: &str, tls: Tls, address: SocketAddr) -> Self {
        let consumer = format!("{:032x}", rand::rng().random::<u128>());
        let parts = [0..8, 8..12, 12..16, 16..20, 20..32]
            .map(|range| consumer.get(range).unwrap_or_default().to_owned());
        Self {
            queue: queue.to_owned(),
            tls,
            address,
            misbehaviour: Misbehaviour::Good,
            book: Arc::default(),
            task: JoinSet::new(),
            consumer: parts.join("-"),
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

    /// Starts it.
    pub fn start(&mut self, seed: u64) {
        let work = Work {
            queue: self.queue.clone(),
            tls: self.tls.clone(),
            address: self.address,
            misbehaviour: self.misbehaviour,
            consumer: self.consumer.clone(),
            book: Arc::clone(&self.book),
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

    /// How many messages stand in its output.
    pub fn written(&self) -> usize {
        lock(&self.book).output.len()
    }

    /// Its output, what it saw, and what should not have come.
    pub fn record(&self) -> (Vec<Received>, Vec<Wire>, Vec<String>) {
        let book = lock(&self.book);
        (
            book.output.clone(),
            book.wire.clone(),
            book.anomalies.clone(),
        )
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Work {
    queue: String,
    tls: Tls,
    address: SocketAddr,
    misbehaviour: Misbehaviour,
    consumer: String,
    book: Arc<Mutex<Book>>,
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
                // It ends with an error only: of the connection.
                let _: std::io::Result<()> = self.receive(&mut client).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn receive(&mut self, client: &mut RawClient) -> std::io::Result<()> {
        let prefetch = self.random.random_range(1..=200);
        let open = format!(
            "hello {{\"consumer\":\"{}\"}}\nconsume {} {prefetch}\n",
            self.consumer, self.queue
        );
        client.try_send(open.as_bytes()).await?;
        let mut unacked: Vec<String> = Vec::new();
        let mut acked: HashMap<String, u32> = HashMap::new();
        let mut group = self.random.random_range(1..=prefetch);
        let mut silences = 0;
        loop {
            match client.read_line(QUIET).await {
                Ok(Some(line)) => {
                    silences = 0;
                    self.line(&line, &mut unacked, &mut acked);
                }
                Ok(None) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    silences += 1;
                    if silences > DEAD {
                        return Err(error);
                    }
                    group = 1;
                }
                Err(error) => return Err(error),
            }
            if unacked.len() >= group {
                client
                    .try_send(format!("ack {}\n", unacked.join(" ")).as_bytes())
                    .await?;
                for id in unacked.drain(..) {
                    *acked.entry(id).or_default() += 1;
                }
                group = self.random.random_range(1..=prefetch);
            } else if silences > 0 {
                client.try_send(b"ping\n").await?;
            }
        }
    }

    fn line(&mut self, line: &str, unacked: &mut Vec<String>, acked: &mut HashMap<String, u32>) {
        let mut book = lock(&self.book);
        if let Some(rest) = line.strip_prefix("Message: ") {
            let Some(received) = parse(rest) else {
                book.anomalies.push(format!("delivered: {rest:?}"));
                return;
            };
            book.wire.push(Wire::Delivered(received.id.clone()));
            unacked.push(received.id.clone());
            let is_new = book.written.insert(received.id.clone());
            match self.misbehaviour {
                Misbehaviour::Good if is_new => book.output.push(received),
                Misbehaviour::Good => {}
                Misbehaviour::DoesNotDeduplicate => book.output.push(received),
                Misbehaviour::AcksUnwritten if is_new && self.random.random_bool(0.99) => {
                    book.output.push(received);
                }
                Misbehaviour::AcksUnwritten => {}
                Misbehaviour::Alters if is_new => {
                    let payload = received.payload.replace('1', "l");
                    book.output.push(Received {
                        payload,
                        ..received
                    });
                }
                Misbehaviour::Alters => {}
            }
        } else if let Some(id) = line.strip_prefix("ACK_CONFIRMED ") {
            if acked.get(id).is_none() {
                book.anomalies.push(format!("{line:?} without an ack"));
            }
            book.wire.push(Wire::Confirmed(id.to_owned()));
        } else if !(line == "PONG" || line == "Subscribed to queue" || line.starts_with("Hello: "))
        {
            book.anomalies.push(format!("the receiver got {line:?}"));
        }
    }
}

/// A delivery's id and envelope. The envelope's fields must say the same as the line.
fn parse(rest: &str) -> Option<Received> {
    let (id, envelope) = rest.split_once(' ')?;
    let envelope: serde_json::Value = serde_json::from_str(envelope).ok()?;
    let field = |name: &str| envelope.get(name)?.as_str();
    let payload = String::from_utf8(STANDARD.decode(field("ciphertext")?).ok()?).ok()?;
    // Older clients' envelopes do not name the sender; it stands in their ids.
    let sender = id.split('-').next()?.to_owned();
    (field("message_id")? == id).then(|| Received {
        id: id.to_owned(),
        sender,
        payload,
    })
}
