//! A publisher's session and its place in the stream.

use ciphermq_crypto::{Header, PublicKey, SealError, SendingSession};
use ciphermq_protocol::{ClientId, Envelope, ExchangeName, RoutingKey, StreamId};
use jiff::Timestamp;

use crate::client::Client;
use crate::error::{PublishError, PublishErrorKind};
use crate::keys;
use crate::publisher::Payload;

/// About how much an envelope has beside its ciphertext, in bytes: names are short, keys and times are fixed.
pub(crate) const HEADER_BYTES: usize = 1024;

/// About how many bytes a payload takes when it is sealed: base64, and the envelope around it.
pub(crate) fn weight(payload: &Payload<'_>) -> usize {
    payload
        .bytes
        .len()
        .div_ceil(3)
        .saturating_mul(4)
        .saturating_add(HEADER_BYTES)
}

/// Seals payloads, one after the other.
#[derive(Debug)]
pub(crate) struct Sealer {
    pub(crate) sender: ClientId,
    pub(crate) receiver: ClientId,
    pub(crate) exchange: ExchangeName,
    pub(crate) routing_key: RoutingKey,
    pub(crate) stream: StreamId,
    pub(crate) next: u64,
    pub(crate) key: PublicKey,
    /// The key was given by the caller, and the server is never asked.
    pub(crate) key_is_given: bool,
    pub(crate) session: Option<SendingSession>,
}

impl Sealer {
    /// Sees to it that there is a session that can seal. For a new one the receiver's key is asked for, if it
    /// is no longer believed; if the server cannot be asked now, the known one serves once more.
    pub(crate) async fn refresh(&mut self, client: &Client) -> Result<(), PublishError> {
        let now = Timestamp::now();
        if self
            .session
            .as_ref()
            .is_some_and(|session| !session.is_exhausted(now))
        {
            return Ok(());
        }
        if !self.key_is_given {
            match keys::receiver_key(client, &self.receiver).await {
                Ok(key) => self.key = key,
                Err(error) if error.kind() == PublishErrorKind::KeyUnavailable => {
                    tracing::warn!(receiver = %self.receiver, %error, "the receiver's key cannot be asked for; the known one is used");
                }
                Err(error) => return Err(error),
            }
        }
        let session = SendingSession::start(&self.sender, &self.receiver, &self.key, now)
            .map_err(|error| sealing(&error))?;
        self.session = Some(session);
        Ok(())
    }

    /// Seals the next message of the stream.
    pub(crate) fn seal(&mut self, payload: &Payload<'_>) -> Result<Envelope, PublishError> {
        let message_id = self.stream.message_id(self.next).ok_or_else(|| {
            PublishError::new(
                PublishErrorKind::StreamEnded,
                "The stream has come to its last position.",
            )
            .advise("Start a new stream.")
        })?;
        let session = self
            .session
            .as_mut()
            .ok_or_else(|| sealing(&SealError::SessionExhausted))?;
        let header = Header {
            message_id: &message_id,
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            content_type: payload.content_type,
            sent_time: Timestamp::now(),
        };
        let envelope = session
            .seal(&header, payload.bytes)
            .map_err(|error| sealing(&error))?;
        self.next += 1;
        Ok(envelope)
    }

    /// The message that was sealed last is not sent: its position is free again.
    pub(crate) fn take_back(&mut self) {
        self.next = self.next.saturating_sub(1);
    }

    /// How long a line with this message alone is.
    pub(crate) fn line_bytes(&self, envelope: &Envelope) -> usize {
        line_overhead(&self.exchange, &self.routing_key) + envelope.raw().len()
    }

    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.key
    }
}

/// How long a `publish_batch` line is beside its envelopes and the commas between them.
pub(crate) fn line_overhead(exchange: &ExchangeName, routing_key: &RoutingKey) -> usize {
    "publish_batch   []".len() + exchange.as_str().len() + routing_key.as_str().len()
}

fn sealing(error: &SealError) -> PublishError {
    PublishError::new(
        PublishErrorKind::Sealing,
        format!("The message could not be sealed: {error}."),
    )
}
