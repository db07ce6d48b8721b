//! What a consumer hands over.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ciphermq_crypto::{Fingerprint, Form, OpenError, Opened};
use ciphermq_protocol::{ClientId, MessageId};
use jiff::Timestamp;

use super::ConsumerCore;
use super::acker::{ack_group, ack_later};
use crate::error::{AckError, RequestError};

/// A message, opened. It is the application's until it is acked.
///
/// Keep it until the message is processed, then [`ack`](Message::ack) it. A message that is dropped
/// without being acked is not lost: the server delivers it again when this consumer's connection
/// ends.
#[derive(Debug)]
pub struct Message {
    opened: Opened,
    hold: Hold,
}

/// Marks a message as being in the application's hands.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) message_id: MessageId,
    /// The verified sender.
    pub(crate) sender: Option<ClientId>,
    pub(crate) shared: Arc<ConsumerCore>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared
            .queued
            .release(&self.message_id, self.sender.as_ref());
    }
}

impl Message {
    /// A message that the inbox [holds](super::Inbox::hold).
    pub(crate) fn new(opened: Opened, shared: Arc<ConsumerCore>) -> Self {
        let hold = Hold {
            message_id: opened.message_id.clone(),
            sender: opened.sender.clone().filter(|_| opened.is_sender_verified),
            shared,
        };
        Self { opened, hold }
    }

    /// What was sent.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.opened.payload
    }

    /// Takes out what was sent. The message can still be acked, and must be.
    #[must_use]
    pub fn take_payload(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.opened.payload)
    }

    /// What tells the message from all others.
    #[must_use]
    pub fn message_id(&self) -> &MessageId {
        &self.opened.message_id
    }

    /// Who has sent it, if that [is verified](Message::is_sender_verified); else who says so, in
    /// which the server must be believed. Older clients may not say so.
    #[must_use]
    pub fn sender(&self) -> Option<&ClientId> {
        self.opened.sender.as_ref()
    }

    /// Whether the sender has signed the message's session with its certificate. Always so unless
    /// the consumer was told to admit [unverified
    /// senders](super::ConsumerBuilder::unverified_senders).
    #[must_use]
    pub fn is_sender_verified(&self) -> bool {
        self.opened.is_sender_verified
    }

    /// Who has sent it, if that is verified. By this and by its id a message is known again: what
    /// nobody has proved is kept apart from what somebody has, so that a forged message cannot pass
    /// for one that is still to come.
    #[must_use]
    pub fn verified_sender(&self) -> Option<&ClientId> {
        self.hold.sender.as_ref()
    }

    /// When it was sealed, by the sender's clock, if it said so.
    #[must_use]
    pub fn sent_time(&self) -> Option<Timestamp> {
        self.opened.sent_time
    }

    /// What the payload is, a media type, if the sender said so.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.opened.content_type.as_deref()
    }

    /// How it was sealed: which suite, or which older form.
    #[must_use]
    pub fn form(&self) -> Form {
        self.opened.form
    }

    /// The message was processed: records that, acks it, and waits for the server's confirmation.
    /// After that it is never delivered again.
    ///
    /// # Errors
    ///
    /// [`AckError`]. Unless it is `Record`, the message is recorded as processed: it is not handed
    /// over again, but acked again when it is delivered again.
    pub async fn ack(self) -> Result<(), AckError> {
        let shared = self.hold.shared.clone();
        match ack_group(&shared, vec![self]).await.pop() {
            Some((_, result)) => result,
            None => Ok(()),
        }
    }

    /// Like [`Message::ack`], without waiting for the confirmation: many messages go into one line.
    /// [`Consumer::flush_acks`](super::Consumer::flush_acks) waits for all of them, and tells which
    /// were not confirmed.
    ///
    /// # Errors
    ///
    /// [`AckError`] if it cannot be recorded as processed, or the consumer is closed.
    pub fn ack_later(self) -> Result<(), AckError> {
        ack_later(self)
    }

    /// The message cannot be used: it leaves the queues, and the server keeps it aside, with the
    /// reason, for a person to look at.
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

    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }
}

/// Why a consumer hands over no message.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// A message was delivered that cannot be opened. The stream goes on.
    #[error(transparent)]
    Unopenable(Unopenable),
}

ciphermq_protocol::debug_as_report!(ConsumeError);

/// A message that cannot be opened. It holds up nothing, but it takes one place of the consumer's
/// prefetch until it is [rejected](Unopenable::reject).
pub struct Unopenable {
    /// Why.
    pub reason: UnopenableReason,
    /// The envelope as it was delivered.
    pub envelope: Bytes,
    hold: RefusedHold,
}

/// Marks an envelope that cannot be opened as being in the application's hands.
struct RefusedHold {
    message_id: MessageId,
    hash: u64,
    shared: Arc<ConsumerCore>,
}

impl Drop for RefusedHold {
    fn drop(&mut self) {
        self.shared
            .queued
            .release_refused(&self.message_id, self.hash);
    }
}

/// What became of an [`Unopenable`] that was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// The server has set the message aside.
    SetAside,
    /// Nothing was sent. A message under the same id could be opened, and is in the application's
    /// hands or was processed; a rejection, which names the id alone, would be taken for that
    /// one's.
    Copy,
}

/// Why a message cannot be opened.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnopenableReason {
    /// What was delivered is no envelope.
    #[error("what was delivered is no envelope: {0}")]
    NoEnvelope(String),
    /// The envelope's id is not the one that it was delivered under.
    #[error("the envelope was delivered under another message's id")]
    OtherId,
    /// The certificate that the sender names is not to be had, so nobody knows who sent the
    /// message.
    #[error(
        "the server has no certificate `{fingerprint}` of the sender `{sender}`, so nobody knows \
         who sent the message"
    )]
    NoCertificate {
        /// Who says to have sent it.
        sender: ClientId,
        /// SHA-256 of the certificate.
        fingerprint: Fingerprint,
    },
    /// The cryptography says no.
    #[error(transparent)]
    Sealed(#[from] OpenError),
}

ciphermq_protocol::debug_as_report!(UnopenableReason);

impl Unopenable {
    /// `None` if the application holds the same bytes already.
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
            hold: RefusedHold {
                message_id,
                hash,
                shared,
            },
        })
    }

    /// The id that the message was delivered under.
    #[must_use]
    pub fn message_id(&self) -> &MessageId {
        &self.hold.message_id
    }

    /// Tells the server that the message cannot be used: it leaves the queues and is kept aside,
    /// with the reason. `reason` stands for the default one. If this is but a forged or damaged
    /// copy of a message that could be opened, nothing is sent: [`Rejection::Copy`].
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer. The message is then delivered
    /// again when this consumer's connection ends.
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
