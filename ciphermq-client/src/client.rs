//! The connection's handle, and the requests.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::identity::IdentityError;
use ciphermq_crypto::{Authority, Identity, Keyring, PublicKey, SignedKeyError, VerifiedKeys};
use ciphermq_protocol::hello::HelloReply;
use ciphermq_protocol::rejected::{RejectedCursor, RejectedPage, RejectedRequest};
use ciphermq_protocol::waiting::{WaitingKey, WaitingRequest, WaitingTally};
use ciphermq_protocol::{
    CertificateChain, ClientId, Command, Delivery, ExchangeName, Fingerprint, MessageId, QueueName,
    Reply, RoutingKey,
};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::builder::ClientBuilder;
use crate::connector::{Connector, TlsDetails};
use crate::consumer::ConsumerBuilder;
use crate::driver::{self, DriverSettings, Handle, Setup};
use crate::error::{AckError, ConnectError, RequestError, RequestErrorKind};
use crate::event::Events;
use crate::keys::{
    self, AnnounceError, Announcements, Announcer, PinsError, RecipientKeyCache, Registration,
};
use crate::publisher::PublisherBuilder;

/// A connection to the server. Cheap to clone; clones share the connection.
///
/// Requests are answered on the same connection as publishes and may be made by any number of tasks
/// at once: they are pipelined. What has no answer when the connection is lost is sent again on the
/// next one; all requests may be repeated without harm.
///
/// Unless [`Client::close`] is called, the connection ends when the last clone and the last
/// publisher on it are gone and what they handed over is settled.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) connector: Arc<Connector>,
    pub(crate) settings: DriverSettings,
    pub(crate) handle: Handle,
    pub(crate) id: ClientId,
    /// Or why this client's certificate cannot sign for others.
    pub(crate) identity: Result<Arc<Identity>, IdentityError>,
    pub(crate) keys: RecipientKeyCache,
    pub(crate) announcer: Announcer,
}

/// What is known of the connection that stands, or stood last.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// What the server said of itself.
    pub server: HelloReply,
    /// The server's address, as `address:port`.
    pub address: String,
    /// The version of TLS, such as `TLSv1.3`.
    pub tls_version: String,
    /// The cipher suite, such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher_suite: String,
    /// The key exchange, such as `X25519MLKEM768`.
    pub key_exchange: String,
}

impl Connection {
    pub(crate) fn new(server: HelloReply, tls: TlsDetails) -> Self {
        let TlsDetails {
            address,
            version,
            cipher_suite,
            key_exchange,
        } = tls;
        Self {
            server,
            address,
            tls_version: version,
            cipher_suite,
            key_exchange,
        }
    }
}

/// What became of a [`Client::resend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResendOutcome {
    /// The message is put up for delivery again.
    Requested,
    /// The message is another sender's.
    Unauthorized,
    /// The server has never seen the message, or it is no longer waiting: acked or rejected.
    NotWaiting,
}

