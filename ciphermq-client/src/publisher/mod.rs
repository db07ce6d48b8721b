//! Sealing, windows, batches, receipts.
//!
//! A publisher seals payloads for one receiver and hands them to the connection's driver, in order.
//! What is sent and not yet answered is bounded by the publisher's
//! [window](PublisherBuilder::window): a sender that is faster than the server waits in
//! [`Publisher::send`].

mod builder;
mod outcome;
mod payload;
mod sealer;
mod window;

use std::sync::Arc;

use ciphermq_crypto::RecipientKey;
use ciphermq_protocol::{ClientId, ErrorCode, MessageId, StreamId};
use tokio::sync::{Mutex, oneshot};

pub use builder::{BatchLimits, PublisherBuilder};
pub use outcome::{MAX_FAILURES, Outcome, Receipt, Summary};
pub use payload::Payload;

pub(crate) use outcome::{OutcomeObserver, Tally};
pub(crate) use sealer::line_overhead;
pub(crate) use window::Window;

use crate::client::Client;
use crate::driver::{Op, Outgoing, PublisherId};
use crate::error::{PublishError, PublishErrorKind};
use sealer::Sealer;

/// Publishes messages for one receiver, by one route, as one stream. Made by [`Client::publisher`].
///
/// Messages are accepted in the order of the calls to [`Publisher::send`]. A message that is
/// refused, or tried again because the server's store did not answer, does not hold up the others:
/// it may come after messages that were sent later, by at most one window.
///
/// Dropping a publisher gives nothing up: what was sent is still settled, as long as the runtime
/// lives.
#[derive(Debug)]
pub struct Publisher {
    client: Client,
    id: PublisherId,
    window: Arc<Window>,
    stream: StreamId,
    receiver: ClientId,
    sealer: Mutex<Sealer>,
}

impl Publisher {
    /// Waits while the window is full. Room is not reserved: whoever shares the publisher may be
    /// faster.
    ///
    /// # Errors
    ///
    /// [`PublishError`] if the publisher is closed.
    pub async fn ready(&self) -> Result<(), PublishError> {
        self.window.acquire(0).await.map(drop).ok_or_else(closed)
    }

    /// Seals a payload and hands it over; waits while the window is full. The receipt tells when
    /// the server has it. Whoever needs no receipt may drop it: see
    /// [`PublisherBuilder::on_outcome`] and [`Publisher::finish`].
    ///
    /// # Errors
    ///
    /// [`PublishError`] if nothing was sent: the receiver's key cannot be had, the message is too
    /// large, the client was closed.
    pub async fn send<'a>(&self, payload: impl Into<Payload<'a>>) -> Result<Receipt, PublishError> {
        let (sender, receiver) = oneshot::channel();
        let message_id = self.hand_over(payload.into(), Some(sender)).await?;
        Ok(Receipt::new(message_id, receiver))
    }

    /// Like [`Publisher::send`], without a receipt: a little cheaper where outcomes are observed
    /// otherwise.
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
        let max_line = self.client.connection().server.limits.max_line_bytes;
        let weight = sealer::weight(&payload);
        if weight > max_line.saturating_add(sealer::HEADER_BYTES) {
            return Err(too_large(weight, max_line));
        }
        let room = self.window.acquire(weight).await.ok_or_else(closed)?;
        // The lock makes the order of positions the order of sending.
        let mut sealer = self.sealer.lock().await;
        sealer.refresh(&self.client).await?;
        let slot = self
            .client
            .inner()
            .handle
            .reserve()
            .await
            .ok_or_else(closed)?;
        let envelope = sealer.seal(&payload)?;
        let line = sealer.line_bytes(&envelope);
        if line > max_line {
            sealer.take_back();
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
        self.client
            .inner()
            .handle
            .send(Op::Flush(self.id, done))
            .await
            .map_err(|()| closed())?;
        flushed.await.map_err(|_| closed())?
    }

    /// Settles everything that was sent, and tells what became of it.
    pub async fn finish(self) -> Summary {
        let (done, summary) = oneshot::channel();
        if self
            .client
            .inner()
            .handle
            .send(Op::Finish(self.id, done))
            .await
            .is_err()
        {
            return Summary::default();
        }
        summary.await.unwrap_or_default()
    }

    /// The stream whose ids the messages get.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// The position that the next message will have in its stream.
    pub async fn position(&self) -> u64 {
        self.sealer.lock().await.position()
    }

    /// Whom the messages are for.
    #[must_use]
    pub fn receiver(&self) -> &ClientId {
        &self.receiver
    }

    /// The receiver's key that messages are sealed for now.
    pub async fn receiver_key(&self) -> RecipientKey {
        self.sealer.lock().await.key.key.clone()
    }

    /// Asks for the receiver's key again before the next message, for a receiver that has just
    /// changed it. Without that the change is noticed within
    /// [`key_ttl`](crate::ClientBuilder::key_ttl).
    pub async fn refresh_key(&self) {
        self.client.inner().keys.forget(&self.receiver);
        self.sealer.lock().await.forget_key();
    }
}

pub(crate) fn closed() -> PublishError {
    PublishError::new(PublishErrorKind::Closed, "The client was closed.")
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

/// What a caller should know of a code, in words.
pub(crate) fn advice(code: Option<ErrorCode>) -> Option<&'static str> {
    Some(match code? {
        ErrorCode::NoRoute => {
            "Start the receiver once, or bind a queue to the exchange by this routing key: \
             `ciphermq-cli receive` does."
        }
        ErrorCode::NotFound => {
            "Declare the exchange first, and bind a queue to it: `ciphermq-cli receive` does."
        }
        ErrorCode::IdInUse => "Start a new stream: another message was sent with this id.",
        ErrorCode::TooLarge | ErrorCode::LineTooLong => "Send it in smaller parts.",
        ErrorCode::StorageFull => {
            "Make room on the server's disk, or let receivers ack what waits; then send again."
        }
        ErrorCode::StorageUnavailable => {
            "See the server's log; then send again, with the same stream."
        }
        _ => return None,
    })
}
