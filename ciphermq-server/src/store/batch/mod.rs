//! The storage layout of messages that both databases follow, without SQL.
//!
//! Messages are stored in batches: those that one commit accepts from one sender, for one receiver,
//! by one route, under consecutive ids.
//!
//! ```text
//!   publishes ──► accept ──► batches ─────────► envelopes, until all of them are settled
//!                               │
//!   acks, rejections ──► settlement ── dispositions: ranges of messages with the same times
//!                               │
//!   lanes ◄── select ◄──────────┘
//! ```
//!
//! A batch costs a few rows, however many messages it holds. Each message nevertheless has its own
//! id, ack, lease and times: it is the `index`th of its batch. Its copy for the `copy`th of its
//! queues has the sequence number `first_seq + index * copies + copy`.
//!
//! - `id`: message ids as streams and positions
//! - [`accept`]: from publishes to batches
//! - [`disposition`]: delivered, acknowledged, rejected
//! - [`settlement`]: acks and rejections
//! - [`tail_cache`]: batches that need not be looked up
//! - [`select`]: from batches back to messages
//! - [`forget`]: old batches
//! - [`removal`]: the messages of deleted and purged queues
//! - [`check`]: what must be true of the rows
//! - [`list`]: pages of queues, exchanges and bindings
//! - [`live`]: messages whose queues were deleted meanwhile

pub(super) mod accept;
pub(super) mod check;
pub(super) mod disposition;
pub(super) mod forget;
pub(super) mod id;
pub(super) mod list;
pub(super) mod live;
pub(super) mod removal;
pub(super) mod select;
pub(super) mod settlement;
pub(super) mod tail_cache;

use crate::model::{QueueId, Seq};
use disposition::DispositionRange;

/// The most messages of a batch. A search for the batch of an id goes back by as many positions.
pub(super) const MAX_MESSAGES: usize = 128;

/// The number of bytes after which a batch takes no further message: all of them stay on the disk
/// until the whole batch is settled, and are read together.
pub(super) const MAX_BYTES: usize = 128 * 1024;

/// A batch as the database stores it, without its envelopes.
#[derive(Debug, Clone)]
pub(super) struct BatchRow {
    /// The sequence number of the first message's first copy. It identifies the batch.
    pub(super) first_seq: i64,
    pub(super) messages: i64,
    /// The queues that each of its messages went to.
    pub(super) queues: Vec<QueueId>,
    /// The common part of its ids; see [`id`].
    pub(super) stream: String,
    /// The first message's position in the stream.
    pub(super) position: i64,
    /// The sender; `None`, like the three fields below, in rows of older servers.
    pub(super) sender: Option<String>,
    pub(super) receiver: Option<String>,
    /// The exchange and the routing key.
    pub(super) route: Option<(String, String)>,
    pub(super) sent_time: Option<String>,
    pub(super) has_suite: bool,
    /// SHA-256 of each envelope, concatenated; `None` where a suite makes it needless.
    pub(super) digests: Option<Vec<u8>>,
    /// The size of its envelopes, as they are stored.
    pub(super) bytes: i64,
    /// The dispositions of its messages, in order.
    pub(super) dispositions: Vec<DispositionRange>,
}

impl BatchRow {
    /// Returns the queues and sequence numbers of a message's copies, whether they still wait or
    /// not.
    pub(super) fn copies(&self, index: usize) -> Vec<(QueueId, Seq)> {
        let copies = count(self.queues.len());
        let first = self
            .first_seq
            .saturating_add(count(index).saturating_mul(copies));
        self.queues
            .iter()
            .zip(first..)
            .map(|(&queue, seq)| (queue, Seq(seq)))
            .collect()
    }

    fn digest(&self, index: usize) -> Option<&[u8]> {
        let digests = self.digests.as_deref()?;
        digests.get(index * 32..index * 32 + 32)
    }
}

/// Converts a length to a count of the databases, which know signed 64-bit integers only.
pub(super) fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Converts a count of the databases to a length; 0 if it is negative.
pub(super) fn length(count: i64) -> usize {
    usize::try_from(count).unwrap_or_default()
}

/// Formats queues as the databases store them, a JSON list.
pub(super) fn queues_text(queues: &[QueueId]) -> String {
    let numbers: Vec<String> = queues.iter().map(|queue| queue.0.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

/// Parses the JSON list of [`queues_text`].
pub(super) fn queues(text: &str) -> Result<Vec<QueueId>, serde_json::Error> {
    let numbers: Vec<i64> = serde_json::from_str(text)?;
    Ok(numbers.into_iter().map(QueueId).collect())
}
