//! The answer to a command: here already, or on its way from the store.

use ciphermq_protocol::json::encoded_len;
use ciphermq_protocol::{ErrorCode, ErrorReply, MessageId, Reply};
use tokio::sync::OwnedSemaphorePermit;

use crate::broker::publish::Publishing;
use crate::broker::{AckOutcomes, Subscription, write_error};
use crate::store::AckOutcome;
use crate::store::writer::{Pending, WriteError};

/// What will be answered to one command.
pub(super) enum Answer {
    /// This.
    Ready(Reply),
    /// These: the line was no command.
    Refused(Vec<Reply>),
    /// This, and from then on whether deliveries are packed.
    Hello(Reply, bool),
    /// `Subscribed to queue`, and from then on deliveries.
    Subscribed(Subscription),
    /// What the store says of these messages.
    Publishing(Publishing),
    /// What the store says of acks of these messages; in one line, if the client takes that and all
    /// were done.
    Acks(Vec<MessageId>, AckOutcomes, bool),
    /// What the store says of the rejection of this message.
    Rejection(MessageId, Pending<AckOutcome>),
}

/// What an ack takes until it is answered, roughly.
const ACK_BYTES: usize = 64;

/// An answer in the queue from the reader to the writer.
pub(super) struct Queued {
    pub(super) answer: Answer,
    /// The memory that a long command line has until it is answered.
    pub(super) _line: Option<OwnedSemaphorePermit>,
    /// The memory of a long reply until it is written.
    pub(super) reply: Option<OwnedSemaphorePermit>,
}

/// What the writer does once the replies stand in the output.
pub(super) enum AfterWrite {
    Nothing,
    Pack(bool),
    Subscribe(Subscription),
    Settle(Vec<MessageId>),
}

impl Answer {
    /// How many bytes of memory it takes that may be many, as far as is known already.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Ready(Reply::Message(delivery)) => delivery.envelope.len(),
            Self::Ready(Reply::RejectedMessages(page)) => encoded_len(page),
            Self::Ready(Reply::WaitingKeys(page)) => encoded_len(page),
            Self::Ready(Reply::SignedKey(text)) => text.len(),
            Self::Ready(Reply::Certificate(chain)) => chain.base64_len(),
            Self::Acks(message_ids, ..) => message_ids.len() * ACK_BYTES,
            _ => 0,
        }
    }

    /// Waits for the replies. It may be dropped and called again until it has returned.
    pub(super) async fn replies(&mut self) -> (Vec<Reply>, AfterWrite) {
        match self {
            Self::Ready(reply) => (
                vec![std::mem::replace(reply, Reply::Pong)],
                AfterWrite::Nothing,
            ),
            Self::Refused(replies) => (std::mem::take(replies), AfterWrite::Nothing),
            Self::Hello(reply, packed) => (
                vec![std::mem::replace(reply, Reply::Pong)],
                AfterWrite::Pack(*packed),
            ),
            Self::Subscribed(subscription) => (
                vec![Reply::Subscribed],
                AfterWrite::Subscribe(*subscription),
            ),
            Self::Publishing(publishing) => (publishing.replies().await, AfterWrite::Nothing),
            Self::Acks(message_ids, outcomes, packs) => {
                let outcomes = outcomes.all().await;
                let message_ids = std::mem::take(message_ids);
                let is_done = |outcome: &_| {
                    matches!(outcome, Ok(AckOutcome::Done(_) | AckOutcome::AlreadyDone))
                };
                if *packs && outcomes.len() == message_ids.len() && outcomes.iter().all(is_done) {
                    return (
                        vec![Reply::AckConfirmedAll(message_ids.len())],
                        AfterWrite::Settle(message_ids),
                    );
                }
                let mut outcomes = outcomes.into_iter();
                let mut next = || outcomes.next().unwrap_or(Err(WriteError::Closed));
                let reply = |id: &MessageId| confirmation(id, next(), Reply::AckConfirmed);
                (
                    message_ids.iter().map(reply).collect(),
                    AfterWrite::Settle(message_ids),
                )
            }
            Self::Rejection(message_id, outcomes) => (
                vec![confirmation(message_id, outcomes.await, Reply::Rejected)],
                AfterWrite::Settle(vec![message_id.clone()]),
            ),
        }
    }
}

fn confirmation(
    message_id: &MessageId,
    outcome: Result<AckOutcome, WriteError>,
    done: fn(MessageId) -> Reply,
) -> Reply {
    let error = match outcome {
        Ok(AckOutcome::Done(_) | AckOutcome::AlreadyDone) => return done(message_id.clone()),
        Ok(AckOutcome::NotFound) => ErrorReply::new(
            ErrorCode::NotFound,
            "no such message waits or was acknowledged",
        ),
        Ok(AckOutcome::NotAuthorized) => ErrorReply::new(
            ErrorCode::NotAuthorized,
            "only the message's receiver may say so",
        ),
        Err(error) => write_error(&error),
    };
    error.for_message(message_id.clone()).into()
}
