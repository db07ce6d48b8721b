//! The broker: what each command does.
//!
//! ```text
//!    connection ── operation ──► Broker ──► Topology (routes)
//!                                  │
//!                                  ├──► WriterHandle ──► store ──► Observer ──► Deliveries ──► outlets
//!                                  └──► KeyDirectory
//! ```
//!
//! - [`topology`]: exchanges, queues and bindings
//! - [`deliveries`]: inboxes and outlets, and what a commit means to them
//! - [`publish`]: from envelopes to rows, and what is refused before it reaches the store
//! - this file: the operations

pub mod deliveries;
pub mod publish;
pub mod topology;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ciphermq_protocol::hello::{HelloLimits, HelloReply, HelloRequest};
use ciphermq_protocol::rejected::{RejectedPage, RejectedRequest};
use ciphermq_protocol::{
    ClientId, Delivery, ErrorCode, ErrorReply, ExchangeName, MessageId, QueueName, Reply, RoutingKey,
};
use dashmap::{DashMap, DashSet};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};

pub use deliveries::{Deliveries, Pulse};
pub use topology::Topology;

use crate::config::Limits;
use crate::inbox::{Budget, ConnectionId, Inbox, Policy};
use crate::keys::{self, KeyDirectory};
use crate::store::writer::{CommitObserver, Pending, WriteError, WriterHandle};
use crate::store::{Ack, AckOutcome, Change, LaneKey, PageLimit, QueueId, Reader, Rejection, Time};
use crate::tls::Peer;

/// How much one lane holds ready: enough that reading the next page costs little a message.
const READY_PAGE: PageLimit = PageLimit {
    messages: 1024,
    bytes: 1 << 20,
};
/// How many bytes of deliveries may be on their way to one socket.
const UNSENT_BYTES: usize = 1 << 20;
/// A delivery's time is written on its own only if the message is not acked within this time.
const RECORD_AFTER: Duration = Duration::from_secs(2);

/// How many rejected messages are listed at once.
const REJECTED_PAGE: u32 = 1000;
/// How many bytes of a rejection's reason are kept.
const REASON_BYTES: usize = 1024;

/// See the module.
pub struct Broker {
    limits: Limits,
    topology: Arc<Topology>,
    deliveries: Arc<Deliveries>,
    writer: WriterHandle,
    reader: Arc<dyn Reader>,
    keys: KeyDirectory,
    /// Which connection a named consumer has.
    consumers: DashMap<(ClientId, String), ConnectionId>,
    /// Chains that the store is known to hold, by client and fingerprint.
    known_certificates: DashSet<(ClientId, String)>,
}

/// A connection, known to the broker until it is dropped.
pub struct Session {
    broker: Arc<Broker>,
    id: ConnectionId,
    client_id: ClientId,
    consumer: Option<(ClientId, String)>,
    consuming: bool,
    /// Tells that the client lives.
    pub pulse: Arc<Pulse>,
    /// Woken when another connection of the same consumer takes over.
    pub close: Arc<Notify>,
}

/// What becomes of acks, in order.
pub type AckOutcomes = Pending<Vec<Result<AckOutcome, WriteError>>>;

/// The deliveries of a connection's consumers.
pub type Mailbox = mpsc::UnboundedReceiver<Vec<Delivery>>;

impl Broker {
    /// A broker on what the store holds, and the observer that the store's writer must be given.
    #[must_use]
    pub fn deliveries(
        limits: &Limits,
        topology: &Arc<Topology>,
        reader: &Arc<dyn Reader>,
    ) -> (Arc<Deliveries>, Arc<dyn CommitObserver>) {
        let policy = Policy {
            redelivery_timeout: limits.redelivery_timeout,
            max_redeliveries: limits.max_redeliveries,
            unsent_bytes: UNSENT_BYTES,
            ready: READY_PAGE,
        };
        let budget = Budget::new(limits.max_ready_bytes);
        let deliveries = Deliveries::new(Arc::clone(topology), Arc::clone(reader), policy, budget);
        let observer = Arc::new(deliveries::Observer(Arc::clone(&deliveries)));
        (deliveries, observer)
    }

