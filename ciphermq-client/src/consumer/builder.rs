//! The settings of a consumer.

use std::num::NonZeroU32;
use std::sync::Arc;

use ciphermq_crypto::{Keyring, OpenPolicy, Opener};
use ciphermq_protocol::name::pattern::Pattern;
use ciphermq_protocol::{Command, ExchangeName, QueueName, RoutingKey};

use super::Consumer;
use crate::client_core::ClientCore;
use crate::credentials::Trust;
use crate::dedup::{Deduplication, InMemory};
use crate::driver::{self, DeliveryQueue, Setup};
use crate::error::{ConnectError, ConnectErrorKind};
use crate::keys::{self, AnnounceError, Announced};
use crate::revocation;

/// A builder of a consumer, created by [`Client::consumer`](crate::Client::consumer).
pub struct ConsumerBuilder {
    core: Arc<ClientCore>,
    queue: QueueName,
    keyring: Option<Keyring>,
    register: bool,
    prefetch: NonZeroU32,
    bindings: Vec<(ExchangeName, RoutingKey)>,
    policy: OpenPolicy,
    dedup: Box<dyn Deduplication>,
    id: Option<String>,
}

/// The default prefetch: large enough that a receiver that syncs a file once for many messages
/// never waits for the network, and small enough that few messages are redelivered after a crash.
const PREFETCH: NonZeroU32 = NonZeroU32::MIN.saturating_add(1023);

impl ConsumerBuilder {
    pub(crate) fn new(core: Arc<ClientCore>, queue: QueueName) -> Self {
        Self {
            core,
            queue,
            keyring: None,
            register: false,
            prefetch: PREFETCH,
            bindings: Vec::new(),
            policy: OpenPolicy::default(),
            dedup: Box::new(InMemory::default()),
            id: None,
        }
    }

    /// Sets the private keys that open the messages. Required.
    #[must_use]
    pub fn keyring(mut self, keyring: Keyring) -> Self {
        self.keyring = Some(keyring);
        self
    }

    /// Signs the keyring's public keys with this client's certificate and registers them
    /// ([`Client::announce`](crate::Client::announce)). Default: no.
    ///
    /// For as long as the consumer runs, it ensures that the server returns these keys: on every
    /// reconnect, and before they expire ([`Event::KeysAnnounced`](crate::Event::KeysAnnounced)).
    #[must_use]
    pub fn register_key(mut self, register: bool) -> Self {
        self.register = register;
        self
    }

    /// Declares the queue and the exchange and binds them whenever the consumer connects. May be
    /// called several times.
    #[must_use]
    pub fn bind(mut self, exchange: ExchangeName, routing_key: RoutingKey) -> Self {
        self.bindings.push((exchange, routing_key));
        self
    }

    /// Sets the number of messages that may be delivered and not acknowledged; as many again, up to
    /// 16,384, may be acknowledged and not yet confirmed. Default: 1,024. The server may allow
    /// less.
    #[must_use]
    pub fn prefetch(mut self, prefetch: NonZeroU32) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// Refuses messages that were published by another route than this. Default: any route.
    #[must_use]
    pub fn expect_route(mut self, exchange: ExchangeName, routing_key: RoutingKey) -> Self {
        self.policy.exchange = Some(exchange);
        self.policy.routing_key = Some(routing_key);
        self
    }

    /// Whether to accept messages whose sender is not verified. Default: no.
    ///
    /// These are messages of unsigned sessions, and of older clients, in which only the payload is
    /// authenticated. See [`Message::is_sender_verified`](super::Message::is_sender_verified).
    #[must_use]
    pub fn unverified_senders(mut self, admit: bool) -> Self {
        self.policy.unverified_senders = admit;
        self
    }

    /// Whether to accept messages whose sender's certificate was revoked after the time at which
    /// their session says that it began. Default: no.
    ///
    /// Whoever has stolen the certificate's key can state an earlier time.
    #[must_use]
    pub fn before_revocation(mut self, admit: bool) -> Self {
        self.policy.before_revocation = admit;
        self
    }

    /// Accepts only messages of senders that match one of these patterns and have proved who they
    /// are. Adds to the patterns of earlier calls. Default: all senders.
    ///
    /// Messages of others come as [`Unopenable`](super::Unopenable), with the reason
    /// [`OpenError::OtherSender`] or [`OpenError::NoSender`]. They are neither decrypted, nor is
    /// their sender's certificate requested, so the name in the reason is a claim. With
    /// [`unverified_senders`](Self::unverified_senders), messages that only claim to be from such a
    /// sender are accepted as well; one that names no sender never is.
    ///
    /// [`OpenError::OtherSender`]: crate::OpenError::OtherSender
    /// [`OpenError::NoSender`]: crate::OpenError::NoSender
    #[must_use]
    pub fn allow_senders(mut self, patterns: impl IntoIterator<Item = Pattern>) -> Self {
        let senders = self.policy.senders.get_or_insert_default();
        senders.extend(patterns);
        self
    }

