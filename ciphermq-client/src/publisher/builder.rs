//! The settings of a publisher.

use std::sync::Arc;

use ciphermq_crypto::{Form, RecipientKey, stream};
use ciphermq_protocol::name::NameError;
use ciphermq_protocol::{ClientId, ExchangeName, RoutingKey, StreamId};
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::sealer::{Sealer, fetch_key};
use super::{BatchLimits, Outcome, Publisher};
use crate::client_core::ClientCore;
use crate::credentials::Trust;
use crate::defaults::{DEFAULT_EXCHANGE, default_routing_key};
use crate::driver::{CLOSED, Op, OutcomeObserver, PublisherId, PublisherSetup, Window};
use crate::error::{PublishError, PublishErrorKind};
use crate::keys::ReceiverKey;

/// A builder of a publisher, created by [`Client::publisher`](crate::Client::publisher).
#[derive(Debug)]
pub struct PublisherBuilder {
    core: Arc<ClientCore>,
    receiver: ClientId,
    exchange: Option<ExchangeName>,
    routing_key: Option<RoutingKey>,
    limits: BatchLimits,
    window: (usize, usize),
    stream: Option<StreamId>,
    position: u64,
    key: Option<RecipientKey>,
    unsigned: Option<Form>,
    unsigned_sessions: bool,
    observer: OutcomeObserver,
}

impl PublisherBuilder {
    pub(crate) fn new(core: Arc<ClientCore>, receiver: ClientId) -> Self {
        Self {
            core,
            receiver,
            exchange: None,
            routing_key: None,
            limits: BatchLimits::default(),
            window: (16_384, 16 * 1024 * 1024),
            stream: None,
            position: 0,
            key: None,
            unsigned: None,
            unsigned_sessions: false,
            observer: OutcomeObserver::default(),
        }
    }

    /// Sets the exchange. Default: `ciphermq_exchange`.
    #[must_use]
    pub fn exchange(mut self, exchange: ExchangeName) -> Self {
        self.exchange = Some(exchange);
        self
    }

    /// Sets the routing key. Default: `<receiver>_key`.
    #[must_use]
    pub fn routing_key(mut self, routing_key: RoutingKey) -> Self {
        self.routing_key = Some(routing_key);
        self
    }

    /// Sets the limits on a batch.
    #[must_use]
    pub fn batch(mut self, limits: BatchLimits) -> Self {
        self.limits = BatchLimits {
            messages: limits.messages.max(1),
            ..limits
        };
        self
    }

    /// Limits what is in flight: messages, and bytes of sealed messages. [`Publisher::send`] waits
    /// beyond that. Default: 16,384 messages and 16 MiB.
    #[must_use]
    pub fn window(mut self, messages: usize, bytes: usize) -> Self {
        self.window = (messages, bytes);
        self
    }

    /// Sets the stream, from which the message ids are derived: the same stream and positions give
    /// the same ids, which the server recognises. Default: a new stream.
    #[must_use]
    pub fn stream(mut self, stream: StreamId) -> Self {
        self.stream = Some(stream);
        self
    }

    /// Sets the first message's position in the stream. Default: 0.
    #[must_use]
    pub fn start_at(mut self, position: u64) -> Self {
        self.position = position;
        self
    }

