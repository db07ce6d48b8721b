//! Acks and rejections.

use ciphermq_protocol::{ClientId, MessageId};

use super::{QueueId, Seq, Time};

/// An acknowledgement: the receiver has processed the message.
#[derive(Debug, Clone)]
pub struct Ack {
    /// The message.
    pub message_id: MessageId,
    /// The client that acks.
    pub client_id: ClientId,
    /// When the message was first delivered, if that is known in memory.
    pub delivered_time: Option<Time>,
    /// When it was acked.
    pub time: Time,
}

/// A rejection: the receiver cannot use the message, which goes to `rejected_messages`.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// The message, its receiver and the time.
    pub ack: Ack,
    /// The receiver's reason, for people.
    pub reason: String,
}

/// The outcome of an ack or a rejection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AckOutcome {
    /// The message was removed from these queues.
    Done(Vec<(QueueId, Seq)>),
    /// The message had been settled before.
    ///
    /// An ack of a rejected message is this; a rejection of an acked one is [`Self::NotFound`].
    AlreadyDone,
    /// No message with this id was ever accepted.
    NotFound,
    /// The message is for another receiver.
    NotAuthorized,
}