    /// Puts the parts together.
    #[must_use]
    pub fn new(
        limits: Limits,
        topology: Arc<Topology>,
        deliveries: Arc<Deliveries>,
        writer: WriterHandle,
        reader: Arc<dyn Reader>,
        keys: KeyDirectory,
    ) -> Arc<Self> {
        let (consumers, known_certificates) = (DashMap::new(), DashSet::new());
        Arc::new(Self {
            limits,
            topology,
            deliveries,
            writer,
            reader,
            keys,
            consumers,
            known_certificates,
        })
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A client has connected.
    #[must_use]
    pub fn connect(self: &Arc<Self>, client_id: ClientId) -> (Session, Mailbox) {
        let (id, connected) = self.deliveries.connect(client_id.clone());
        let session = Session {
            broker: Arc::clone(self),
            id,
            client_id,
            consumer: None,
            consuming: false,
            pulse: connected.pulse,
            close: connected.close,
        };
        (session, connected.deliveries)
    }

    /// Keeps the chain that a client has connected with, for receivers that want to verify its messages later.
    pub async fn remember_certificate(&self, peer: &Peer) {
        let key = (peer.client_id.clone(), peer.fingerprint.clone());
        if self.known_certificates.contains(&key) {
            return;
        }
        let (client_id, fingerprint) = key.clone();
        let change = Change::Certificate {
            client_id,
            fingerprint,
            chain: peer.chain.clone(),
            seen: Time::now(),
        };
        match self.change(change).await {
            Ok(_) => {
                // The last one counts: an older certificate that comes back is to be noted again.
                self.known_certificates
                    .retain(|(client_id, _)| *client_id != peer.client_id);
                self.known_certificates.insert(key);
            }
            Err(error) => {
                tracing::error!(client_id = %peer.client_id, %error, "Cannot keep a client's certificate");
            }
        }
    }

    /// Does what is to be done from time to time, for ever: call it in a task.
    pub async fn sweep(self: Arc<Self>) {
        let period =
            (self.limits.redelivery_timeout / 10).clamp(Duration::from_millis(20), Duration::from_secs(1));
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(before) = Instant::now().checked_sub(RECORD_AFTER) else {
                continue;
            };
            let deliveries = self.deliveries.sweep(before);
            if !deliveries.is_empty() {
                self.writer.delivered(deliveries);
            }
        }
    }

    /// Writes a change, within the time that a publish may take.
    async fn change(&self, change: Change) -> Result<Option<QueueId>, ErrorReply> {
        match tokio::time::timeout(self.limits.storage_wait, self.writer.change(change)).await {
            Ok(Ok(queue)) => Ok(queue),
            Ok(Err(error)) => Err(write_error(&error)),
            Err(_) => Err(write_error(&WriteError::Unavailable)),
        }
    }

    /// Reads from the store, within the time that a publish may take.
    async fn read<T, E: std::fmt::Display>(
        &self,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ErrorReply> {
        match tokio::time::timeout(self.limits.storage_wait, read).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                tracing::error!(%error, "Cannot read from the database");
                Err(write_error(&WriteError::Unavailable))
            }
            Err(_) => Err(write_error(&WriteError::Unavailable)),
        }
    }

    async fn queue_id(&self, queue: &QueueName) -> Result<QueueId, ErrorReply> {
        if let Some(id) = self.topology.queue(queue) {
            return Ok(id);
        }
        let id = self.change(Change::DeclareQueue(queue.clone())).await?;
        let id = id.ok_or_else(|| write_error(&WriteError::Unavailable))?;
        self.topology.add_queue(queue.clone(), id);
        Ok(id)
    }
}

