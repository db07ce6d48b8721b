//! What is written down about one route, from its senders to its receiver, while faults happen.

/// Everything that is known of one route.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// What was sent, each sender's messages in its order. No two payloads of a route are equal.
    pub sent: Vec<Sent>,
    /// What stands in the receiver's output, in its order.
    pub output: Vec<Received>,
    /// What the receiver saw on its connections, if it writes that down.
    pub wire: Vec<Wire>,
    /// The store's rows about the route's messages.
    pub metadata: Vec<Metadata>,
    /// How many messages of the route still wait in the store.
    pub waiting: u64,
    /// Replies that must not come, and other trouble that a participant met.
    pub anomalies: Vec<String>,
    /// Whether the server had reason to refuse or put off publishes. If not, each sender's messages
    /// must have been accepted in the order in which they were sent.
    pub may_refuse: bool,
    /// Whether all of the receiver's connections bore one consumer id, so that each took over from
    /// the one before it. Otherwise what was handed to a connection that died in silence comes
    /// later than newer messages do.
    pub is_one_consumer: bool,
}

/// A message that a sender sent, or may have.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Who sent it.
    pub sender: String,
    /// Its id, if the sender made it itself.
    pub id: Option<String>,
    /// What was sent, byte for byte.
    pub payload: String,
    /// What the sender was told.
    pub outcome: Outcome,
}

/// What a sender knows of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server has it.
    Acknowledged,
    /// The server does not have it, and said so.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// A message in an output.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its id.
    pub id: String,
    /// Who sent it.
    pub sender: String,
    /// What it holds, byte for byte.
    pub payload: String,
}

/// What a receiver sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// The message with this id was delivered.
    Delivered(String),
    /// The ack of the message with this id was confirmed.
    Confirmed(String),
}

/// A row of `message_metadata`. Times are texts of one length, which sort as the times do.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// The message's id.
    pub id: String,
    /// Who sent it.
    pub sender: String,
    /// The number under which it was accepted.
    pub sequence: i64,
    /// When it was accepted.
    pub sent: Option<String>,
    /// When it was first delivered.
    pub delivered: Option<String>,
    /// When it was acknowledged.
    pub acknowledged: Option<String>,
}

impl Record {
    /// How many messages were sent with this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.sent
            .iter()
            .filter(|sent| sent.outcome == outcome)
            .count()
    }

    /// How many deliveries repeated an earlier one, as far as the receiver wrote that down.
    pub fn redeliveries(&self) -> usize {
        let mut seen = std::collections::HashSet::new();
        let again = |wire: &&Wire| matches!(wire, Wire::Delivered(id) if !seen.insert(id.clone()));
        self.wire.iter().filter(again).count()
    }
}
