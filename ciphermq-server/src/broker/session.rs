//! A connection: who it is, and what each of its commands does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use ciphermq_protocol::hello::{HelloLimits, HelloReply, HelloRequest};
use ciphermq_protocol::rejected::{RejectedPage, RejectedRequest};
use ciphermq_protocol::{
    ClientId, ErrorCode, ErrorReply, ExchangeName, Fingerprint, MessageId, QueueName, Reply,
    RoutingKey,
};
use tokio::sync::Notify;

use super::{Activity, Broker, Dispatcher, write_error};
use crate::inbox::{ConnectionId, Inbox, Prefetch};
use crate::keys;
use crate::store::writer::{Pending, WriteError};
use crate::store::{Ack, AckOutcome, Change, LaneKey, QueueId, Rejection, Time};

/// How many rejected messages are listed at once.
const REJECTED_PAGE: u32 = 1000;
/// How many bytes of a rejection's reason are kept.
const REASON_BYTES: usize = 1024;

/// A connection, known to the broker until it is dropped.
pub struct ClientSession {
    pub(super) broker: Arc<Broker>,
    id: ConnectionId,
    pub(super) client_id: ClientId,
    consumer: Option<(ClientId, String)>,
    consuming: bool,
    /// The client takes packed deliveries and replies.
    pub(super) packs: bool,
    /// Tells that the client lives.
    pub activity: Arc<Activity>,
    /// Woken when another connection of the same consumer takes over.
    pub close: Arc<Notify>,
}

/// How many acks of a line are committed in one go.
const ACKS: usize = 4096;

/// What the store has decided on acks, in order.
pub type Decisions = Vec<Result<AckOutcome, WriteError>>;

/// What becomes of the acks of a line.
#[derive(Default)]
pub struct AckOutcomes {
    /// With the number of their acks.
    waiting: VecDeque<(usize, Pending<Decisions>)>,
    known: Decisions,
}

impl AckOutcomes {
    /// Waits for all of them, in order. May be dropped and awaited again until it has returned.
    pub async fn all(&mut self) -> Decisions {
        while let Some((count, outcomes)) = self.waiting.front_mut() {
            match outcomes.await {
                Ok(outcomes) => self.known.extend(outcomes),
                Err(error) => self.known.extend((0..*count).map(|_| Err(error.clone()))),
            }
            self.waiting.pop_front();
        }
        std::mem::take(&mut self.known)
    }
}

impl ClientSession {
    pub(super) fn new(
        broker: Arc<Broker>,
        id: ConnectionId,
        client_id: ClientId,
        activity: Arc<Activity>,
        close: Arc<Notify>,
    ) -> Self {
        Self {
            broker,
            id,
            client_id,
            consumer: None,
            consuming: false,
            packs: false,
            activity,
            close,
        }
    }

    /// Who is connected.
    #[must_use]
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// What the connection's other half needs to know of it.
    #[must_use]
    pub fn receipts(&self) -> Receipts {
        Receipts {
            dispatcher: Arc::clone(&self.broker.dispatcher),
            id: self.id,
            client_id: self.client_id.clone(),
        }
    }

    /// `declare_queue`
    ///
    /// # Errors
    ///
    /// The reply for the client, here and below.
    pub async fn declare_queue(&self, queue: &QueueName) -> Result<Reply, ErrorReply> {
        self.broker.queue_id(queue).await?;
        Ok(Reply::QueueDeclared)
    }

    /// `declare_exchange`
    pub async fn declare_exchange(&self, exchange: ExchangeName) -> Result<Reply, ErrorReply> {
        if !self.broker.topology.has_exchange(&exchange) {
            self.broker
                .change(Change::DeclareExchange(exchange.clone()))
                .await?;
            self.broker.topology.add_exchange(exchange);
        }
        Ok(Reply::ExchangeDeclared)
    }

