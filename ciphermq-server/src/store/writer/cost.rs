//! The work that a submission is for the database.
//!
//! The unit is about a microsecond of SQLite's time, as measured with `ciphermq-cli bench` on the
//! machine of `docs/performance.md`. Only ratios matter: they decide how much of each client's work
//! is done in a turn.

use std::iter::Sum;
use std::ops::AddAssign;
use std::sync::Arc;

use ciphermq_protocol::MessageId;

use crate::model::{Ack, Publish, Rejection};
use crate::store::batch::id::{Stream, split_id};

/// The work of a client's turn.
pub(super) const TURN: u64 = 2048;

/// The work of a transaction that is worth its sync, for however few clients.
pub(super) const LEAST_BATCH: u64 = 2 * TURN;

/// The work for each message or ack, also of one whose row exists.
const ITEM: u64 = 2;
/// The work for a row, and to look up whether it exists. Consecutive ids share one.
const ROW: u64 = 20;
/// The work for each further queue of a row.
const QUEUE: u64 = 6;
/// The number of bytes that are a unit of work.
const BYTES: usize = 1024;
/// The work for a change of topology, keys or certificates.
pub(super) const CHANGE: u64 = 40;
/// The work to write when a message was first delivered.
const DELIVERY: u64 = 4;
/// The work to move a message to the rejected ones.
const REJECTION: u64 = 60;

/// The cost of a submission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Work, in the unit of this module.
    pub(super) work: u64,
    /// Bytes of envelopes.
    pub(super) bytes: usize,
}

impl Cost {
    pub(super) fn work(work: u64) -> Self {
        Self { work, bytes: 0 }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.work += other.work;
        self.bytes += other.bytes;
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |mut sum, cost| {
            sum += cost;
            sum
        })
    }
}

/// Returns the cost of writing when this many messages were first delivered.
pub(super) fn deliveries(count: usize) -> Cost {
    Cost::work(DELIVERY * count as u64)
}

/// Iterates over the costs of publishes that are committed one after the other.
pub(super) fn publishes(publishes: &[Arc<Publish>]) -> impl Iterator<Item = Cost> {
    let mut rows = Rows::default();
    publishes.iter().map(move |publish| rows.publish(publish))
}

/// Returns the cost of acks that are committed one after the other.
pub(super) fn acks(acks: &[Ack]) -> Cost {
    let mut rows = Rows::default();
    let work = acks.iter().map(|ack| match rows.begins(&ack.message_id) {
        true => ITEM + ROW,
        false => ITEM,
    });
    Cost::work(work.sum())
}

/// Returns the cost of a rejection.
pub(super) fn rejection(rejection: &Rejection) -> Cost {
    Cost::work(REJECTION + (rejection.reason.len() / BYTES) as u64)
}

/// Tells ids that continue a row from those that begin one.
#[derive(Default)]
pub(super) struct Rows {
    last: Option<(Stream, i64)>,
}

impl Rows {
    /// Returns the cost of the next publish.
    pub(super) fn publish(&mut self, publish: &Publish) -> Cost {
        let bytes = publish.envelope.raw().len();
        let mut cost = Cost {
            work: ITEM + (bytes / BYTES) as u64,
            bytes,
        };
        if self.begins(&publish.envelope.message_id) {
            cost.work += ROW + QUEUE * (publish.queues.len().saturating_sub(1) as u64);
        }
        cost
    }

    fn begins(&mut self, id: &MessageId) -> bool {
        let (stream, position) = split_id(id);
        let continues = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| position > 0 && *at + 1 == position && *last == stream);
        self.last = Some((stream, position));
        !continues
    }
}
