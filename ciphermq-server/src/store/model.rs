//! What the store keeps, without SQL.

use std::fmt;
use std::sync::Arc;

use ciphermq_protocol::envelope::EnvelopeBytes;
use ciphermq_protocol::{
    CertificateChain, ClientId, Envelope, ExchangeName, Fingerprint, MessageId, QueueName,
    RoutingKey,
};

use crate::at_rest::RowKind;

/// A message's place in the order of acceptance. Grows over all queues; every copy of a message
/// that went to several queues has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Seq(pub i64);

/// A queue, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub i64);

/// Counts commits; tells after an unknown outcome whether the commit happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct CommitNumber(pub i64);

/// The server's clock, as the database keeps it: RFC 3339 in UTC with microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(jiff::Timestamp);

impl Time {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now())
    }

    /// The point in time itself.
    #[must_use]
    pub fn timestamp(self) -> jiff::Timestamp {
        self.0
    }
}

impl From<jiff::Timestamp> for Time {
    fn from(timestamp: jiff::Timestamp) -> Self {
        Self(timestamp)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A queue's messages for one receiver.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LaneKey {
    /// The queue.
    pub queue: QueueId,
    /// The receiver.
    pub receiver: ClientId,
}

/// How messages find their queues.
#[derive(Debug, Default, Clone)]
pub struct StoredTopology {
    /// All queues.
    pub queues: Vec<(QueueId, QueueName)>,
    /// All exchanges.
    pub exchanges: Vec<ExchangeName>,
    /// All bindings.
    pub bindings: Vec<(ExchangeName, RoutingKey, QueueId)>,
}

/// Everything that one commit writes.
#[derive(Debug, Default, Clone)]
pub struct Transaction {
    /// Rare writes: topology, keys, certificates.
    pub changes: Vec<Change>,
    /// Messages to accept.
    pub publishes: Vec<Arc<Publish>>,
    /// Messages to remove because their receiver has processed them.
    pub acks: Vec<Ack>,
    /// Messages to set aside because their receiver cannot use them.
    pub rejections: Vec<Rejection>,
    /// First deliveries of messages that stay unacknowledged for a while.
    pub deliveries: Vec<(MessageId, Time)>,
}

impl Transaction {
    /// The messages that it is about.
    pub(super) fn message_ids(&self) -> impl Iterator<Item = &MessageId> {
        let published = self
            .publishes
            .iter()
            .map(|publish| &publish.envelope.message_id);
        let acked = self.acks.iter().map(|ack| &ack.message_id);
        let rejected = self
            .rejections
            .iter()
            .map(|rejection| &rejection.ack.message_id);
        let delivered = self.deliveries.iter().map(|(id, _)| id);
        published.chain(acked).chain(rejected).chain(delivered)
    }
}

/// A write that is not about messages.
#[derive(Debug, Clone)]
pub enum Change {
    /// Makes a queue unless it exists.
    DeclareQueue(QueueName),
    /// Makes an exchange unless it exists.
    DeclareExchange(ExchangeName),
    /// Binds a queue to an exchange, both known to exist.
    Bind {
        /// The exchange.
        exchange: ExchangeName,
        /// The routing key.
        routing_key: RoutingKey,
        /// The queue.
        queue: QueueId,
    },
    /// Keeps a client's public key, in place of an older one.
    PublicKey(ClientId, SealedRow),
    /// Keeps a client's signed key and the bare key that stands in it, in place of older ones; if
    /// none stands in it, the client has none any more.
    SignedKey {
        /// The client.
        client_id: ClientId,
        /// The signed key.
        signed: SealedRow,
        /// The bare key.
        bare: Option<SealedRow>,
    },
    /// Replaces rows of keys that an older server has sealed, by client id, and notes that this was
    /// done.
    Adopt(Vec<(RowKind, String, SealedRow)>),
    /// Keeps a chain that a client has connected with, and makes it the client's last one.
    Certificate {
        /// The client.
        client_id: ClientId,
        /// The fingerprint of the client's certificate.
        fingerprint: Fingerprint,
        /// The chain.
        chain: CertificateChain,
        /// When it connected.
        seen: Time,
    },
}

/// A message to accept.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Who publishes it: the certificate's client id.
    pub sender: ClientId,
    /// The exchange.
    pub exchange: ExchangeName,
    /// The routing key.
    pub routing_key: RoutingKey,
    /// The queues that it goes to, one at least, all different.
    pub queues: Arc<[QueueId]>,
    /// The envelope.
    pub envelope: Envelope,
    /// SHA-256 of the envelope's bytes, if it has no suite. Where it has one, a retry may be sealed
    /// anew: its id and its sender tell.
    pub digest: Option<[u8; 32]>,
    /// When the server accepted it.
    pub sent_time: Time,
}