impl Client {
    /// Begins to describe a connection to `host:port`. Without a port it is 5672.
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(address)
    }

    pub(crate) async fn start(
        connector: Arc<Connector>,
        settings: DriverSettings,
        identity: Result<Arc<Identity>, IdentityError>,
        keys: RecipientKeyCache,
        announcements: Announcements,
    ) -> Result<Self, ConnectError> {
        let handle =
            driver::start(connector.clone(), settings.clone(), Setup::client(), None).await?;
        let id = connector.client_id().clone();
        let authority = keys.authority().clone();
        let announcer = Announcer::new(
            id.clone(),
            identity.as_ref().ok().cloned(),
            authority,
            announcements,
        );
        Ok(Self {
            inner: Arc::new(Inner {
                connector,
                settings,
                handle,
                id,
                identity,
                keys,
                announcer,
            }),
        })
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Who this client is: the Common Name of its certificate. A server that sees somebody else is
    /// not connected to.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.inner.id
    }

    /// The server's address, as this client was told to reach it: `host:port`.
    #[must_use]
    pub fn server_address(&self) -> String {
        self.inner.connector.address()
    }

    /// What the server said of itself when it was last connected to.
    #[must_use]
    pub fn server(&self) -> HelloReply {
        self.connection().server.clone()
    }

    /// The connection that stands, or stood last.
    #[must_use]
    pub fn connection(&self) -> Arc<Connection> {
        self.inner.handle.connection()
    }

    /// What happens to the connection from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.inner.handle.events()
    }

    /// Why this client signs nothing, neither its keys nor what it sends: its certificate's key is
    /// of another kind (RSA), or it may not be used for signatures. `None` if it signs.
    #[must_use]
    pub fn cannot_sign(&self) -> Option<&IdentityError> {
        self.inner.identity.as_ref().err()
    }

    /// Begins to describe a publisher of messages for `receiver`.
    #[must_use]
    pub fn publisher(&self, receiver: &ClientId) -> PublisherBuilder {
        PublisherBuilder::new(self.clone(), receiver.clone())
    }

    /// Begins to describe a consumer of `queue`. It will run on a connection of its own, made with
    /// the same settings.
    #[must_use]
    pub fn consumer(&self, queue: &QueueName) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), queue.clone())
    }

    /// Asks the server for a sign of life; how long it took.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if none came.
    pub async fn ping(&self) -> Result<Duration, RequestError> {
        let start = Instant::now();
        self.expect(Command::Ping, |reply| {
            matches!(reply, Reply::Pong).then_some(())
        })
        .await?;
        Ok(start.elapsed())
    }

    /// Makes a queue unless it exists.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer.
    pub async fn declare_queue(&self, queue: &QueueName) -> Result<(), RequestError> {
        let command = Command::DeclareQueue {
            queue: queue.clone(),
        };
        self.expect(command, |reply| {
            matches!(reply, Reply::QueueDeclared).then_some(())
        })
        .await
    }

    /// Makes an exchange unless it exists.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer.
    pub async fn declare_exchange(&self, exchange: &ExchangeName) -> Result<(), RequestError> {
        let command = Command::DeclareExchange {
            exchange: exchange.clone(),
        };
        self.expect(command, |reply| {
            matches!(reply, Reply::ExchangeDeclared).then_some(())
        })
        .await
    }

    /// Lets messages of `exchange` with `routing_key` go to `queue`, too. Binding again changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: `NotFound` if the queue or the exchange does not exist.
    pub async fn bind(
        &self,
        queue: &QueueName,
        exchange: &ExchangeName,
        routing_key: &RoutingKey,
    ) -> Result<(), RequestError> {
        let (queue, exchange, routing_key) = (queue.clone(), exchange.clone(), routing_key.clone());
        let command = Command::Bind {
            queue,
            exchange,
            routing_key,
        };
        self.expect(command, |reply| {
            matches!(reply, Reply::QueueBound).then_some(())
        })
        .await
    }

    /// Stores this client's public key on the server, in place of an earlier one.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer.
    pub async fn register_public_key(&self, key: &PublicKey) -> Result<(), RequestError> {
        let command = Command::RegisterPublicKey {
            client_id: None,
            key: key.to_base64(),
        };
        self.expect(command, |reply| {
            matches!(reply, Reply::PublicKeyRegistered).then_some(())
        })
        .await
    }

    /// Asks for the bare public key of `client`, **which nobody has signed**; `None` if it has
    /// registered none. Publishers use the signed one.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: `BadKey` if what the server sent is no key.
    pub async fn public_key(&self, client: &ClientId) -> Result<Option<PublicKey>, RequestError> {
        let text = self
            .expect(
                Command::GetPublicKey {
                    client_id: client.clone(),
                },
                |reply| match reply {
                    Reply::PublicKey(key) => Some(Some(key)),
                    Reply::PublicKeyNotFound => Some(None),
                    _ => None,
                },
            )
            .await?;
        text.map(|text| PublicKey::from_base64(&text))
            .transpose()
            .map_err(|error| {
                RequestError::new(
                    RequestErrorKind::BadKey,
                    format!("What the server has as public key of `{client}` is no key: {error}."),
                )
                .advise(format!("Let `{client}` register its key again."))
            })
    }

    /// Signs the keyring's public keys with this client's certificate and registers them, so that
    /// others can send to it. A client whose certificate cannot sign (an RSA key) registers the
    /// bare X25519 key, which senders refuse unless they were told otherwise
    /// ([`Client::cannot_sign`] says why). The signed key that was registered, if it was.
    ///
    /// # Errors
    ///
    /// As for [`Client::announce`].
    pub async fn register_keys(&self, keyring: &Keyring) -> Result<Option<String>, AnnounceError> {
        Ok(self.announce(keyring, None).await?.signed_key)
    }

    /// Signs the keyring's public keys and registers them, as [`Client::register_keys`] does, and
    /// tells more.
    ///
    /// They are signed anew every time, with an epoch above all that this client ever signed: as
    /// the server says, as it is remembered here
    /// ([`announcements_in`](crate::ClientBuilder::announcements_in)), and above `above`, if
    /// somebody knows better than both. It is done when the server hands them out, and a sender
    /// would take them.
    ///
    /// # Errors
    ///
    /// [`AnnounceError`] if the server did not answer, or has keys that this client did not sign;
    /// if the certificate cannot sign, is not valid by this machine's clock, or not of this
    /// client's authority.
    pub async fn announce(
        &self,
        keyring: &Keyring,
        above: Option<u64>,
    ) -> Result<Registration, AnnounceError> {
        self.inner
            .announcer
            .announce(&self.inner.handle, keyring, above)
            .await
    }

    /// Asks for the signed keys of `client` and verifies them against this client's certificate
    /// authority, as a publisher does; `None` if it has registered none. Nothing is pinned.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer. Inside, [`SignedKeyError`]: what is wrong
    /// with them.
    pub async fn verified_keys(
        &self,
        client: &ClientId,
    ) -> Result<Option<Result<VerifiedKeys, SignedKeyError>>, RequestError> {
        let text = self.signed_key(client).await?;
        Ok(text.map(|text| {
            ciphermq_crypto::signed_key::verify(
                &text,
                client,
                self.inner.keys.authority(),
                Timestamp::now(),
            )
        }))
    }

    /// Whether keys that were verified may follow those that were believed of `client` before;
    /// nothing is pinned.
    ///
    /// # Errors
    ///
    /// What is wrong, as a publisher would say it.
    pub async fn check_pin(
        &self,
        client: &ClientId,
        keys: Option<&VerifiedKeys>,
    ) -> Result<(), PinsError> {
        match keys {
            Some(keys) => self.inner.keys.check_pin(client, &keys.pin()).await,
            None => Ok(()),
        }
    }

    /// Who names clients for this one: the certificate authority that it was given.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        self.inner.keys.authority()
    }

    /// Stores this client's signed keys on the server, as they are. The text holds no space.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer.
    pub async fn register_signed_key(&self, signed_key: &str) -> Result<(), RequestError> {
        keys::register_signed(&self.inner.handle, signed_key).await
    }

    /// Asks for the signed keys of `client`, as they are, **not verified**; `None` if it has
    /// registered none.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer.
    pub async fn signed_key(&self, client: &ClientId) -> Result<Option<String>, RequestError> {
        keys::signed_key_of(&self.inner.handle, client).await
    }

    /// Asks for a certificate chain that `client` has connected with, **not verified**.
    ///
    /// It is the last one, or the one with this fingerprint; `None` if the server has none.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer.
    pub async fn certificate(
        &self,
        client: &ClientId,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Option<CertificateChain>, RequestError> {
        self.expect(
            Command::GetCertificate {
                client_id: client.clone(),
                fingerprint,
            },
            |reply| match reply {
                Reply::Certificate(chain) => Some(Some(chain)),
                Reply::CertificateNotFound => Some(None),
                _ => None,
            },
        )
        .await
    }

    /// Takes one message of `queue` that is for this client, sealed as it is; `None` if there is
    /// none. It is leased to this connection: ack it, or it will be delivered again.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer.
    pub async fn fetch(&self, queue: &QueueName) -> Result<Option<Delivery>, RequestError> {
        self.expect(
            Command::Fetch {
                queue: queue.clone(),
            },
            |reply| match reply {
                Reply::Message(delivery) => Some(Some(delivery)),
                Reply::NoMessages => Some(None),
                _ => None,
            },
        )
        .await
    }

    /// Acks messages that are for this client, many in one line, and tells what became of each, in
    /// order.
    pub async fn ack(&self, message_ids: &[MessageId]) -> Vec<(MessageId, Result<(), AckError>)> {
        self.inner.handle.ack(message_ids).await
    }

    /// Tells the server that this client cannot use a message: it leaves the queues and is set
    /// aside, with the reason. Line endings in the reason become spaces.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: `NotFound` for a message that was never accepted, `NotAuthorized` for
    /// another client's.
    pub async fn reject(&self, message_id: &MessageId, reason: &str) -> Result<(), RequestError> {
        self.inner.handle.reject(message_id, reason).await
    }

    /// Messages that their receivers could not use: those that this client has sent, and those that
    /// were for it, in the order of their rejection. `after` is where an earlier page ended
    /// ([`RejectedMessage::cursor`](crate::RejectedMessage::cursor)).
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer, or is too old to list them.
    pub async fn rejected(
        &self,
        after: Option<RejectedCursor>,
    ) -> Result<RejectedPage, RequestError> {
        let request = RejectedRequest { after, limit: None };
        self.expect(Command::ListRejected(request), |reply| match reply {
            Reply::RejectedMessages(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// For which keys of this client messages wait, and how many for each: a private key may be
    /// destroyed when none wait for it any more, and senders have the new one.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer, or is too old to count them.
    pub async fn waiting_keys(&self) -> Result<Vec<WaitingKey>, RequestError> {
        let mut tally = WaitingTally::default();
        let mut after = None;
        loop {
            let request = WaitingRequest { after, limit: None };
            let page = self
                .expect(Command::ListWaitingKeys(request), |reply| match reply {
                    Reply::WaitingKeys(page) => Some(page),
                    _ => None,
                })
                .await?;
            for key in page.keys {
                tally.add(key);
            }
            // A server that does not go on would keep us here for ever.
            if page.next.is_none() || page.next == after {
                return Ok(tally.into_keys());
            }
            after = page.next;
        }
    }

    /// Asks the server to deliver a message of this sender's again, although it is out for
    /// delivery.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer.
    pub async fn resend(&self, message_id: &MessageId) -> Result<ResendOutcome, RequestError> {
        self.expect(
            Command::Resend {
                message_id: message_id.clone(),
            },
            |reply| match reply {
                Reply::ResendRequested => Some(ResendOutcome::Requested),
                Reply::UnauthorizedResend => Some(ResendOutcome::Unauthorized),
                Reply::MessageIdNotFound => Some(ResendOutcome::NotWaiting),
                _ => None,
            },
        )
        .await
    }

    /// Settles what was handed over (each message has its tries for that), then ends the
    /// connection. Consumers have connections of their own and stay.
    pub async fn close(&self) {
        self.inner.handle.close().await;
    }

    async fn expect<T>(
        &self,
        command: Command,
        read: impl FnOnce(Reply) -> Option<T>,
    ) -> Result<T, RequestError> {
        self.inner.handle.expect(command, read).await
    }
}
