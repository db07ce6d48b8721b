//! Publishing: `publish`, `publish_batch`, `publish_packed` and `resend`.

use std::sync::Arc;

use ciphermq_protocol::{
    ClientId, Envelope, ErrorCode, ErrorReply, ExchangeName, MessageId, Reply, RoutingKey,
};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout_at};

use super::outcomes::PendingOutcomes;
use super::refusals::Refusals;
use super::topology::NoRoute;
use super::{Broker, ClientSession, write_error_reply};
use crate::model::{Publish, PublishOutcome, QueueId, Time};
use crate::quota::Excess;
use crate::store::writer::{Deadlines, Parts, WriteError};

/// Messages that are submitted to the store and not answered yet.
pub(crate) struct Publishing {
    /// Each message, with the error of one that was not submitted.
    messages: Vec<(MessageId, Option<ErrorReply>)>,
    /// The outcomes of those that were submitted.
    outcomes: PendingOutcomes<PublishOutcome>,
    deadline: Instant,
    /// Whether errors name their message, as they do for a batch.
    is_batch: bool,
    broker: Arc<Broker>,
    sender: ClientId,
}

impl ClientSession {
    /// Submits messages to the store, but those that are refused.
    ///
    /// It waits for room in the store's queue, and then for the answer, together at most
    /// `limits.storage_wait`.
    pub(super) async fn publish(
        &self,
        exchange: &ExchangeName,
        routing_key: &RoutingKey,
        envelopes: Vec<Envelope>,
        mut refusals: Refusals,
        is_batch: bool,
    ) -> Publishing {
        let mut deadlines = Deadlines::within(self.broker.limits.storage_wait);
        let sent_time = Time::now();
        if let Err(error) = self.admit(&envelopes) {
            return self.refuse_all(envelopes, &error, is_batch);
        }
        let route = self
            .broker
            .topology
            .route(exchange, routing_key)
            .map_err(|no| no_route(no, exchange, routing_key));
        let mut messages = Vec::with_capacity(envelopes.len());
        // Rows are made a part at a time: of a line of very many messages they would take much.
        let mut parts = Parts::default();
        let mut outcomes = PendingOutcomes::default();
        for (place, envelope) in envelopes.into_iter().enumerate() {
            let message_id = envelope.message_id.clone();
            if let Some(refusal) = refusals.take(place) {
                messages.push((message_id, Some(refusal)));
                continue;
            }
            match self
                .check(exchange, routing_key, &envelope)
                .and_then(|()| route.clone())
            {
                Ok(queues) => {
                    messages.push((message_id, None));
                    let row = self.row(exchange, routing_key, queues, envelope, sent_time);
                    if let Some(part) = parts.push(Arc::new(row)) {
                        outcomes.push(part.len(), self.writer.publish(part, deadlines).await);
                        deadlines = deadlines.further_parts();
                    }
                }
                Err(error) => messages.push((message_id, Some(error))),
            }
        }
        if let Some(part) = parts.last() {
            outcomes.push(part.len(), self.writer.publish(part, deadlines).await);
        }
        Publishing {
            messages,
            outcomes,
            deadline: deadlines.commit(),
            is_batch,
            broker: Arc::clone(&self.broker),
            sender: self.client_id.clone(),
        }
    }

    /// Returns the answer to messages none of which is submitted.
    fn refuse_all(
        &self,
        envelopes: Vec<Envelope>,
        error: &ErrorReply,
        is_batch: bool,
    ) -> Publishing {
        let refuse = |envelope: Envelope| (envelope.message_id, Some(error.clone()));
        Publishing {
            messages: envelopes.into_iter().map(refuse).collect(),
            outcomes: PendingOutcomes::default(),
            deadline: Instant::now(),
            is_batch,
            broker: Arc::clone(&self.broker),
            sender: self.client_id.clone(),
        }
    }

    /// Executes `resend`.
    pub(super) async fn resend(&self, message_id: &MessageId) -> Result<Reply, ErrorReply> {
        let state = self
            .query(self.broker.reader.message_state(message_id))
            .await?;
        let Some(state) = state else {
            return Ok(Reply::MessageIdNotFound);
        };
        if state.sender != self.client_id && !self.is_administrator() {
            return Ok(Reply::UnauthorizedResend);
        }
        match state.receiver.filter(|_| !state.waiting.is_empty()) {
            Some(receiver) => {
                self.broker
                    .dispatcher
                    .with_inbox(&receiver, |inbox, now| inbox.resend(message_id, now));
                Ok(Reply::ResendRequested)
            }
            None => Ok(Reply::MessageIdNotFound),
        }
    }

