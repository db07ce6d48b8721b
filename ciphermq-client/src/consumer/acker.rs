//! Acknowledgements, one by one and in groups.

use std::sync::Arc;

use ciphermq_protocol::MessageId;
use tokio::sync::oneshot;

use super::message::Message;
use super::shared::ConsumerCore;
use crate::driver::{AckItem, AckSummary, Op};
use crate::error::{AckError, AckErrorKind};

/// Acknowledges messages of a consumer from any task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Acker {
    shared: Arc<ConsumerCore>,
}

impl Acker {
    pub(crate) fn new(shared: Arc<ConsumerCore>) -> Self {
        Self { shared }
    }

    /// Acknowledges a group of messages, in as few lines as possible, and returns the outcome of
    /// each, in order. The group is recorded as processed, durably, before any ack is sent.
    pub async fn ack_all(
        &self,
        messages: impl IntoIterator<Item = Message>,
    ) -> Vec<(MessageId, Result<(), AckError>)> {
        ack_group(&self.shared, messages.into_iter().collect()).await
    }

    /// Waits until every ack of [`Message::ack_later`] is settled, and returns the outcomes since
    /// the last call.
    pub async fn flush(&self) -> AckSummary {
        let (done, summary) = oneshot::channel();
        if self.shared.handle.send(Op::FlushAcks(done)).await.is_err() {
            return AckSummary::default();
        }
        summary.await.unwrap_or_default()
    }
}

impl Message {
    /// Records the message as processed, acknowledges it, and waits for the server's confirmation.
    /// After that it is never redelivered.
    ///
    /// # Errors
    ///
    /// [`AckError`]. Unless it is `Record`, the message is recorded as processed: a redelivery is
    /// not returned again, but acknowledged again.
    pub async fn ack(self) -> Result<(), AckError> {
        let shared = self.hold().shared.clone();
        match ack_group(&shared, vec![self]).await.pop() {
            Some((_, result)) => result,
            None => Ok(()),
        }
    }

    /// Records the message as processed and acknowledges it without waiting, so that many acks
    /// share a line. [`Consumer::flush_acks`](super::Consumer::flush_acks) waits for all of them
    /// and returns the failures.
    ///
    /// # Errors
    ///
    /// [`AckError`] if it cannot be recorded as processed, or the consumer is closed.
    pub fn ack_later(self) -> Result<(), AckError> {
        let shared = self.hold().shared.clone();
        record(&shared, std::slice::from_ref(&self))?;
        shared
            .handle
            .push_acks([AckItem::later(self.message_id().clone())])
            .map_err(|()| closed(&shared))
    }
}

/// Records the messages as processed and syncs the record once.
fn record(shared: &ConsumerCore, messages: &[Message]) -> Result<(), AckError> {
    let mut dedup = shared.lock_dedup();
    for message in messages {
        let hold = message.hold();
        dedup
            .record(hold.sender.as_ref(), &hold.message_id)
            .map_err(unrecorded)?;
    }
    dedup.sync().map_err(unrecorded)
}

fn unrecorded(error: crate::dedup::RecordError) -> AckError {
    AckError::new(
        AckErrorKind::Record,
        format!("The record of processed messages could not be written: {error}."),
    )
    .caused_by(error)
}

fn closed(shared: &ConsumerCore) -> AckError {
    shared.handle.ended("The consumer was closed.")
}

async fn ack_group(
    shared: &Arc<ConsumerCore>,
    messages: Vec<Message>,
) -> Vec<(MessageId, Result<(), AckError>)> {
    let ids = |messages: &[Message], result: &Result<(), AckError>| {
        messages
            .iter()
            .map(|message| (message.message_id().clone(), result.clone()))
            .collect()
    };
    if let Err(error) = record(shared, &messages) {
        return ids(&messages, &Err(error));
    }
    let (items, waiting): (Vec<_>, Vec<_>) = messages
        .iter()
        .map(|message| AckItem::awaited(message.message_id().clone()))
        .unzip();
    if shared.handle.push_acks(items).is_err() {
        return ids(&messages, &Err(closed(shared)));
    }
    let ids: Vec<MessageId> = messages
        .iter()
        .map(|message| message.message_id().clone())
        .collect();
    // A recorded message no longer needs a hold: a redelivery is recognised by the record.
    drop(messages);
    let mut results = Vec::with_capacity(ids.len());
    for (message_id, settled) in ids.into_iter().zip(waiting) {
        results.push((
            message_id,
            settled.await.unwrap_or_else(|_| Err(closed(shared))),
        ));
    }
    results
}
