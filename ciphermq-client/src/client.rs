//! The handle of a connection, and its requests.

mod administration;
mod opening;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::identity::{IdentityError, RevocationList};
use ciphermq_crypto::{Authority, Keyring, PublicKey, SignedKeyError, VerifiedKeys};
use ciphermq_protocol::hello::HelloReply;
use ciphermq_protocol::permission::{Permission, PermissionRequest};
use ciphermq_protocol::rejected::{RejectedCursor, RejectedPage, RejectedRequest};
use ciphermq_protocol::waiting::{WaitingKey, WaitingRequest, WaitingTally};
use ciphermq_protocol::{
    CertificateChain, ClientId, Command, Delivery, Fingerprint, MessageId, QueueName, Reply,
};
use tokio::time::Instant;

use crate::client_core::ClientCore;
use crate::consumer::ConsumerBuilder;
use crate::credentials::CertificateEnd;
use crate::error::{AckError, ConnectError, RequestError};
use crate::event::{Event, Events};
use crate::keys::{self, AnnounceError, PinsError, Registration};
use crate::publisher::PublisherBuilder;
use crate::revocation::RevocationError;

pub use self::topology::DeleteQueue;
pub use crate::connection::Connection;

/// A connection to the server. Cheap to clone; clones share the connection.
///
/// Requests are pipelined with publishes on the same connection and may be made by any number of
/// tasks at once. Unanswered ones are sent again after a reconnect; all requests are idempotent,
/// except that what was deleted is no longer found.
///
/// Unless [`Client::close`] is called, the connection ends when the last clone and its last
/// publisher are dropped and everything that they sent is settled.
#[derive(Debug, Clone)]
pub struct Client {
    core: Arc<ClientCore>,
}

/// The outcome of a [`Client::resend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResendOutcome {
    /// The message is queued for delivery again.
    Requested,
    /// The message belongs to another sender.
    Unauthorized,
    /// The server has never seen the message, or it was acknowledged or rejected.
    NotWaiting,
}

impl Client {
    pub(crate) fn new(core: ClientCore) -> Self {
        Self {
            core: Arc::new(core),
        }
    }

