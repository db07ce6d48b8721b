//! The messages that a consumer returns.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ciphermq_crypto::{Fingerprint, Form, OpenError, Opened};
use ciphermq_protocol::{ClientId, Envelope, MessageId};
use jiff::Timestamp;

use super::shared::ConsumerCore;
use crate::error::{ConnectError, RequestError};

/// An opened message, held by the application until it is acknowledged.
///
/// Keep it until the message is processed, then [`ack`](Message::ack) it. A message that is dropped
/// without an ack is not lost: the server redelivers it when this consumer's connection ends.
#[derive(Debug)]
pub struct Message {
    opened: Opened,
    hold: HeldMessage,
}

/// Marks a message as held by the application until it is dropped.
#[derive(Debug)]
pub(crate) struct HeldMessage {
    pub(crate) message_id: MessageId,
    /// The verified sender.
    pub(crate) sender: Option<ClientId>,
    pub(crate) shared: Arc<ConsumerCore>,
}

impl Drop for HeldMessage {
    fn drop(&mut self) {
        self.shared
            .queued
            .release(&self.message_id, self.sender.as_ref());
    }
}

impl Message {
    /// Creates a message that the delivery queue already
    /// [holds](crate::driver::DeliveryQueue::hold).
    pub(crate) fn new(opened: Opened, shared: Arc<ConsumerCore>) -> Self {
        let hold = HeldMessage {
            message_id: opened.message_id.clone(),
            sender: opened.sender.clone().filter(|_| opened.is_sender_verified),
            shared,
        };
        Self { opened, hold }
    }

    /// Returns the plaintext.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.opened.payload
    }

    /// Takes the plaintext out. The message can still be acknowledged, and must be.
    #[must_use]
    pub fn take_payload(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.opened.payload)
    }

    /// Returns the message's unique id.
    #[must_use]
    pub fn message_id(&self) -> &MessageId {
        &self.opened.message_id
    }

    /// Returns the sender if it [is verified](Message::is_sender_verified); otherwise the claimed
    /// sender, for which the server must be trusted. Older clients may not name one.
    #[must_use]
    pub fn sender(&self) -> Option<&ClientId> {
        self.opened.sender.as_ref()
    }

    /// Whether the sender has signed the message's session with its certificate. Always true unless
    /// the consumer accepts [unverified senders](super::ConsumerBuilder::unverified_senders).
    #[must_use]
    pub fn is_sender_verified(&self) -> bool {
        self.opened.is_sender_verified
    }

    /// Returns the sender if it is verified.
    ///
    /// The verified sender and the id identify a message. Unverified messages are kept apart from
    /// verified ones, so that a forged message cannot pass for one that is still to come.
    #[must_use]
    pub fn verified_sender(&self) -> Option<&ClientId> {
        self.hold.sender.as_ref()
    }

    /// Returns the time of sealing by the sender's clock, if the sender stated it.
    #[must_use]
    pub fn sent_time(&self) -> Option<Timestamp> {
        self.opened.sent_time
    }

    /// Returns the payload's media type, if the sender stated it.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.opened.content_type.as_deref()
    }

    /// Returns the form of the seal: a suite, or an older form.
    #[must_use]
    pub fn form(&self) -> Form {
        self.opened.form
    }

    /// Rejects the message as unusable: it leaves the queues, and the server sets it aside as a
    /// dead letter, with the reason, for a person to inspect.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer.
    pub async fn reject(self, reason: &str) -> Result<(), RequestError> {
        self.hold
            .shared
            .handle
            .reject(&self.hold.message_id, reason)
            .await
    }

    pub(crate) fn hold(&self) -> &HeldMessage {
        &self.hold
    }
}

/// Why a consumer returns no message.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// A delivered message cannot be opened. The stream continues.
    #[error(transparent)]
    Unopenable(Unopenable),
    /// The connection has ended, and connecting again is of no use: an administrator has blocked
    /// this client, or the server's rules no longer allow what the consumer does. The stream ends.
    #[error(transparent)]
    Ended(ConnectError),
}