impl Session {
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
            deliveries: Arc::clone(&self.broker.deliveries),
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
        Ok(Subscription {
            queue,
            prefetch: prefetch.unwrap_or(1).min(self.broker.limits.max_prefetch),
        })
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
        let fetch = self.broker.deliveries.fetch(&lane, self.id);
        match tokio::time::timeout(self.broker.limits.storage_wait, fetch).await {
            Ok(Some(delivery)) => Ok(Reply::Message(delivery)),
            Ok(None) => Ok(Reply::NoMessages),
            Err(_) => Err(write_error(&WriteError::Unavailable)),
        }
    }

    /// `ack`
    #[must_use]
    pub fn ack(&self, message_ids: &[MessageId]) -> AckOutcomes {
        let time = Time::now();
        let acks = self.broker.deliveries.stir(&self.client_id, |inbox, _| {
            message_ids
                .iter()
                .map(|message_id| self.begin_ack(inbox, message_id, time))
                .collect()
        });
        self.broker.writer.ack(acks)
    }

    /// `reject`
    #[must_use]
    pub fn reject(&self, message_id: &MessageId, mut reason: String) -> Pending<AckOutcome> {
        let ack = self.broker.deliveries.stir(&self.client_id, |inbox, _| {
            self.begin_ack(inbox, message_id, Time::now())
        });
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        tracing::warn!(client_id = %self.client_id, reason, "Message {message_id} is rejected by its receiver");
        self.broker.writer.reject(Rejection { ack, reason })
    }

    fn begin_ack(&self, inbox: &mut Inbox, message_id: &MessageId, time: Time) -> Ack {
        let delivered_time = inbox.begin_ack(self.id, message_id);
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
                    .deliveries
                    .stir(&receiver, |inbox, now| inbox.resend(message_id, now));
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
        self.key(self.broker.keys.register(&self.client_id, key)).await?;
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
        self.key(self.broker.keys.register_signed(&self.client_id, signed_key))
            .await?;
        tracing::info!(client_id = %self.client_id, "Signed key registered");
        Ok(Reply::PublicKeyRegistered)
    }

    /// `get_signed_key`
    pub async fn signed_key(&self, client_id: &ClientId) -> Result<Reply, ErrorReply> {
        let key = self.key(self.broker.keys.signed_key(client_id)).await?;
        Ok(key.map_or(Reply::PublicKeyNotFound, Reply::SignedKey))
    }

    /// `get_certificate`
    pub async fn certificate(
        &self,
        client_id: &ClientId,
        fingerprint: Option<&str>,
    ) -> Result<Reply, ErrorReply> {
        let chain = self
            .broker
            .read(self.broker.reader.certificate(client_id, fingerprint))
            .await?;
        let split = |chain: String| Reply::Certificate(chain.split(',').map(str::to_owned).collect());
        Ok(chain.map_or(Reply::CertificateNotFound, split))
    }

    /// `list_rejected`
    pub async fn rejected(&self, json: &str) -> Result<Reply, ErrorReply> {
        let request: RejectedRequest = argument("list_rejected", json)?;
        let limit = request.limit.unwrap_or(REJECTED_PAGE).clamp(1, REJECTED_PAGE);
        let read = self
            .broker
            .reader
            .rejected(&self.client_id, request.after.as_ref(), limit);
        let messages = self.broker.read(read).await?;
        let more = u32::try_from(messages.len()).is_ok_and(|count| count == limit);
        Ok(Reply::RejectedMessages(reply_json(&RejectedPage {
            messages,
            more,
        })?))
    }

    /// `hello`
    pub fn hello(&mut self, json: &str) -> Result<Reply, ErrorReply> {
        let request: HelloRequest = argument("hello", json)?;
        if let Some(consumer) = request.consumer {
            ciphermq_protocol::name::check(&consumer)
                .map_err(|error| ErrorReply::new(ErrorCode::BadName, format!("consumer: {error}")))?;
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
        };
        Ok(Reply::Hello(reply_json(&reply)?))
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
            tracing::info!(client_id = %self.client_id, "Consumer has reconnected, its older connection is ended");
            self.broker.deliveries.end(older);
        }
        self.consumer = Some(consumer);
    }

    /// The client lives; call it for whatever is received.
    pub fn heard(&self) {
        if self.pulse.beat() {
            let id = self.id;
            self.broker
                .deliveries
                .stir(&self.client_id, |inbox, _| inbox.heard(id));
        }
    }

    /// Awaits what the key directory does, within the time that a publish may take.
    async fn key<T>(&self, work: impl Future<Output = Result<T, keys::Error>>) -> Result<T, ErrorReply> {
        let result = tokio::time::timeout(self.broker.limits.storage_wait, work).await;
        match result.unwrap_or(Err(keys::Error::Unavailable)) {
            Ok(value) => Ok(value),
            Err(keys::Error::Invalid(text)) => Err(ErrorReply::new(ErrorCode::BadKey, text)),
            Err(error) => {
                tracing::error!(client_id = %self.client_id, %error, "Cannot use the key directory");
                Err(ErrorReply::new(ErrorCode::StorageUnavailable, error.to_string()))
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            self.broker
                .consumers
                .remove_if(&consumer, |_, connection| *connection == self.id);
        }
        self.broker.deliveries.disconnect(self.id);
    }
}