    /// Returns this client's id, as its certificate states it. Connecting to a server that
    /// sees another id fails.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.core.id
    }

    /// Returns the server's configured address, as `host:port`.
    #[must_use]
    pub fn server_address(&self) -> String {
        self.core.connector.address()
    }

    /// Returns the server's hello of the current or last connection.
    #[must_use]
    pub fn server(&self) -> HelloReply {
        self.connection().server.clone()
    }

    /// Returns the properties of the current or last connection.
    #[must_use]
    pub fn connection(&self) -> Arc<Connection> {
        self.core.handle.connection()
    }

    /// Subscribes to the events of the connection.
    #[must_use]
    pub fn events(&self) -> Events {
        self.core.handle.events()
    }

    /// Returns why this client signs neither its keys nor its messages, or `None` if it does: its
    /// certificate has a key of another kind (RSA), or may not be used for signatures, or the
    /// server has refused the one that signs.
    #[must_use]
    pub fn cannot_sign(&self) -> Option<IdentityError> {
        self.core.handle.credentials().identity.clone().err()
    }

    /// Returns when the certificates of this client and of its authorities end, and when the next
    /// revocation lists are due: its own certificate first, then the intermediate ones above it,
    /// the authorities, and the lists in force.
    #[must_use]
    pub fn certificate_ends(&self) -> Vec<CertificateEnd> {
        self.core.credentials.ends()
    }

    /// Returns the revocation lists in force: the last ones of the authorities that this client
    /// trusts, fetched from the server and verified, or kept since an earlier connection.
    #[must_use]
    pub fn lists_in_force(&self) -> Vec<RevocationList> {
        self.core.credentials.authority().lists().to_vec()
    }

    /// Fetches the revocation lists now, and puts newer ones in force.
    ///
    /// A client does this by itself on each connection, and whenever the time of
    /// [`key_ttl`](crate::ClientBuilder::key_ttl) is over.
    ///
    /// # Errors
    ///
    /// [`RevocationError`]: the first list that is not used, or not kept, or no answer.
    pub async fn fetch_lists(&self) -> Result<(), RevocationError> {
        let events = self.core.lists.fetch(&self.core.handle).await?;
        let refused = events.into_iter().find_map(|event| match event {
            Event::RevocationListRefused { reason } => Some(reason),
            _ => None,
        });
        refused.map_or(Ok(()), Err)
    }

    /// Reads this client's certificate, its key and its authorities again, if their files have
    /// changed, and returns whether they have. Its connections, and those of its consumers, then
    /// move to the new ones.
    ///
    /// A client does this by itself from time to time, and before it connects again: every 30
    /// seconds, or more often if its certificate lives for less than some minutes.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the new files cannot be used, or name another client. The old ones stay
    /// in use.
    pub async fn reload_certificates(&self) -> Result<bool, ConnectError> {
        self.core.credentials.reload().await
    }

    /// Creates a builder of a publisher of messages for `receiver`.
    #[must_use]
    pub fn publisher(&self, receiver: &ClientId) -> PublisherBuilder {
        PublisherBuilder::new(self.core.clone(), receiver.clone())
    }

    /// Creates a builder of a consumer of `queue`. The consumer runs on a connection of its own,
    /// with the same settings.
    #[must_use]
    pub fn consumer(&self, queue: &QueueName) -> ConsumerBuilder {
        ConsumerBuilder::new(self.core.clone(), queue.clone())
    }

    /// Sends a ping and returns the round-trip time.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if none came.
    pub async fn ping(&self) -> Result<Duration, RequestError> {
        let start = Instant::now();
        self.core
            .handle
            .confirm(Command::Ping, |reply| matches!(reply, Reply::Pong))
            .await?;
        Ok(start.elapsed())
    }

    /// Registers this client's bare public key on the server, in place of an earlier one.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer.
    pub async fn register_public_key(&self, key: &PublicKey) -> Result<(), RequestError> {
        keys::register_public(&self.core.handle, key).await
    }

    /// Fetches the bare public key of `client`, **which nobody has signed**; `None` if it has
    /// registered none. Publishers use the signed one.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: `BadKey` if what the server sent is no key.
    pub async fn public_key(&self, client: &ClientId) -> Result<Option<PublicKey>, RequestError> {
        keys::public_key_of(&self.core.handle, client).await
    }

    /// Signs the keyring's public keys with this client's certificate and registers them, so that
    /// others can send to it. Returns the signed key that was registered, if there is one.
    ///
    /// A client whose certificate cannot sign (an RSA key) registers the bare X25519 key, which
    /// senders refuse by default ([`Client::cannot_sign`] returns the reason).
    ///
    /// # Errors
    ///
    /// As for [`Client::announce`].
    pub async fn register_keys(&self, keyring: &Keyring) -> Result<Option<String>, AnnounceError> {
        Ok(self.announce(keyring, None).await?.signed_key)
    }

    /// Signs the keyring's public keys, registers them, and returns the details, which
    /// [`Client::register_keys`] omits.
    ///
    /// The keys are signed again every time, with an epoch above everything that this client ever
    /// signed: above the server's, above the recorded one
    /// ([`announcements_in`](crate::ClientBuilder::announcements_in)), and above `above`, for a
    /// caller that knows of a higher one. Succeeds only once the server returns the new keys and a
    /// sender would accept them.
    ///
    /// # Errors
    ///
    /// [`AnnounceError`] if the server did not answer, or has keys that this client did not sign;
    /// if the certificate cannot sign, is not valid by this machine's clock, or was not issued by
    /// this client's authority.
    pub async fn announce(
        &self,
        keyring: &Keyring,
        above: Option<u64>,
    ) -> Result<Registration, AnnounceError> {
        self.core
            .announcer
            .signer(&self.core.handle)
            .announce(&self.core.handle, keyring, above)
            .await
    }

    /// Fetches the signed keys of `client` and verifies them against this client's certificate
    /// authority, as a publisher does; `None` if it has registered none. Pins nothing.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer. The inner [`SignedKeyError`] says what is
    /// wrong with the keys.
    pub async fn verified_keys(
        &self,
        client: &ClientId,
    ) -> Result<Option<Result<VerifiedKeys, SignedKeyError>>, RequestError> {
        let Some(text) = self.signed_key(client).await? else {
            return Ok(None);
        };
        let (lists, handle) = (&self.core.lists, &self.core.handle);
        Ok(Some(lists.verify_keys(handle, &text, client).await.keys))
    }

    /// Checks whether verified keys may follow the pinned ones of `client`. Pins nothing.
    ///
    /// # Errors
    ///
    /// [`PinsError`], as for a publisher.
    pub async fn check_pin(
        &self,
        client: &ClientId,
        keys: Option<&VerifiedKeys>,
    ) -> Result<(), PinsError> {
        match keys {
            Some(keys) => self.core.keys.check_pin(client, &keys.pin()).await,
            None => Ok(()),
        }
    }

    /// Returns the certificate authorities that this client trusts now, with the revocation lists
    /// in force. They refuse a chain through an intermediate authority that this client has not met
    /// yet: [`Client::open`] and [`Client::verified_keys`] make it known.
    #[must_use]
    pub fn authority(&self) -> Authority {
        self.core.credentials.authority()
    }

    /// Registers this client's signed keys as they are. The text must not contain spaces.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer.
    pub async fn register_signed_key(&self, signed_key: &str) -> Result<(), RequestError> {
        keys::register_signed(&self.core.handle, signed_key).await
    }

    /// Fetches the signed keys of `client` as they are, **not verified**; `None` if it has
    /// registered none.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer.
    pub async fn signed_key(&self, client: &ClientId) -> Result<Option<String>, RequestError> {
        keys::signed_key_of(&self.core.handle, client).await
    }

    /// Fetches a certificate chain with which `client` has connected, **not verified**.
    ///
    /// Returns the latest chain, or the one with this fingerprint; `None` if the server has none.
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

    /// Takes one message of `queue` for this client, still sealed; `None` if there is none. It is
    /// leased to this connection: acknowledge it, or it will be redelivered.
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

    /// Acknowledges messages for this client, many per line, and returns the outcome of each, in
    /// order.
    pub async fn ack(&self, message_ids: &[MessageId]) -> Vec<(MessageId, Result<(), AckError>)> {
        self.core.handle.ack(message_ids).await
    }

    /// Rejects a message that this client cannot use: it leaves the queues and is set aside as a
    /// dead letter, with the reason. Line endings in the reason become spaces.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: `NotFound` for a message that was never accepted, `NotAuthorized` for
    /// another client's.
    pub async fn reject(&self, message_id: &MessageId, reason: &str) -> Result<(), RequestError> {
        self.core.handle.reject(message_id, reason).await
    }

    /// Lists rejected messages that this client has sent or that were for it, in the order of their
    /// rejection. `after` is the end of an earlier page
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

    /// Counts the waiting messages for each key of this client. A private key may be destroyed when
    /// none wait for it and senders have the new one.
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
            // A server that returns the same page again would keep us here indefinitely.
            if page.next.is_none() || page.next == after {
                return Ok(tally.into_keys());
            }
            after = page.next;
        }
    }

    /// Asks the server whether this client may do something, and which rule decides.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer, or is too old to know.
    pub async fn can_i(&self, request: PermissionRequest) -> Result<Permission, RequestError> {
        self.expect(Command::CanI(request), |reply| match reply {
            Reply::Permission(permission) => Some(permission),
            _ => None,
        })
        .await
    }

    /// Asks the server to redeliver a message of this sender, although it is already out for
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

    /// Settles everything that was sent, within the usual attempts, then ends the connection.
    /// Consumers have connections of their own and continue.
    pub async fn close(&self) {
        self.core.handle.close().await;
    }

    async fn confirm(&self, command: Command, expected: &Reply) -> Result<(), RequestError> {
        self.core
            .handle
            .confirm(command, |reply| reply == expected)
            .await
    }

    async fn expect<T>(
        &self,
        command: Command,
        read: impl FnOnce(Reply) -> Option<T>,
    ) -> Result<T, RequestError> {
        self.core.handle.expect(command, read).await
    }
}
