//! Answers to commands, ready or waiting for the store.

use ciphermq_protocol::hello::Packing;
use ciphermq_protocol::json::encoded_len;
use ciphermq_protocol::{ErrorCode, ErrorReply, MessageId, Reply};

use super::consume::{Rejecting, Subscription};
use super::outcomes::PendingOutcomes;
use super::publish::Publishing;
use super::write_error_reply;
use crate::model::AckOutcome;
use crate::store::writer::WriteError;

/// The answer to one command.
pub(crate) enum Answer {
    /// A reply.
    Ready(Reply),
    /// The replies to a line that is not a command, or that the client may not give.
    Refused(Vec<Reply>),
    /// The reply to `hello`, and the form of deliveries from then on.
    Hello { reply: Reply, packing: Packing },
    /// `Subscribed to queue`, and from then on deliveries.
    Subscribed(Subscription),
    /// The store's outcomes of these messages.
    Publishing(Publishing),
    /// The store's outcomes of acks of these messages.
    Acks {
        message_ids: Vec<MessageId>,
        outcomes: PendingOutcomes<AckOutcome>,
    },
    /// The store's outcome of a rejection.
    Rejecting(Rejecting),
}

/// The writer's next step once the replies are in the output.
pub(crate) enum AfterWrite {
    Nothing,
    Pack(Packing),
    Subscribe(Subscription),
    Settle(Vec<MessageId>),
    /// Settle a message, with the reason if it was rejected just now.
    Reject {
        message_id: MessageId,
        reason: Option<String>,
    },
}

impl Answer {
    /// Returns the memory in bytes of an answer that may be longer than its command; 0 for others.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Ready(Reply::Message(delivery)) => delivery.envelope.len(),
            Self::Ready(Reply::RejectedMessages(page)) => encoded_len(page),
            Self::Ready(Reply::WaitingKeys(page)) => encoded_len(page),
            Self::Ready(Reply::Queues(page)) => encoded_len(page),
            Self::Ready(Reply::Exchanges(page)) => encoded_len(page),
            Self::Ready(Reply::Bindings(page)) => encoded_len(page),
            Self::Ready(Reply::Connections(page)) => encoded_len(page),
            Self::Ready(Reply::Clients(page)) => encoded_len(page),
            Self::Ready(Reply::Ends(page)) => encoded_len(page),
            Self::Ready(Reply::RevocationLists(lists)) => lists.line_len(),
            Self::Ready(Reply::SignedKey(text)) => text.len(),
            Self::Ready(Reply::Certificate(chain)) => chain.base64_len(),
            _ => 0,
        }
    }

    /// Waits for the replies. It is cancel safe until it has returned.
    ///
    /// If replies are `packed`, one line answers several messages that are all stored, or all
    /// acknowledged.
    pub(crate) async fn replies(&mut self, packed: bool) -> (Vec<Reply>, AfterWrite) {
        match self {
            Self::Ready(reply) => (
                vec![std::mem::replace(reply, Reply::Pong)],
                AfterWrite::Nothing,
            ),
            Self::Refused(replies) => (std::mem::take(replies), AfterWrite::Nothing),
            Self::Hello { reply, packing } => (
                vec![std::mem::replace(reply, Reply::Pong)],
                AfterWrite::Pack(*packing),
            ),
            Self::Subscribed(subscription) => (
                vec![Reply::Subscribed],
                AfterWrite::Subscribe(*subscription),
            ),
            Self::Publishing(publishing) => (publishing.replies(packed).await, AfterWrite::Nothing),
            Self::Acks {
                message_ids,
                outcomes,
            } => {
                let outcomes = outcomes.all().await;
                let message_ids = std::mem::take(message_ids);
                let is_done = |outcome: &_| {
                    matches!(outcome, Ok(AckOutcome::Done(_) | AckOutcome::AlreadyDone))
                };
                if packed && outcomes.len() == message_ids.len() && outcomes.iter().all(is_done) {
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
            Self::Rejecting(Rejecting {
                message_id,
                reason,
                outcome,
            }) => {
                let outcome = outcome.await;
                let rejected = matches!(outcome, Ok(AckOutcome::Done(_)));
                (
                    vec![confirmation(message_id, outcome, Reply::Rejected)],
                    AfterWrite::Reject {
                        message_id: message_id.clone(),
                        reason: rejected.then(|| std::mem::take(reason)),
                    },
                )
            }
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
        Err(error) => write_error_reply(&error),
    };
    error.for_message(message_id.clone()).into()
}
