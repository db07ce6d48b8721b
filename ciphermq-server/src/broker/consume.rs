//! Receiving: `consume`, `fetch`, `ack`, `reject` and `list_rejected`.

use std::sync::Arc;

use ciphermq_protocol::rejected::{RejectedPage, RejectedRequest};
use ciphermq_protocol::{ClientId, ErrorCode, ErrorReply, MessageId, QueueName, Reply};

use super::outcomes::PendingOutcomes;
use super::{Broker, ClientSession, write_error_reply};
use crate::inbox::{ConnectionId, Inbox, Prefetch};
use crate::model::{Ack, AckOutcome, LaneKey, Now, QueueId, Rejection, Time};
use crate::repeated::Event;
use crate::store::writer::{Pending, WriteError};

/// The most rejected messages in one page.
const REJECTED_PAGE: u32 = 1000;
/// The most bytes of a rejection's reason that are stored.
const REASON_BYTES: usize = 1024;
/// The most acks of a line that are submitted together: others take their turns between.
const ACKS: usize = 512;

/// A consumer that starts once its reply is in the output.
#[derive(Debug, Clone, Copy)]
pub struct Subscription {
    queue: QueueId,
    /// The most messages in flight.
    messages: u32,
    /// The number of the rules that allow it.
    rules: u64,
}

/// A rejection whose outcome the store decides.
pub(crate) struct Rejecting {
    pub(super) message_id: MessageId,
    /// The client's reason, as far as it is stored.
    pub(super) reason: String,
    pub(super) outcome: Pending<AckOutcome>,
}

impl ClientSession {
    /// Executes `consume` up to its reply. Once the reply is in the output,
    /// [`OutputObserver::subscribed`] starts the deliveries.
    pub(super) async fn consume(
        &mut self,
        queue: &QueueName,
        prefetch: Option<u32>,
    ) -> Result<Subscription, ErrorReply> {
        let known = self.broker.topology.queue(queue);
        let queue = match known.filter(|queue| self.consumed.contains_key(queue)) {
            Some(queue) => queue,
            None => {
                let slot = self.consumer_slot()?;
                let queue = self.queue_id(queue).await?;
                self.consumed.insert(queue, slot);
                queue
            }
        };
        self.consuming = true;
        let messages = prefetch.unwrap_or(1).min(self.broker.limits.max_prefetch);
        Ok(Subscription {
            queue,
            messages,
            rules: self.authorization.generation(),
        })
    }

    /// Executes `fetch`.
    pub(super) async fn fetch(&self, queue: &QueueName) -> Result<Reply, ErrorReply> {
        if self.consuming {
            let text = "this connection consumes; fetch on another one";
            return Err(ErrorReply::new(ErrorCode::Consuming, text));
        }
        let Some(queue) = self.broker.topology.queue(queue) else {
            return Ok(Reply::NoMessages);
        };
        let lane = LaneKey {
            queue,
            receiver: self.client_id.clone(),
        };
        let fetch = self.broker.dispatcher.fetch(&lane, self.id);
        match tokio::time::timeout(self.broker.limits.storage_wait, fetch).await {
            Ok(Some(delivery)) => Ok(Reply::Message(delivery)),
            Ok(None) => Ok(Reply::NoMessages),
            Err(_) => Err(write_error_reply(&WriteError::Unavailable)),
        }
    }

    /// Submits `ack`. It waits for room in the store's queue.
    pub(super) async fn ack(&self, message_ids: &[MessageId]) -> PendingOutcomes<AckOutcome> {
        let time = Time::now();
        let mut outcomes = PendingOutcomes::default();
        for message_ids in message_ids.chunks(ACKS) {
            let acks = || {
                self.broker
                    .dispatcher
                    .with_inbox(&self.client_id, |inbox, instant| {
                        message_ids
                            .iter()
                            .map(|message_id| {
                                let now = Now { instant, time };
                                self.begin_ack(inbox, message_id, now)
                            })
                            .collect()
                    })
            };
            let pending = self.writer.ack(message_ids.len(), acks).await;
            outcomes.push(message_ids.len(), pending);
        }
        outcomes
    }

