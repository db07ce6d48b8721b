//! Publishing: sealing, windows, batches and receipts.
//!
//! A publisher seals payloads for one receiver and passes them to the connection's driver, in
//! order. Its [window](PublisherBuilder::window) bounds the messages that are in flight: a sender
//! that is faster than the server waits in [`Publisher::send`].

mod builder;
mod payload;
mod sealer;

use std::sync::Arc;

use ciphermq_crypto::RecipientKey;
use ciphermq_protocol::{ClientId, MessageId, StreamId};
use tokio::sync::{Mutex, oneshot};

pub use builder::PublisherBuilder;
pub use payload::Payload;

pub(crate) use builder::{new_stream, no_route};

pub use crate::driver::{BatchLimits, MAX_FAILURES, Outcome, Receipt, Summary};

use crate::client_core::ClientCore;
use crate::driver::{CLOSED, Op, Outgoing, PublisherId, Window};
use crate::error::{PublishError, PublishErrorKind};
use sealer::Sealer;

/// A publisher of messages for one receiver, by one route, as one stream. Created by
/// [`Client::publisher`](crate::Client::publisher).
///
/// Messages are accepted in the order of the calls to [`Publisher::send`]. A message that is
/// refused, or retried because the server's store did not answer, does not block the others: it may
/// arrive after later messages, by at most one window.
///
/// Dropping a publisher abandons nothing: messages in flight are still settled, as long as the
/// runtime lives.
#[derive(Debug)]
pub struct Publisher {
    core: Arc<ClientCore>,
    id: PublisherId,
    window: Arc<Window>,
    stream: StreamId,
    receiver: ClientId,
    sealer: Mutex<Sealer>,
}

impl Publisher {
    /// Waits while the window is full. Reserves no space: another user of the publisher may take it
    /// first.
    ///
    /// # Errors
    ///
    /// [`PublishError`] if the publisher is closed.
    pub async fn ready(&self) -> Result<(), PublishError> {
        let room = self.window.acquire(0).await;
        room.map(drop).ok_or_else(|| self.closed())
    }

    /// Seals a payload and sends it; waits while the window is full. The receipt resolves when the
    /// server has the message; it may be dropped, see [`PublisherBuilder::on_outcome`] and
    /// [`Publisher::finish`].
    ///
    /// # Errors
    ///
    /// [`PublishError`] if nothing was sent: the receiver's key is not available, the message is
    /// too large, the client was closed.
    pub async fn send<'a>(&self, payload: impl Into<Payload<'a>>) -> Result<Receipt, PublishError> {
        let (sender, receiver) = oneshot::channel();
        let message_id = self.hand_over(payload.into(), Some(sender)).await?;
        Ok(Receipt::new(message_id, receiver))
    }

    /// Seals a payload and sends it without a receipt: slightly cheaper than [`Publisher::send`],
    /// where outcomes are observed otherwise.
    ///
    /// # Errors
    ///
    /// As [`Publisher::send`].
    pub async fn submit<'a>(
        &self,
        payload: impl Into<Payload<'a>>,
    ) -> Result<MessageId, PublishError> {
        self.hand_over(payload.into(), None).await
    }

    async fn hand_over(
        &self,
        payload: Payload<'_>,
        receipt: Option<oneshot::Sender<Result<(), PublishError>>>,
    ) -> Result<MessageId, PublishError> {
        let max_line = self.core.handle.connection().server.limits.max_line_bytes;
        let weight = sealer::weight(&payload);
        if weight > max_line.saturating_add(sealer::HEADER_BYTES) {
            return Err(too_large(weight, max_line));
        }
        let room = self.window.acquire(weight).await;
        let room = room.ok_or_else(|| self.closed())?;
        // The lock makes the order of positions the order of sending.
        let mut sealer = self.sealer.lock().await;
        sealer.refresh(&self.core).await?;
        let slot = self.core.handle.reserve().await;
        let slot = slot.ok_or_else(|| self.closed())?;
        let envelope = sealer.seal(&payload)?;
        let line = sealer.line_bytes(&envelope);
        if line > max_line {
            sealer.rewind();
            return Err(too_large(line, max_line));
        }
        let message_id = envelope.message_id.clone();
        slot.send(Op::Publish(
            self.id,
            Outgoing {
                envelope,
                weight: room.keep(),
                receipt,
            },
        ));
        Ok(message_id)
    }

    /// Waits until everything that was sent before is settled.
    ///
    /// # Errors
    ///
    /// The first failure since the publisher was started or last flushed. Later messages may well
    /// have been acknowledged: the receipts, the observer and [`Publisher::finish`] tell which.
    pub async fn flush(&self) -> Result<(), PublishError> {
        let (done, flushed) = oneshot::channel();
        self.core
            .handle
            .send(Op::Flush(self.id, done))
            .await
            .map_err(|()| self.closed())?;
        flushed.await.map_err(|_| self.closed())?
    }

    /// Waits until everything that was sent is settled, and returns the outcomes.
    pub async fn finish(self) -> Summary {
        let (done, summary) = oneshot::channel();
        if self
            .core
            .handle
            .send(Op::Finish(self.id, done))
            .await
            .is_err()
        {
            return Summary::default();
        }
        summary.await.unwrap_or_default()
    }

    fn closed(&self) -> PublishError {
        self.core.handle.ended(CLOSED)
    }

    /// Returns the stream from which the message ids are derived.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Returns the stream position of the next message.
    pub async fn position(&self) -> u64 {
        self.sealer.lock().await.position()
    }

    /// Returns the receiver of the messages.
    #[must_use]
    pub fn receiver(&self) -> &ClientId {
        &self.receiver
    }

    /// Returns the receiver's current key.
    pub async fn receiver_key(&self) -> RecipientKey {
        self.sealer.lock().await.key.key.clone()
    }

    /// Fetches the receiver's key again before the next message, for a receiver that has just
    /// changed it. Otherwise a change is noticed within [`key_ttl`](crate::ClientBuilder::key_ttl).
    pub async fn refresh_key(&self) {
        self.core.keys.forget(&self.receiver);
        self.sealer.lock().await.forget_key();
    }
}

fn too_large(bytes: usize, limit: usize) -> PublishError {
    PublishError::new(
        PublishErrorKind::TooLarge,
        format!(
            "The message is too large: sealed, its line has about {bytes} bytes, and the \
                 server takes {limit}."
        ),
    )
    .advise(
        "Send it in smaller parts, or raise `limits.max_line_bytes` in the server's \
             configuration.",
    )
}