/// A consumer that starts once its reply stands in the output.
#[derive(Debug, Clone, Copy)]
pub struct Subscription {
    queue: QueueId,
    prefetch: u32,
}

/// What the writing half of a connection tells the broker: what stands in the output.
pub struct Receipts {
    deliveries: Arc<Deliveries>,
    id: ConnectionId,
    client_id: ClientId,
}

impl Receipts {
    /// `Subscribed to queue` stands in the output: deliveries may follow.
    pub fn subscribe(&self, subscription: Subscription) {
        let Subscription { queue, prefetch } = subscription;
        self.deliveries.stir(&self.client_id, |inbox, _| {
            // The reading half may have ended meanwhile, and nobody would ever end this subscription.
            if self.deliveries.is_connected(self.id) {
                inbox.subscribe(queue, self.id, prefetch);
            }
        });
    }

    /// The answers to acks of these messages stand in the output: what they made room for may follow.
    pub fn settled(&self, message_ids: &[MessageId]) {
        self.deliveries
            .stir(&self.client_id, |inbox, _| inbox.settled(self.id, message_ids));
    }

    /// So many bytes of envelopes have been written to the socket.
    pub fn sent(&self, bytes: usize) {
        self.deliveries
            .stir(&self.client_id, |inbox, _| inbox.sent(self.id, bytes));
    }
}

/// Reads the JSON object that a command takes.
fn argument<T: DeserializeOwned>(command: &str, json: &str) -> Result<T, ErrorReply> {
    let refused = |what: &str| {
        ErrorReply::new(
            ErrorCode::BadArgument,
            format!("{command} takes a JSON object: {what}"),
        )
    };
    let value = serde_json::from_str(json).map_err(|error| refused(&error.to_string()))?;
    // serde reads an array into a struct as well.
    if json.trim_ascii_start().starts_with('{') {
        Ok(value)
    } else {
        Err(refused("this is none"))
    }
}

fn reply_json<T: Serialize>(reply: &T) -> Result<String, ErrorReply> {
    serde_json::to_string(reply).map_err(|error| ErrorReply::new(ErrorCode::BadArgument, error.to_string()))
}

/// How a client is told that the store did not do it.
#[must_use]
pub(crate) fn write_error(error: &WriteError) -> ErrorReply {
    let (code, text) = match error {
        WriteError::Unavailable => (
            ErrorCode::StorageUnavailable,
            "the database does not answer; send the same again",
        ),
        WriteError::Full => (
            ErrorCode::StorageFull,
            "the server's disk is full; try again when messages were consumed",
        ),
        WriteError::Refused(_) => (ErrorCode::StorageRefused, "the database refuses this message"),
        WriteError::Closed => (
            ErrorCode::ShuttingDown,
            "the server is stopping; send the same again",
        ),
    };
    ErrorReply::new(code, text)
}