    /// Submits `reject`. It waits for room in the store's queue.
    pub(super) async fn reject(&self, message_id: MessageId, reason: &str) -> Rejecting {
        let end = reason.floor_char_boundary(REASON_BYTES);
        let reason = reason.get(..end).unwrap_or_default().to_owned();
        let rejection = || Rejection {
            ack: self
                .broker
                .dispatcher
                .with_inbox(&self.client_id, |inbox, instant| {
                    let time = Time::now();
                    self.begin_ack(inbox, &message_id, Now { instant, time })
                }),
            reason: reason.clone(),
        };
        let outcome = self.writer.reject(rejection).await;
        Rejecting {
            message_id,
            reason,
            outcome,
        }
    }

    fn begin_ack(&self, inbox: &mut Inbox, message_id: &MessageId, now: Now) -> Ack {
        let delivered_time = inbox.begin_ack(self.id, message_id, now.instant);
        Ack {
            message_id: message_id.clone(),
            client_id: self.client_id.clone(),
            delivered_time,
            time: now.time,
        }
    }

    /// Executes `list_rejected`.
    pub(super) async fn rejected(&self, request: RejectedRequest) -> Result<Reply, ErrorReply> {
        let limit = request
            .limit
            .unwrap_or(REJECTED_PAGE)
            .clamp(1, REJECTED_PAGE);
        let read = self
            .broker
            .reader
            .rejected(&self.client_id, request.after.as_ref(), limit);
        let messages = self.query(read).await?;
        let more = u32::try_from(messages.len()).is_ok_and(|count| count == limit);
        Ok(Reply::RejectedMessages(RejectedPage { messages, more }))
    }
}

/// The interface by which the writing half of a connection reports its output to the broker.
pub struct OutputObserver {
    pub(super) broker: Arc<Broker>,
    pub(super) id: ConnectionId,
    pub(super) client_id: ClientId,
}

impl OutputObserver {
    /// Starts a consumer: `Subscribed to queue` is in the output, and deliveries may follow, which
    /// are `packed` or not.
    pub fn subscribed(&self, subscription: Subscription, packed: bool) {
        let Subscription {
            queue,
            messages,
            rules,
        } = subscription;
        let dispatcher = &self.broker.dispatcher;
        // Only clients that take packed lines read deliveries between an ack and its confirmation.
        let prefetch = if packed {
            Prefetch::until_acked(messages)
        } else {
            Prefetch::until_confirmed(messages)
        };
        let exists = dispatcher.with_inbox(&self.client_id, |inbox, _| {
            // The reading half may have ended meanwhile, and nobody would ever end this
            // subscription. The queue may have been deleted, and nothing would ever come.
            let exists = dispatcher.topology.purged_to(queue).is_some();
            if exists && dispatcher.is_connected(self.id) {
                inbox.subscribe(queue, self.id, prefetch);
            }
            exists
        });
        if !exists {
            dispatcher.close(self.id);
        }
        // Rules that were replaced meanwhile have not met this subscription.
        self.broker
            .revise_subscription(self.id, &self.client_id, queue, rules);
    }

    /// Frees credit: the answers to acks of these messages are in the output, and deliveries may
    /// follow.
    pub fn settled(&self, message_ids: &[MessageId]) {
        let dispatcher = &self.broker.dispatcher;
        dispatcher.with_inbox(&self.client_id, |inbox, now| {
            inbox.settled(self.id, message_ids, now);
        });
    }

    /// Reports that the reply to a `reject` is in the output, and logs the reason of one that was
    /// rejected just now.
    pub(crate) fn rejected(&self, message_id: MessageId, reason: Option<&str>) {
        let (repeated, client_id) = (&self.broker.repeated, self.client_id.as_str());
        if let Some(reason) = reason
            && repeated.is_first(Event::Rejected, client_id, reason)
        {
            tracing::warn!(
                client_id,
                reason,
                "Message {message_id} is rejected by its receiver"
            );
        }
        self.settled(&[message_id]);
    }

    /// Reports that `bytes` of envelopes have been written to the socket.
    pub fn sent(&self, bytes: usize) {
        let dispatcher = &self.broker.dispatcher;
        dispatcher.with_inbox(&self.client_id, |inbox, _| inbox.sent(self.id, bytes));
    }
}