    /// `bind`
    pub async fn bind(
        &self,
        queue: &QueueName,
        exchange: ExchangeName,
        routing_key: RoutingKey,
    ) -> Result<Reply, ErrorReply> {
        let topology = &self.broker.topology;
        let missing = |what: &str| {
            ErrorReply::new(
                ErrorCode::NotFound,
                format!("{what} does not exist; declare it first"),
            )
        };
        let id = topology
            .queue(queue)
            .ok_or_else(|| missing(&format!("queue '{queue}'")))?;
        if !topology.has_exchange(&exchange) {
            return Err(missing(&format!("exchange '{exchange}'")));
        }
        let is_bound = topology
            .route(&exchange, &routing_key)
            .is_ok_and(|queues| queues.contains(&id));
        if !is_bound {
            let (exchange, routing_key) = (exchange.clone(), routing_key.clone());
            self.broker
                .change(Change::Bind {
                    exchange,
                    routing_key,
                    queue: id,
                })
                .await?;
        }
        topology.add_binding(exchange, routing_key, id);
        Ok(Reply::QueueBound)
    }

    /// `consume`, up to where its reply can be sent; then [`Receipts::subscribe`].
    pub async fn consume(
        &mut self,
        queue: &QueueName,
        prefetch: Option<u32>,
    ) -> Result<Subscription, ErrorReply> {
        let queue = self.broker.queue_id(queue).await?;
        self.consuming = true;
        let messages = prefetch.unwrap_or(1).min(self.broker.limits.max_prefetch);
        let prefetch = if self.packs {
            Prefetch::until_acked(messages)
        } else {
            Prefetch::until_confirmed(messages)
        };
        Ok(Subscription { queue, prefetch })
    }