/// A message that its receiver has processed.
#[derive(Debug, Clone)]
pub struct Ack {
    /// The message.
    pub message_id: MessageId,
    /// Who acks.
    pub client_id: ClientId,
    /// When it was first delivered, as far as memory knows.
    pub delivered_time: Option<Time>,
    /// When it was acked.
    pub time: Time,
}

/// A message that its receiver cannot use. It is kept in `rejected_messages`.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// Who rejects which message, and when.
    pub ack: Ack,
    /// Why, for people.
    pub reason: String,
}

/// What a commit did, item by item, in the order of the [`Transaction`].
#[derive(Debug, Default)]
pub struct Outcomes {
    /// The commit's number.
    pub commit: CommitNumber,
    /// For each change, the queue's number if it declared one.
    pub changes: Vec<Option<QueueId>>,
    /// For each publish.
    pub publishes: Vec<PublishOutcome>,
    /// For each ack.
    pub acks: Vec<AckOutcome>,
    /// For each rejection.
    pub rejections: Vec<AckOutcome>,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Stored: the copy for the `n`th of its queues has the sequence number `first + n`.
    Stored {
        /// The first copy's sequence number.
        first: Seq,
    },
    /// It had been accepted before: the same id by the same client, with the same bytes or with a
    /// suite.
    Duplicate,
    /// The id belongs to another message.
    IdInUse,
}

/// What became of an ack or a rejection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AckOutcome {
    /// The message has left these queues.
    Done(Vec<(QueueId, Seq)>),
    /// It had left them before. (A rejection of what is acked is `NotFound`; an ack of what is
    /// rejected is this.)
    AlreadyDone,
    /// No such message was ever accepted.
    NotFound,
    /// The message is for another receiver.
    NotAuthorized,
}

/// A message as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its place.
    pub seq: Seq,
    /// Its id.
    pub message_id: MessageId,
    /// Its envelope, as it came.
    pub envelope: EnvelopeBytes,
}

/// How much to read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// At most so many messages.
    pub messages: usize,
    /// No more once so many bytes of envelopes were read.
    pub bytes: usize,
}

/// Messages in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages.
    pub messages: Vec<StoredMessage>,
    /// Whether there may be more after them.
    pub more: bool,
}

/// Where something waits for a receiver: queues, looked at in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lanes {
    /// The queues that hold messages for it.
    pub queues: Vec<QueueId>,
    /// The first queue that was not looked at; `None` if there is none.
    pub next: Option<QueueId>,
}

/// Messages of a lane that were looked at for their envelopes. A message that went to several
/// queues has its envelope in one of them, so that over all lanes each is seen once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelopes {
    /// When each was accepted, as the store wrote it, and its envelope.
    pub envelopes: Vec<(Option<String>, EnvelopeBytes)>,
    /// How many messages were looked at, with those whose envelope stands elsewhere.
    pub seen: usize,
    /// The last one of them; `None` if the lane holds none after the given one.
    pub last: Option<Seq>,
    /// Whether there may be more after it.
    pub more: bool,
}

/// What is known of an accepted message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageState {
    /// Who sent it.
    pub sender: ClientId,
    /// Whom it is for; `None` in rows of older servers.
    pub receiver: Option<ClientId>,
    /// Where it still waits: nowhere once it is acked or rejected.
    pub waiting: Vec<(QueueId, Seq)>,
}

/// A key sealed at rest: base64 texts, and what sealed it (`None` in rows of older servers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRow {
    /// The sealed bytes.
    pub ciphertext: String,
    /// The nonce.
    pub nonce: String,
    /// The tag.
    pub tag: String,
    /// The algorithm.
    pub algorithm: Option<String>,
}

/// All rows of keys, by client id as it stands there.
#[derive(Debug, Clone, Default)]
pub struct SealedKeys {
    /// Bare public keys.
    pub public: Vec<(String, SealedRow)>,
    /// Signed keys.
    pub signed: Vec<(String, SealedRow)>,
    /// Whether rows of older servers were taken over before.
    pub is_adopted: bool,
}
