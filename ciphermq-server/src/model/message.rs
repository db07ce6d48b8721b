//! Messages on their way into the store and out of it.

use std::sync::Arc;

use ciphermq_protocol::envelope::EnvelopeBytes;
use ciphermq_protocol::{ClientId, Envelope, ExchangeName, MessageId, RoutingKey};

use super::{QueueId, Seq, Time};
use crate::quota::Excess;

/// A message to accept.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The client id in the publisher's certificate.
    pub sender: ClientId,
    /// The exchange.
    pub exchange: ExchangeName,
    /// The routing key.
    pub routing_key: RoutingKey,
    /// The queues that it goes to: at least one, all different.
    pub queues: Arc<[QueueId]>,
    /// The envelope.
    pub envelope: Envelope,
    /// SHA-256 of the envelope's bytes, if the envelope has no suite.
    ///
    /// A client that names a suite may seal a retry anew: its id and its sender identify it.
    pub digest: Option<[u8; 32]>,
    /// When the server accepted it.
    pub sent_time: Time,
}

/// The outcome of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Stored: the copy for the `n`th of its queues has the sequence number `first + n`.
    Stored {
        /// The first copy's sequence number.
        first: Seq,
    },
    /// A retry of a message that was accepted before: the same id from the same client, with the
    /// same bytes or with a suite.
    Duplicate,
    /// The id belongs to another message.
    IdInUse,
    /// None of its queues exists any more. Nothing was stored.
    NoQueue,
    /// Its sender may not store it for the moment. Nothing was stored.
    Excess(Excess),
}

/// A message as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its sequence number.
    pub seq: Seq,
    /// Its id.
    pub message_id: MessageId,
    /// Its envelope, byte for byte as it was published.
    pub envelope: EnvelopeBytes,
}

/// A bound for one read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// The most messages.
    pub messages: usize,
    /// The number of envelope bytes after which no further message is read.
    pub bytes: usize,
}

/// A page of messages, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The messages.
    pub messages: Vec<StoredMessage>,
    /// Whether there may be more after them.
    pub more: bool,
}

/// A page of the queues in which messages wait for a receiver, in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lanes {
    /// The queues that hold messages for the receiver.
    pub queues: Vec<QueueId>,
    /// The first queue that was not examined; `None` if all were.
    pub next: Option<QueueId>,
}

/// A page of the envelopes in a lane.
///
/// A message that went to several queues has its envelope in one of them only, so a walk over all
/// lanes sees each envelope once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelopes {
    /// Each envelope, with the time of its acceptance as the store wrote it.
    pub envelopes: Vec<(Option<String>, EnvelopeBytes)>,
    /// The number of messages that were examined, including those whose envelope is in another
    /// lane.
    pub seen: usize,
    /// The last message that was examined; `None` if the lane holds none after the given one.
    pub last: Option<Seq>,
    /// Whether there may be more after it.
    pub more: bool,
}

/// The state of an accepted message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageState {
    /// The sender.
    pub sender: ClientId,
    /// The receiver; `None` in rows of older servers.
    pub receiver: Option<ClientId>,
    /// The copies that still wait: none once the message is acked or rejected.
    pub waiting: Vec<(QueueId, Seq)>,
}