    /// `fetch`
    pub async fn fetch(&self, queue: &QueueName) -> Result<Reply, ErrorReply> {
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
            Err(_) => Err(write_error(&WriteError::Unavailable)),
        }
    }

    /// `ack`. It waits while the store has as many acks to do as it may.
    pub async fn ack(&self, message_ids: &[MessageId]) -> AckOutcomes {
        let time = Time::now();
        let mut outcomes = AckOutcomes::default();
        for message_ids in message_ids.chunks(ACKS) {
            let acks = || {
                self.broker
                    .dispatcher
                    .with_inbox(&self.client_id, |inbox, now| {
                        message_ids
                            .iter()
                            .map(|message_id| self.begin_ack(inbox, message_id, (now, time)))
                            .collect()
                    })
            };
            let pending = self.broker.writer.ack(message_ids.len(), acks).await;
            outcomes.waiting.push_back((message_ids.len(), pending));
        }
        outcomes
    }

    /// `reject`. It waits as acks do.
    pub async fn reject(&self, message_id: &MessageId, mut reason: String) -> Pending<AckOutcome> {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        tracing::warn!(client_id = %self.client_id, reason, "Message {message_id} is rejected by \
            its receiver");
        let rejection = || Rejection {
            ack: self
                .broker
                .dispatcher
                .with_inbox(&self.client_id, |inbox, now| {
                    self.begin_ack(inbox, message_id, (now, Time::now()))
                }),
            reason,
        };
        self.broker.writer.reject(rejection).await
    }

    fn begin_ack(
        &self,
        inbox: &mut Inbox,
        message_id: &MessageId,
        (now, time): (Instant, Time),
    ) -> Ack {
        let delivered_time = inbox.begin_ack(self.id, message_id, now);
        Ack {
            message_id: message_id.clone(),
            client_id: self.client_id.clone(),
            delivered_time,
            time,
        }
    }

    /// `resend`
    pub async fn resend(&self, message_id: &MessageId) -> Result<Reply, ErrorReply> {
        let state = self
            .broker
            .read(self.broker.reader.message_state(message_id))
            .await?;
        let Some(state) = state else {
            return Ok(Reply::MessageIdNotFound);
        };
        if state.sender != self.client_id {
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

    /// `register_public_key` and `register_key`
    pub async fn register_public_key(
        &self,
        client_id: Option<&ClientId>,
        key: &str,
    ) -> Result<Reply, ErrorReply> {
        if client_id.is_some_and(|client_id| *client_id != self.client_id) {
            let text = format!(
                "only the client itself registers its key, and this connection is {}'s",
                self.client_id
            );
            return Err(ErrorReply::new(ErrorCode::NotAuthorized, text));
        }
        self.key(self.broker.keys.register(&self.client_id, key))
            .await?;
        tracing::info!(client_id = %self.client_id, "Public key registered");
        Ok(Reply::PublicKeyRegistered)
    }

    /// `get_public_key` and `get_key`
    pub async fn public_key(&self, client_id: &ClientId) -> Result<Reply, ErrorReply> {
        let key = self.key(self.broker.keys.public_key(client_id)).await?;
        Ok(key.map_or(Reply::PublicKeyNotFound, Reply::PublicKey))
    }

    /// `register_signed_key`
    pub async fn register_signed_key(&self, signed_key: &str) -> Result<Reply, ErrorReply> {
        self.key(
            self.broker
                .keys
                .register_signed(&self.client_id, signed_key),
        )
        .await?;
        tracing::info!(client_id = %self.client_id, "Signed key registered");
        Ok(Reply::PublicKeyRegistered)
    }

    /// `get_signed_key`
    pub async fn signed_key(&self, client_id: &ClientId) -> Result<Reply, ErrorReply> {
        let keys = &self.broker.keys;
        let is_own = *client_id == self.client_id;
        let read = async {
            match keys.signed_key(client_id).await {
                // Receivers ask what is there before they register. One whose row was altered, or
                // sealed with another key, must come to register anew, which replaces the row.
                Err(keys::Error::AtRest(error)) if is_own => {
                    tracing::warn!(%client_id, %error, "A signed key cannot be opened: its client \
                        may register it again");
                    Ok(None)
                }
                read => read,
            }
        };
        let key = self.key(read).await?;
        Ok(key.map_or(Reply::PublicKeyNotFound, Reply::SignedKey))
    }

    /// `get_certificate`
    pub async fn certificate(
        &self,
        client_id: &ClientId,
        fingerprint: Option<&Fingerprint>,
    ) -> Result<Reply, ErrorReply> {
        let chain = self
            .broker
            .read(self.broker.reader.certificate(client_id, fingerprint))
            .await?;
        Ok(chain.map_or(Reply::CertificateNotFound, Reply::Certificate))
    }

    /// `list_rejected`
    pub async fn rejected(&self, request: RejectedRequest) -> Result<Reply, ErrorReply> {
        let limit = request
            .limit
            .unwrap_or(REJECTED_PAGE)
            .clamp(1, REJECTED_PAGE);
        let read = self
            .broker
            .reader
            .rejected(&self.client_id, request.after.as_ref(), limit);
        let messages = self.broker.read(read).await?;
        let more = u32::try_from(messages.len()).is_ok_and(|count| count == limit);
        Ok(Reply::RejectedMessages(RejectedPage { messages, more }))
    }

    /// Whether the client takes packed deliveries and replies.
    #[must_use]
    pub fn packs(&self) -> bool {
        self.packs
    }

    /// `hello`
    pub fn hello(&mut self, request: HelloRequest) -> Result<Reply, ErrorReply> {
        self.packs = request.packed;
        if let Some(consumer) = request.consumer {
            ciphermq_protocol::name::check(&consumer).map_err(|error| {
                ErrorReply::new(ErrorCode::BadName, format!("consumer: {error}"))
            })?;
            self.take_over((self.client_id.clone(), consumer));
        }
        let limits = &self.broker.limits;
        let reply = HelloReply {
            server: "ciphermq-server".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: 1,
            client_id: self.client_id.clone(),
            limits: HelloLimits {
                max_line_bytes: limits.max_line_bytes,
                max_prefetch: limits.max_prefetch,
                redelivery_timeout_ms: u64::try_from(limits.redelivery_timeout.as_millis())
                    .unwrap_or(u64::MAX),
                storage_wait_ms: u64::try_from(limits.storage_wait.as_millis()).unwrap_or(u64::MAX),
            },
            packed: true,
        };
        Ok(Reply::Hello(Box::new(reply)))
    }

    /// Ends an older connection of the same consumer; its leases return before this goes on.
    fn take_over(&mut self, consumer: (ClientId, String)) {
        if let Some(before) = self.consumer.take() {
            self.broker
                .consumers
                .remove_if(&before, |_, connection| *connection == self.id);
        }
        let older = self
            .broker
            .consumers
            .insert(consumer.clone(), self.id)
            .filter(|older| *older != self.id);
        if let Some(older) = older {
            tracing::info!(client_id = %self.client_id, "Consumer has reconnected, its older \
                connection is ended");
            self.broker.dispatcher.end(older);
        }
        self.consumer = Some(consumer);
    }

    /// The client lives; call it for whatever is received.
    pub fn touch(&self) {
        if self.activity.beat() {
            let id = self.id;
            self.broker
                .dispatcher
                .with_inbox(&self.client_id, |inbox, _| inbox.touch(id));
        }
    }

    /// `ping`, by which clients keep what they were handed and have not finished yet.
    #[must_use]
    pub fn ping(&self) -> Reply {
        if self.activity.keep_leases() {
            let id = self.id;
            self.broker
                .dispatcher
                .with_inbox(&self.client_id, |inbox, _| inbox.keep_leases(id));
        }
        Reply::Pong
    }

    /// Awaits what the key directory does, within the time that a publish may take.
    async fn key<T>(
        &self,
        work: impl Future<Output = Result<T, keys::Error>>,
    ) -> Result<T, ErrorReply> {
        let result = tokio::time::timeout(self.broker.limits.storage_wait, work).await;
        match result.unwrap_or(Err(keys::Error::Unavailable)) {
            Ok(value) => Ok(value),
            Err(keys::Error::Invalid(text)) => Err(ErrorReply::new(ErrorCode::BadKey, text)),
            Err(error @ keys::Error::OtherClient(_)) => {
                Err(ErrorReply::new(ErrorCode::NotAuthorized, error.to_string()))
            }
            Err(error @ keys::Error::Stale(_)) => {
                Err(ErrorReply::new(ErrorCode::StaleKey, error.to_string()))
            }
            Err(error) => {
                tracing::error!(client_id = %self.client_id, %error, "Cannot use the key \
                    directory");
                Err(ErrorReply::new(
                    ErrorCode::StorageUnavailable,
                    error.to_string(),
                ))
            }
        }
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            self.broker
                .consumers
                .remove_if(&consumer, |_, connection| *connection == self.id);
        }
        self.broker.dispatcher.disconnect(self.id);
    }
}