ciphermq_protocol::debug_as_report!(ConsumeError);

/// A message that cannot be opened. It blocks no other message, but occupies one place of the
/// consumer's prefetch until it is [rejected](Unopenable::reject).
pub struct Unopenable {
    /// Why it cannot be opened.
    pub reason: UnopenableReason,
    /// The envelope as it was delivered.
    pub envelope: Bytes,
    hold: HeldEnvelope,
}

/// Marks an unopenable envelope as held by the application until it is dropped.
struct HeldEnvelope {
    message_id: MessageId,
    hash: u64,
    shared: Arc<ConsumerCore>,
}

impl Drop for HeldEnvelope {
    fn drop(&mut self) {
        self.shared
            .queued
            .release_refused(&self.message_id, self.hash);
    }
}

/// The outcome of rejecting an [`Unopenable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// The server has set the message aside.
    SetAside,
    /// No rejection was sent, because it identifies a message by id alone: another message with
    /// this id could be opened, and the application holds it or has processed it.
    Copy,
}

/// Why a message cannot be opened.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnopenableReason {
    /// The delivery is not an envelope.
    #[error("the delivery is not an envelope: {0}")]
    NoEnvelope(String),
    /// The envelope's id differs from the one under which it was delivered.
    #[error("the envelope was delivered under another message's id")]
    OtherId,
    /// The certificate that the sender names is not available, so the sender cannot be verified.
    #[error(
        "the server has no certificate `{fingerprint}` of the sender `{sender}`, so nobody knows \
         who sent the message"
    )]
    NoCertificate {
        /// The claimed sender.
        sender: ClientId,
        /// SHA-256 of the certificate.
        fingerprint: Fingerprint,
    },
    /// Decryption or authentication failed.
    #[error(transparent)]
    Sealed(#[from] OpenError),
}

ciphermq_protocol::debug_as_report!(UnopenableReason);

impl Unopenable {
    /// Creates the error; `None` if the application already holds the same bytes.
    pub(crate) fn new(
        message_id: MessageId,
        envelope: Bytes,
        reason: UnopenableReason,
        shared: Arc<ConsumerCore>,
    ) -> Option<Self> {
        let hash = shared.queued.refuse(&message_id, &envelope)?;
        Some(Self {
            reason,
            envelope,
            hold: HeldEnvelope {
                message_id,
                hash,
                shared,
            },
        })
    }

    /// Returns the id under which the message was delivered.
    #[must_use]
    pub fn message_id(&self) -> &MessageId {
        &self.hold.message_id
    }

    /// Returns the sender that the envelope names, if any. Nothing proves that it is the sender.
    #[must_use]
    pub fn claimed_sender(&self) -> Option<ClientId> {
        Envelope::parse(self.envelope.clone())
            .ok()?
            .sender_client_id
    }

    /// Rejects the message as unusable: it leaves the queues and is set aside as a dead letter,
    /// with `reason` or a default one.
    ///
    /// If this is merely a forged or damaged copy of a message that could be opened, nothing is
    /// sent: [`Rejection::Copy`].
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer. The message is then redelivered
    /// when this consumer's connection ends.
    pub async fn reject(self, reason: Option<&str>) -> Result<Rejection, RequestError> {
        let shared = &self.hold.shared;
        if shared.has_opened(&self.hold.message_id) {
            return Ok(Rejection::Copy);
        }
        let default = self.reason.to_string();
        shared
            .handle
            .reject(&self.hold.message_id, reason.unwrap_or(&default))
            .await?;
        Ok(Rejection::SetAside)
    }
}

ciphermq_protocol::debug_as_report!(Unopenable);

impl fmt::Display for Unopenable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "message {} cannot be opened: {}",
            self.hold.message_id, self.reason
        )
    }
}

impl std::error::Error for Unopenable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}
