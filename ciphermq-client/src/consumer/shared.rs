//! The state that a consumer shares with its messages.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ciphermq_protocol::{ClientId, Command, MessageId, QueueName, Reply};
use parking_lot::{Mutex, MutexGuard};

use crate::dedup::Deduplication;
use crate::driver::{AckItem, DeliveryQueue, Handle};
use crate::error::RequestError;

/// The state that a consumer shares with its messages.
pub(crate) struct ConsumerCore {
    pub(crate) handle: Handle,
    pub(crate) queued: Arc<DeliveryQueue>,
    dedup: Mutex<Box<dyn Deduplication>>,
    duplicates: AtomicU64,
}

impl std::fmt::Debug for ConsumerCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerCore")
            .field("handle", &self.handle)
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

impl ConsumerCore {
    pub(super) fn new(
        handle: Handle,
        queued: Arc<DeliveryQueue>,
        dedup: Box<dyn Deduplication>,
    ) -> Self {
        Self {
            handle,
            queued,
            dedup: Mutex::new(dedup),
            duplicates: AtomicU64::new(0),
        }
    }

    pub(super) fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Whether a message with this id, of any sender, was opened and is here, or was processed.
    pub(crate) fn has_opened(&self, message_id: &MessageId) -> bool {
        self.queued.is_opened(message_id) || self.lock_dedup().is_any_processed(message_id)
    }

    pub(super) async fn subscribe(
        &self,
        queue: QueueName,
        prefetch: NonZeroU32,
    ) -> Result<(), RequestError> {
        let command = Command::Consume {
            queue,
            prefetch: Some(prefetch),
        };
        self.handle
            .confirm(command, |reply| matches!(reply, Reply::Subscribed))
            .await
    }

    pub(super) fn is_processed(&self, sender: Option<&ClientId>, message_id: &MessageId) -> bool {
        self.lock_dedup().is_processed(sender, message_id)
    }

    /// Repeats the ack of a message that was processed before.
    pub(super) fn skip_processed(&self, message_id: MessageId) {
        self.duplicates.fetch_add(1, Ordering::Relaxed);
        // If the connection is closed the message is redelivered, and skipped again.
        let _ = self.handle.push_acks([AckItem::repeated(message_id)]);
    }

    pub(crate) fn lock_dedup(&self) -> MutexGuard<'_, Box<dyn Deduplication>> {
        self.dedup.lock()
    }
}