    /// Sets the record of processed messages. Default: a new [`InMemory`].
    #[must_use]
    pub fn dedup(mut self, dedup: impl Deduplication + 'static) -> Self {
        self.dedup = Box::new(dedup);
        self
    }

    /// Sets the consumer's id, which identifies it beyond this process. Default: a new one.
    ///
    /// When the consumer connects, the server ends an older connection of this client under the
    /// same id and redelivers its unacknowledged messages at once. Without it, a predecessor that
    /// ended without closing its connection (power failure, network partition) keeps its messages
    /// until the server detects the silence. Two consumers that run at the same time need different
    /// ids. 1 to 255 printable bytes; a random id that is kept with the record of processed
    /// messages is a good choice, see
    /// [`Checkpointed::consumer_id`](crate::dedup::Checkpointed::consumer_id).
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Connects and starts to consume. An error of the first connection is returned at once; later
    /// losses are repaired by reconnecting.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: as [`ClientBuilder::connect`](crate::ClientBuilder::connect); `Rejected`
    /// or `Unavailable` if the server refused one of the commands that set the consumer up.
    pub async fn start(self) -> Result<Consumer, ConnectError> {
        let keyring = self.keyring.ok_or_else(|| {
            ConnectError::new(
                ConnectErrorKind::BadSetting,
                "The consumer has no private key.",
            )
            .advise("Give it one with `keyring`: `keygen` makes one.")
        })?;
        let id = self.id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        ciphermq_protocol::name::check(&id).map_err(|error| {
            ConnectError::new(
                ConnectErrorKind::BadSetting,
                format!("The consumer's id cannot be used: {error}."),
            )
            .advise("Give it 1 to 255 printable characters without spaces, such as a UUID.")
        })?;
        let mut commands = Vec::new();
        let (mut registration, mut signs) = (None, false);
        if self.register {
            let registered = self
                .core
                .announcer
                .signer(&self.core.handle)
                .announce(&self.core.handle, &keyring, None)
                .await;
            registration = match registered {
                Ok(registered) => Some(registered),
                // What was sent before can be received all the same.
                Err(AnnounceError::Signer(_)) => None,
                Err(error) => return Err(not_announced(error)),
            };
            let is_bare = registration
                .as_ref()
                .is_some_and(|registered| registered.signed_key.is_none());
            if is_bare {
                // Repeated on every connection: the server may have another database then.
                commands.push(Command::RegisterPublicKey {
                    client_id: None,
                    key: keyring.newest().public_key().to_base64(),
                });
            }
            signs = !is_bare;
        }
        if !self.bindings.is_empty() {
            commands.push(Command::DeclareQueue {
                queue: self.queue.clone(),
            });
        }
        for (exchange, routing_key) in self.bindings {
            commands.push(Command::DeclareExchange {
                exchange: exchange.clone(),
            });
            commands.push(Command::Bind {
                queue: self.queue.clone(),
                exchange,
                routing_key,
            });
        }
        commands.push(Command::Consume {
            queue: self.queue.clone(),
            prefetch: Some(self.prefetch),
        });
        let queued = Arc::new(DeliveryQueue::new(self.prefetch.get()));
        let setup = Setup {
            consumer: Some(id),
            commands,
            prefetch: Some(queued.prefetch().clone()),
        };
        let core = self.core;
        let handle = driver::start(
            core.connector.clone(),
            core.settings.clone(),
            setup,
            Some(queued.clone()),
        )
        .await?;
        let receiver = core.id.clone();
        if signs {
            let announced = registration.as_ref().and_then(Announced::of);
            let announcer = core.announcer.clone();
            keys::keep_announced(
                handle.clone(),
                handle.events(),
                announcer,
                keyring.clone(),
                announced,
            );
        }
        let lists = core.lists.of_connection();
        revocation::keep_fetching(handle.downgrade(), handle.events(), lists.clone());
        let mut trust = Trust::new(Arc::clone(&core.credentials));
        let opener = Opener::new(receiver, keyring, trust.authority(), self.policy);
        Ok(Consumer::new(
            self.queue,
            opener,
            (trust, lists),
            handle,
            queued,
            self.dedup,
            registration,
        ))
    }
}

fn not_announced(error: AnnounceError) -> ConnectError {
    let what = format!("The public keys could not be registered: {error}.");
    let advice = error.advice();
    let kind = match &error {
        AnnounceError::Request(error) if error.is_retryable() => ConnectErrorKind::Unavailable,
        AnnounceError::Request(_) => ConnectErrorKind::Rejected,
        _ => ConnectErrorKind::BadCertificate,
    };
    ConnectError::new(kind, what)
        .advise(advice)
        .caused_by(error)
}

impl std::fmt::Debug for ConsumerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("queue", &self.queue)
            .field("prefetch", &self.prefetch)
            .field("bindings", &self.bindings)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
