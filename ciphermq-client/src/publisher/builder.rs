//! What a publisher may be told.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::{Form, RecipientKey, stream};
use ciphermq_protocol::{ClientId, ExchangeName, RoutingKey, StreamId};
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::sealer::{Sealer, ask_key};
use super::{Outcome, OutcomeObserver, Publisher, Window, closed};
use crate::client::Client;
use crate::driver::{Op, PublisherId, PublisherSetup};
use crate::error::{PublishError, PublishErrorKind};
use crate::keys::ReceiverKey;
use crate::resume::ResumableStream;

/// When a batch is sent: as soon as one of the limits is reached, and at once while nothing is
/// under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most messages in one batch, at least 1. Default: 250.
    pub messages: usize,
    /// The most bytes in one batch; a message that is larger goes alone. The server's limit on
    /// lines holds besides. Default: 256 KiB.
    pub bytes: usize,
    /// How long a message may wait for others while earlier batches are under way. Default: 5 ms.
    pub time: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            messages: 250,
            bytes: 256 * 1024,
            time: Duration::from_millis(5),
        }
    }
}

/// Describes a publisher. Made by [`Client::publisher`].
#[derive(Debug)]
pub struct PublisherBuilder {
    client: Client,
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
    pub(crate) fn new(client: Client, receiver: ClientId) -> Self {
        Self {
            client,
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

    /// The exchange to publish to. Default: `ciphermq_exchange`.
    #[must_use]
    pub fn exchange(self, exchange: ExchangeName) -> Self {
        Self {
            exchange: Some(exchange),
            ..self
        }
    }

    /// The routing key to publish by. Default: `<receiver>_key`.
    #[must_use]
    pub fn routing_key(self, routing_key: RoutingKey) -> Self {
        Self {
            routing_key: Some(routing_key),
            ..self
        }
    }

    /// When batches are sent.
    #[must_use]
    pub fn batch(self, limits: BatchLimits) -> Self {
        Self {
            limits: BatchLimits {
                messages: limits.messages.max(1),
                ..limits
            },
            ..self
        }
    }

    /// How much may be sent and not settled: messages, and bytes of sealed messages. Default:
    /// 16,384 and 16 MiB. Beyond that, [`Publisher::send`] waits.
    #[must_use]
    pub fn window(self, messages: usize, bytes: usize) -> Self {
        Self {
            window: (messages, bytes),
            ..self
        }
    }

    /// The stream whose ids the messages get: the same stream and positions make the same ids, and
    /// the server recognises them. Default: a new stream.
    #[must_use]
    pub fn stream(self, stream: StreamId) -> Self {
        Self {
            stream: Some(stream),
            ..self
        }
    }

    /// The first message's position in the stream. Default: 0.
    #[must_use]
    pub fn start_at(self, position: u64) -> Self {
        Self { position, ..self }
    }

    /// The receiver's key, which the caller has from the receiver itself. Default: the one that the
    /// server has and the receiver has signed, of the strongest suite that the receiver accepts,
    /// asked for again when [`key_ttl`](crate::ClientBuilder::key_ttl) is over.
    #[must_use]
    pub fn receiver_key(self, key: impl Into<RecipientKey>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    /// Also takes a key that the receiver has not signed, and seals in `form`: for older receivers,
    /// with the older form that they read. Whoever runs the server can put in a key of their own,
    /// the first time: after that the key is pinned ([`pins_in`](crate::ClientBuilder::pins_in)),
    /// and a change is refused. A receiver that signs its key gets the signed one used, and its
    /// suite. Default: such receivers are refused.
    #[must_use]
    pub fn allow_unsigned_key(self, form: Form) -> Self {
        Self {
            unsigned: Some(form),
            ..self
        }
    }

    /// Also sends if this client's certificate cannot sign (an RSA key, for example): its sessions
    /// are not signed then, and only receivers that admit unverified senders take its messages.
    /// Where it can sign, it does. Default: such a publisher does not start.
    #[must_use]
    pub fn allow_unsigned_sessions(self) -> Self {
        Self {
            unsigned_sessions: true,
            ..self
        }
    }

    /// Goes on with a stream where everything before is acknowledged: its stream, position and
    /// route. Its [observer](ResumableStream::observer) must be among what
    /// [`on_outcome`](Self::on_outcome) calls.
    #[must_use]
    pub fn resume(self, stream: &ResumableStream) -> Self {
        let state = stream.state();
        Self {
            stream: Some(state.stream),
            position: state.acknowledged,
            exchange: Some(state.exchange.clone()),
            routing_key: Some(state.routing_key.clone()),
            ..self
        }
    }

    /// Called for every message that is settled, in the order in which that happens: for progress
    /// bars, counters and logs. It runs on the connection's task: it must be quick and must not
    /// block.
    #[must_use]
    pub fn on_outcome(self, observer: impl Fn(Outcome<'_>) + Send + Sync + 'static) -> Self {
        Self {
            observer: OutcomeObserver(Some(Arc::new(observer))),
            ..self
        }
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
            client,
            receiver,
            limits,
            window,
            position,
            observer,
            ..
        } = self;
        let name = |error: &dyn std::fmt::Display| {
            PublishError::new(
                PublishErrorKind::Refused,
                format!("No route can be named after `{receiver}`: {error}."),
            )
            .advise("Name the routing key yourself.")
        };
        let exchange = self
            .exchange
            .unwrap_or_else(|| crate::DEFAULT_EXCHANGE.into());
        let routing_key = match self.routing_key {
            Some(routing_key) => routing_key,
            None => crate::default_routing_key(&receiver).map_err(|error| name(&error))?,
        };
        let stream = match self.stream {
            Some(stream) => stream,
            None => stream::start(Timestamp::now())
                .map_err(|error| PublishError::new(PublishErrorKind::Sealing, error.to_string()))?,
        };
        let is_given = self.key.is_some();
        let key = match self.key {
            Some(key) => ReceiverKey {
                key,
                is_signed: true,
            },
            None => {
                ask_key(
                    &client,
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
            session: None,
        };
        sealer.check(&client)?;
        let window = Arc::new(Window::new(window.0, window.1));
        let id = PublisherId::next();
        let setup = PublisherSetup {
            exchange,
            routing_key,
            limits,
            window: window.clone(),
            observer,
        };
        client
            .inner()
            .handle
            .send(Op::OpenPublisher(id, setup))
            .await
            .map_err(|()| closed())?;
        Ok(Publisher {
            client,
            id,
            window,
            stream,
            receiver,
            sealer: Mutex::new(sealer),
        })
    }
}
