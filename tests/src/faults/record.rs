//! Events of one route, from its senders to its receiver, recorded while faults happen.

/// All recorded events of one route.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Messages sent, in order for each sender. All payloads of a route are distinct.
    pub sent: Vec<Sent>,
    /// Messages in the receiver's output, in order.
    pub output: Vec<Received>,
    /// Events that the receiver observed on its connections, if it records them.
    pub wire: Vec<WireEvent>,
    /// Rows of the store for the route's messages.
    pub metadata: Vec<Metadata>,
    /// Number of the route's messages that still wait in the store.
    pub waiting: u64,
    /// Unexpected replies, and other anomalies that a participant observed.
    pub anomalies: Vec<String>,
    /// Whether the server could refuse or defer publishes. If not, each sender's messages must have
    /// been accepted in the order in which they were sent.
    pub may_refuse: bool,
    /// Whether all of the receiver's connections had the same consumer id, so that each took over
    /// from its predecessor. Otherwise messages held by a connection that died silently may arrive
    /// later than newer ones.
    pub is_one_consumer: bool,
}

/// A message that a sender has sent, or may have sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Client id of the sender.
    pub sender: String,
    /// Id of the message, if the sender chose it itself.
    pub id: Option<String>,
    /// Payload, byte for byte.
    pub payload: String,
    /// Outcome according to the server's replies.
    pub outcome: Outcome,
}

/// Outcome of a publish, as far as the sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server acknowledged the message.
    Acknowledged,
    /// The server refused the message.
    Refused,
    /// The sender received no reply.
    Unknown,
}

/// A message in an output.
#[derive(Debug, Clone)]
pub struct Received {
    /// Id of the message.
    pub id: String,
    /// Client id of the sender.
    pub sender: String,
    /// Payload, byte for byte.
    pub payload: String,
}

/// An event that a receiver observes on its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireEvent {
    /// The message with this id was delivered.
    Delivered(String),
    /// The ack of the message with this id was confirmed.
    Confirmed(String),
}

/// A row of `message_metadata`. Times are strings of equal length, whose order is that of the
/// times.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// Id of the message.
    pub id: String,
    /// Client id of the sender.
    pub sender: String,
    /// Sequence number of the message.
    pub sequence: i64,
    /// Time at which the message was accepted.
    pub sent: Option<String>,
    /// Time of the first delivery.
    pub delivered: Option<String>,
    /// Time of the receiver's ack.
    pub acknowledged: Option<String>,
}

impl Record {
    /// Number of messages sent with this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.sent
            .iter()
            .filter(|sent| sent.outcome == outcome)
            .count()
    }

    /// Number of deliveries that repeated an earlier one, as far as the receiver recorded them.
    pub fn redeliveries(&self) -> usize {
        let mut seen = std::collections::HashSet::new();
        let again = |wire: &&WireEvent| matches!(wire, WireEvent::Delivered(id) if !seen.insert(id.clone()));
        self.wire.iter().filter(again).count()
    }
}
