//! Messages are stored by the batch: what one commit accepts of one sender, for one receiver, by
//! one route, under ids that follow one another. This is what both databases follow, without SQL.
//!
//! ```text
//!   publishes ──► accept ──► batches ─────────► envelopes, until all of them are settled
//!                               │
//!   acks, rejections ──► ledger ┴─ fates: runs of messages with the same times
//!                               │
//!   lanes ◄── cut ◄─────────────┘
//! ```
//!
//! Its cost is that of a few rows, however many messages it holds. Each message keeps its own id,
//! ack, lease and times nevertheless: it is the `index`th of its batch. The copy of it for the
//! `copy`th of its queues has the sequence number `first_seq + index * copies + copy`.
//!
//! Modules in reading order: `id`, how ids follow one another; [`accept`], from publishes to
//! batches; [`disposition`], what became of a batch's messages; [`settlement`], acks and rejections;
//! [`tail_cache`], batches that need not be looked up; [`select`], from batches back to messages;
//! [`forget`], what is old.

pub(super) mod accept;
pub(super) mod disposition;
pub(super) mod forget;
pub(super) mod id;
pub(super) mod select;
pub(super) mod settlement;
pub(super) mod tail_cache;

use crate::model::{QueueId, Seq};
use disposition::DispositionRange;

/// A batch has at most so many messages: whoever looks for the batch of an id looks so far back.
pub(super) const MAX_MESSAGES: usize = 128;

/// A batch takes no further message once it has so many bytes: they stay on the disk until all of
/// it is settled, and are read together.
pub(super) const MAX_BYTES: usize = 128 * 1024;

/// A batch as the database keeps it, without its envelopes.
#[derive(Debug, Clone)]
pub(super) struct BatchRow {
    /// The first message's first copy's sequence number. Names the batch.
    pub(super) first_seq: i64,
    pub(super) messages: i64,
    /// The queues that each of its messages went to.
    pub(super) queues: Vec<QueueId>,
    /// What its ids have in common; see [`id`].
    pub(super) stream: String,
    /// The first message's position in it.
    pub(super) position: i64,
    /// `None` in rows of older servers, like the three below.
    pub(super) sender: Option<String>,
    pub(super) receiver: Option<String>,
    /// The exchange and the routing key.
    pub(super) route: Option<(String, String)>,
    pub(super) sent_time: Option<String>,
    pub(super) has_suite: bool,
    /// SHA-256 of each envelope, one after the other; `None` where the suite makes up for it.
    pub(super) digests: Option<Vec<u8>>,
    /// What became of its messages, in order.
    pub(super) dispositions: Vec<DispositionRange>,
}

impl BatchRow {
    /// Where the copies of a message are, or were.
    pub(super) fn places(&self, index: usize) -> Vec<(QueueId, Seq)> {
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

/// A length as the databases count: both know signed 64-bit integers only.
pub(super) fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// A count of the databases' as a length; nothing if it is negative.
pub(super) fn length(count: i64) -> usize {
    usize::try_from(count).unwrap_or_default()
}

/// Queues as the databases keep them: a JSON list.
pub(super) fn queues_text(queues: &[QueueId]) -> String {
    let numbers: Vec<String> = queues.iter().map(|queue| queue.0.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

/// And back.
pub(super) fn queues(text: &str) -> Result<Vec<QueueId>, serde_json::Error> {
    let numbers: Vec<i64> = serde_json::from_str(text)?;
    Ok(numbers.into_iter().map(QueueId).collect())
}