/// A consumer that starts once its reply stands in the output.
#[derive(Debug, Clone, Copy)]
pub struct Subscription {
    queue: QueueId,
    prefetch: Prefetch,
}

/// What the writing half of a connection tells the broker: what stands in the output.
pub struct Receipts {
    dispatcher: Arc<Dispatcher>,
    id: ConnectionId,
    client_id: ClientId,
}

impl Receipts {
    /// `Subscribed to queue` stands in the output: deliveries may follow.
    pub fn subscribe(&self, subscription: Subscription) {
        let Subscription { queue, prefetch } = subscription;
        self.dispatcher.with_inbox(&self.client_id, |inbox, _| {
            // The reading half may have ended meanwhile, and nobody would ever end this
            // subscription.
            if self.dispatcher.is_connected(self.id) {
                inbox.subscribe(queue, self.id, prefetch);
            }
        });
    }

    /// The answers to acks of these messages stand in the output: what they made room for may
    /// follow.
    pub fn settled(&self, message_ids: &[MessageId]) {
        self.dispatcher.with_inbox(&self.client_id, |inbox, _| {
            inbox.settled(self.id, message_ids)
        });
    }

    /// So many bytes of envelopes have been written to the socket.
    pub fn sent(&self, bytes: usize) {
        self.dispatcher
            .with_inbox(&self.client_id, |inbox, _| inbox.sent(self.id, bytes));
    }
}
