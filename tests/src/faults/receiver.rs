//! A receiver over raw sockets, which records every delivery and every confirmation in order.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::record::{Received, WireEvent};
use crate::RawClient;
use crate::raw::Tls;

/// Time without a line after which it acks what it has, or sends a ping.
const IDLE: Duration = Duration::from_millis(150);
/// Number of consecutive idle periods after which it takes the connection for dead. The number is
/// high, because replies to pings wait for acks, and these for the store to be available.
const MAX_IDLE_PERIODS: u32 = 300;
/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// Misbehaviour of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Misbehaviour {
    /// No misbehaviour.
    #[default]
    None,
    /// Writes every delivery, even if repeated.
    DoesNotDeduplicate,
    /// Sometimes acks a message without writing it.
    AcksUnwritten,
    /// Alters payloads before writing them.
    Alters,
}

/// Everything that a receiver has written. It survives the receiver, like a synced file.
#[derive(Debug, Default)]
struct Journal {
    output: Vec<Received>,
    written: HashSet<String>,
    wire: Vec<WireEvent>,
    anomalies: Vec<String>,
    connections: usize,
}

/// A receiver that can be killed and started again.
pub struct Receiver {
    queue: String,
    tls: Tls,
    address: SocketAddr,
    misbehaviour: Misbehaviour,
    journal: Arc<Mutex<Journal>>,
    /// The running task, aborted on drop.
    task: JoinSet<()>,
    consumer: String,
}

impl Receiver {
    /// Creates a receiver that connects to `address` and consumes `queue`, which must exist.
    pub fn new(queue: &str, tls: Tls, address: SocketAddr) -> Self {
        let consumer = format!("{:032x}", rand::rng().random::<u128>());
        let parts = [0..8, 8..12, 12..16, 16..20, 20..32]
            .map(|range| consumer.get(range).unwrap_or_default().to_owned());
        Self {
            queue: queue.to_owned(),
            tls,
            address,
            misbehaviour: Misbehaviour::None,
            journal: Arc::default(),
            task: JoinSet::new(),
            consumer: parts.join("-"),
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

    /// Starts the receiver.
    pub fn start(&mut self, seed: u64) {
        let task = ReceiverTask {
            queue: self.queue.clone(),
            tls: self.tls.clone(),
            address: self.address,
            misbehaviour: self.misbehaviour,
            consumer: self.consumer.clone(),
            journal: Arc::clone(&self.journal),
            random: StdRng::seed_from_u64(seed),
        };
        self.task.spawn(task.run());
    }

    /// Number of connections made so far.
    pub fn connections(&self) -> usize {
        self.journal.lock().connections
    }

    /// Aborts the receiver at once, and drops its connection.
    pub async fn kill(&mut self) {
        self.task.shutdown().await;
    }

    /// Number of messages in the output.
    pub fn written(&self) -> usize {
        self.journal.lock().output.len()
    }

    /// Returns the output, the events observed on connections, and the anomalies.
    pub fn record(&self) -> (Vec<Received>, Vec<WireEvent>, Vec<String>) {
        let journal = self.journal.lock();
        (
            journal.output.clone(),
            journal.wire.clone(),
            journal.anomalies.clone(),
        )
    }
}

/// State of the receiver's task.
struct ReceiverTask {
    queue: String,
    tls: Tls,
    address: SocketAddr,
    misbehaviour: Misbehaviour,
    consumer: String,
    journal: Arc<Mutex<Journal>>,
    random: StdRng,
}

impl ReceiverTask {
    async fn run(mut self) {
        loop {
            if let Ok(Ok(mut client)) = tokio::time::timeout(
                Duration::from_secs(5),
                RawClient::handshake(self.address, &self.tls),
            )
            .await
            {
                self.journal.lock().connections += 1;
                // Returns only with an error of the connection.
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
        let mut idle_periods = 0;
        loop {
            match client.read_line(IDLE).await {
                Ok(Some(line)) => {
                    idle_periods = 0;
                    self.handle_line(&line, &mut unacked, &mut acked);
                }
                Ok(None) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    idle_periods += 1;
                    if idle_periods > MAX_IDLE_PERIODS {
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
            } else if idle_periods > 0 {
                client.try_send(b"ping\n").await?;
            }
        }
    }

    fn handle_line(
        &mut self,
        line: &str,
        unacked: &mut Vec<String>,
        acked: &mut HashMap<String, u32>,
    ) {
        let mut journal = self.journal.lock();
        if let Some(rest) = line.strip_prefix("Message: ") {
            let Some(received) = parse(rest) else {
                journal
                    .anomalies
                    .push(format!("invalid delivery: {rest:?}"));
                return;
            };
            journal.wire.push(WireEvent::Delivered(received.id.clone()));
            unacked.push(received.id.clone());
            let is_new = journal.written.insert(received.id.clone());
            match self.misbehaviour {
                Misbehaviour::None if is_new => journal.output.push(received),
                Misbehaviour::None => {}
                Misbehaviour::DoesNotDeduplicate => journal.output.push(received),
                Misbehaviour::AcksUnwritten if is_new && self.random.random_bool(0.99) => {
                    journal.output.push(received);
                }
                Misbehaviour::AcksUnwritten => {}
                Misbehaviour::Alters if is_new => {
                    let payload = received.payload.replace('1', "l");
                    journal.output.push(Received {
                        payload,
                        ..received
                    });
                }
                Misbehaviour::Alters => {}
            }
        } else if let Some(id) = line.strip_prefix("ACK_CONFIRMED ") {
            if acked.get(id).is_none() {
                journal.anomalies.push(format!("{line:?} without an ack"));
            }
            journal.wire.push(WireEvent::Confirmed(id.to_owned()));
        } else if !(line == "PONG" || line == "Subscribed to queue" || line.starts_with("Hello: "))
        {
            journal
                .anomalies
                .push(format!("unexpected line at the receiver: {line:?}"));
        }
    }
}

/// Parses the id and the envelope of a delivery. Returns `None` if the envelope is invalid, or
/// contains another id.
fn parse(rest: &str) -> Option<Received> {
    let (id, envelope) = rest.split_once(' ')?;
    let envelope: serde_json::Value = serde_json::from_str(envelope).ok()?;
    let field = |name: &str| envelope.get(name)?.as_str();
    let payload = String::from_utf8(STANDARD.decode(field("ciphertext")?).ok()?).ok()?;
    // Older clients' envelopes do not name the sender, but the ids used here begin with it.
    let sender = id.split('-').next()?.to_owned();
    (field("message_id")? == id).then(|| Received {
        id: id.to_owned(),
        sender,
        payload,
    })
}