    /// Sets a key that the caller obtained from the receiver itself; the server is not asked then.
    ///
    /// Default: the key on the server that the receiver has signed, of the strongest suite that it
    /// accepts, fetched again after [`key_ttl`](crate::ClientBuilder::key_ttl).
    #[must_use]
    pub fn receiver_key(mut self, key: impl Into<RecipientKey>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Accepts a key that the receiver has not signed, and seals in `form`: for older receivers, in
    /// the older form that they read. Default: such receivers are refused.
    ///
    /// Whoever runs the server can substitute a key of their own the first time; after that the key
    /// is pinned ([`pins_in`](crate::ClientBuilder::pins_in)), and a change is refused. For a
    /// receiver that signs its key, the signed key and its suite are used.
    #[must_use]
    pub fn allow_unsigned_key(mut self, form: Form) -> Self {
        self.unsigned = Some(form);
        self
    }

    /// Sends even if this client's certificate cannot sign (an RSA key, for example). Default: such
    /// a publisher does not start.
    ///
    /// The sessions are unsigned then, and only receivers that accept unverified senders accept the
    /// messages. A certificate that can sign is still used.
    #[must_use]
    pub fn allow_unsigned_sessions(mut self) -> Self {
        self.unsigned_sessions = true;
        self
    }

    /// Sets a callback for every settled message, in the order of settling: for progress bars,
    /// counters and logs. It runs on the connection's task: it must be quick and must not block.
    #[must_use]
    pub fn on_outcome(mut self, observer: impl Fn(Outcome<'_>) + Send + Sync + 'static) -> Self {
        self.observer = OutcomeObserver(Some(Arc::new(observer)));
        self
    }

    /// Fetches the receiver's key and starts the publisher.
    ///
    /// # Errors
    ///
    /// [`PublishError`]: `NoReceiverKey` if the receiver has registered none, `KeyUnavailable` if
    /// the server did not answer, `SenderCertificate` if no receiver would accept what this client
    /// sends, `Sealing` if there is no randomness for a new stream.
    pub async fn start(self) -> Result<Publisher, PublishError> {
        let Self {
            core,
            receiver,
            limits,
            window,
            position,
            observer,
            ..
        } = self;
        let exchange = self.exchange.unwrap_or_else(|| DEFAULT_EXCHANGE.into());
        let routing_key = match self.routing_key {
            Some(routing_key) => routing_key,
            None => default_routing_key(&receiver).map_err(|error| no_route(&receiver, &error))?,
        };
        let stream = match self.stream {
            Some(stream) => stream,
            None => new_stream()?,
        };
        let credentials = core.handle.credentials();
        // Before the key is verified, so that no change is missed.
        let trust = Trust::new(Arc::clone(&core.credentials));
        let is_given = self.key.is_some();
        let key = match self.key {
            Some(key) => ReceiverKey {
                key,
                is_signed: true,
                issuers: Vec::new(),
            },
            None => {
                fetch_key(
                    &core,
                    &credentials,
                    &receiver,
                    self.unsigned,
                    self.unsigned_sessions,
                    true,
                )
                .await?
            }
        };
        let sealer = Sealer {
            receiver: receiver.clone(),
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
            stream,
            next: position,
            key,
            key_is_given: is_given,
            unsigned: self.unsigned,
            unsigned_sessions: self.unsigned_sessions,
            asked: Some(tokio::time::Instant::now()),
            must_ask: false,
            session: None,
            trust,
            credentials,
        };
        sealer.check()?;
        let window = Arc::new(Window::new(window.0, window.1));
        let id = PublisherId::next();
        let setup = PublisherSetup {
            exchange,
            routing_key,
            limits,
            window: window.clone(),
            observer,
        };
        core.handle
            .send(Op::OpenPublisher(id, setup))
            .await
            .map_err(|()| core.handle.ended(CLOSED))?;
        Ok(Publisher {
            core,
            id,
            window,
            stream,
            receiver,
            sealer: Mutex::new(sealer),
        })
    }
}

/// Starts a stream with ids of its own.
pub(crate) fn new_stream() -> Result<StreamId, PublishError> {
    stream::start(Timestamp::now())
        .map_err(|error| PublishError::new(PublishErrorKind::Sealing, error.to_string()))
}

/// Returns the error of a receiver whose name does not fit into a default route.
pub(crate) fn no_route(receiver: &ClientId, error: &NameError) -> PublishError {
    PublishError::new(
        PublishErrorKind::Refused,
        format!("No route can be named after `{receiver}`: {error}."),
    )
    .advise("Name the routing key yourself.")
}