    /// Checks that an envelope agrees with the certificate and with the command.
    fn check(
        &self,
        exchange: &ExchangeName,
        routing_key: &RoutingKey,
        envelope: &Envelope,
    ) -> Result<(), ErrorReply> {
        if let Some(sender) = envelope
            .sender_client_id
            .as_ref()
            .filter(|sender| **sender != self.client_id)
        {
            let text = format!(
                "the envelope names {sender} as its sender, the certificate {}",
                self.client_id
            );
            return Err(ErrorReply::new(ErrorCode::SenderMismatch, text));
        }
        if let Some(named) = envelope
            .exchange
            .as_ref()
            .filter(|named| *named != exchange)
        {
            let text = format!("the envelope names the exchange {named}, the command {exchange}");
            return Err(ErrorReply::new(ErrorCode::RouteMismatch, text));
        }
        if let Some(named) = envelope
            .routing_key
            .as_ref()
            .filter(|named| *named != routing_key)
        {
            let text =
                format!("the envelope names the routing key {named}, the command {routing_key}");
            return Err(ErrorReply::new(ErrorCode::RouteMismatch, text));
        }
        Ok(())
    }

    fn row(
        &self,
        exchange: &ExchangeName,
        routing_key: &RoutingKey,
        queues: Arc<[QueueId]>,
        envelope: Envelope,
        sent_time: Time,
    ) -> Publish {
        Publish {
            sender: self.client_id.clone(),
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
            queues,
            digest: (!envelope.has_suite).then(|| Sha256::digest(envelope.raw().to_bytes()).into()),
            envelope,
            sent_time,
        }
    }
}

impl Publishing {
    /// Waits for the store and returns the replies in order, one for each message, or one for a
    /// whole batch if replies are `packed` and all were stored. It is cancel safe.
    pub(crate) async fn replies(&mut self, packed: bool) -> Vec<Reply> {
        // The writer answers at the deadline by itself; this time limit is for a writer that hangs.
        let stored = match timeout_at(self.deadline, self.outcomes.all()).await {
            Ok(stored) => stored,
            Err(_) => self.outcomes.so_far(),
        };
        if packed && self.is_batch && all_acknowledged(&stored, self.messages.len()) {
            return vec![Reply::AckAll(self.messages.len())];
        }
        let mut stored = stored.into_iter();
        let mut replies = Vec::with_capacity(self.messages.len());
        for (message_id, refused) in std::mem::take(&mut self.messages) {
            let result = match refused {
                Some(error) => Err(error),
                None => stored
                    .next()
                    .unwrap_or(Err(WriteError::Unavailable))
                    .map_err(|error| write_error_reply(&error))
                    .and_then(|outcome| self.acknowledged(outcome)),
            };
            replies.push(match result {
                Ok(()) => Reply::Ack(message_id),
                Err(error) if self.is_batch => error.for_message(message_id).into(),
                Err(error) => error.into(),
            });
        }
        replies
    }

    fn acknowledged(&self, outcome: PublishOutcome) -> Result<(), ErrorReply> {
        match outcome {
            PublishOutcome::Stored { .. } | PublishOutcome::Duplicate => Ok(()),
            PublishOutcome::IdInUse => Err(ErrorReply::new(
                ErrorCode::IdInUse,
                "another message has this id; give this one a new id",
            )),
            PublishOutcome::NoQueue => Err(ErrorReply::new(
                ErrorCode::NoRoute,
                "the queues that it was to go to were deleted meanwhile; bind one first",
            )),
            PublishOutcome::Excess(Excess::Quota(quota)) => {
                Err(self.broker.exceeded(&self.sender, quota))
            }
            PublishOutcome::Excess(Excess::Receiver(quota, receiver)) => {
                Err(self.broker.exceeded_by(&self.sender, quota, &receiver))
            }
            PublishOutcome::Excess(Excess::DiskShare) => Err(ErrorReply::new(
                ErrorCode::StorageFull,
                "the server's disk is nearly full, and this client holds more than its share of \
                 it; try again when its messages were consumed",
            )),
        }
    }
}

/// Whether `messages` outcomes are there, and all of these messages are stored now or were before.
fn all_acknowledged(stored: &[Result<PublishOutcome, WriteError>], messages: usize) -> bool {
    let is_acknowledged = |outcome: &Result<_, _>| {
        matches!(
            outcome,
            Ok(PublishOutcome::Stored { .. } | PublishOutcome::Duplicate)
        )
    };
    stored.len() == messages && stored.iter().all(is_acknowledged)
}

fn no_route(no: NoRoute, exchange: &ExchangeName, routing_key: &RoutingKey) -> ErrorReply {
    match no {
        NoRoute::NoExchange => ErrorReply::new(
            ErrorCode::NotFound,
            format!("exchange '{exchange}' does not exist; declare it first"),
        ),
        NoRoute::NoBinding => {
            let text = format!(
                "exchange '{exchange}' has no queue bound by '{routing_key}'; bind one first"
            );
            ErrorReply::new(ErrorCode::NoRoute, text)
        }
    }
}
