//! Splits transactions, and joins the outcomes of their parts.

use std::sync::Arc;

use super::{CommitObserver, Settled, WriteError};
use crate::model::{
    Ack, AckOutcome, ChangeOutcome, Outcomes, Publish, PublishOutcome, Seq, Transaction,
};

/// The results of a batch's items, kind by kind, in order.
#[derive(Default)]
pub(super) struct Results {
    pub(super) changes: Vec<Result<ChangeOutcome, WriteError>>,
    pub(super) publishes: Vec<Result<PublishOutcome, WriteError>>,
    pub(super) acks: Vec<Result<AckOutcome, WriteError>>,
    pub(super) rejections: Vec<Result<AckOutcome, WriteError>>,
}

impl Results {
    /// Adds the outcomes of a part, after the observer has seen them.
    pub(super) fn committed(
        &mut self,
        part: &Transaction,
        outcomes: Outcomes,
        observer: &dyn CommitObserver,
    ) {
        observer.held(&outcomes.held);
        let mut narrowed = outcomes.narrowed.iter().peekable();
        let stored: Vec<(Arc<Publish>, Seq)> = part
            .publishes
            .iter()
            .zip(&outcomes.publishes)
            .enumerate()
            .filter_map(|(at, (publish, outcome))| {
                let narrowed = narrowed.next_if(|(narrowed, _)| *narrowed == at);
                let publish = narrowed.map_or(publish, |(_, publish)| publish);
                match outcome {
                    PublishOutcome::Stored { first } => Some((Arc::clone(publish), *first)),
                    PublishOutcome::Duplicate
                    | PublishOutcome::IdInUse
                    | PublishOutcome::NoQueue
                    | PublishOutcome::Excess(_) => None,
                }
            })
            .collect();
        let acked: Vec<Settled<'_>> = part.acks.iter().zip(&outcomes.acks).collect();
        let rejected: Vec<Settled<'_>> = rejecting(part).zip(&outcomes.rejections).collect();
        if !stored.is_empty() || !acked.is_empty() || !rejected.is_empty() {
            observer.committed(&stored, &acked, &rejected);
        }
        if !part.changes.is_empty() {
            observer.changed(&part.changes, &outcomes.changes);
        }
        self.changes.extend(outcomes.changes.into_iter().map(Ok));
        self.publishes
            .extend(outcomes.publishes.into_iter().map(Ok));
        self.acks.extend(outcomes.acks.into_iter().map(Ok));
        self.rejections
            .extend(outcomes.rejections.into_iter().map(Ok));
    }

    /// Whether no message is stored so far.
    pub(super) fn has_stored_none(&self) -> bool {
        self.publishes.iter().all(Result::is_err)
    }

    /// Adds a part of one item that the database refuses.
    pub(super) fn refused(&mut self, part: &Transaction, why: &str, observer: &dyn CommitObserver) {
        let error = WriteError::Refused(why.into());
        let not_found = |ack| (ack, &AckOutcome::NotFound);
        let acked: Vec<Settled<'_>> = part.acks.iter().map(not_found).collect();
        let rejected: Vec<Settled<'_>> = rejecting(part).map(not_found).collect();
        if !acked.is_empty() || !rejected.is_empty() {
            observer.committed(&[], &acked, &rejected);
        }
        self.changes
            .extend(part.changes.iter().map(|_| Err(error.clone())));
        self.publishes_failed(part, &error);
        self.acks
            .extend(part.acks.iter().map(|_| Err(error.clone())));
        self.rejections
            .extend(part.rejections.iter().map(|_| Err(error.clone())));
    }

    /// Adds a part's publishes as not written.
    pub(super) fn publishes_failed(&mut self, part: &Transaction, error: &WriteError) {
        self.publishes
            .extend(part.publishes.iter().map(|_| Err(error.clone())));
    }
}

fn rejecting(part: &Transaction) -> impl Iterator<Item = &Ack> {
    part.rejections.iter().map(|rejection| &rejection.ack)
}

/// Returns the number of items in a transaction.
pub(super) fn len(transaction: &Transaction) -> usize {
    let Transaction {
        changes,
        publishes,
        acks,
        rejections,
        deliveries,
        rooms: _,
    } = transaction;
    changes.len() + publishes.len() + acks.len() + rejections.len() + deliveries.len()
}

/// Halves a transaction of more than one item. The halves, one after the other, do what the whole
/// would have done.
pub(super) fn split(mut whole: Transaction) -> (Transaction, Transaction) {
    let mut first = Transaction::default();
    let half = len(&whole) / 2;
    let mut wanted = half;
    take(&mut wanted, &mut whole.changes, &mut first.changes);
    take(&mut wanted, &mut whole.publishes, &mut first.publishes);
    take(&mut wanted, &mut whole.acks, &mut first.acks);
    take(&mut wanted, &mut whole.rejections, &mut first.rejections);
    take(&mut wanted, &mut whole.deliveries, &mut first.deliveries);
    (first, whole)
}

/// Moves items from the front of `from` until no more are wanted.
fn take<T>(wanted: &mut usize, from: &mut Vec<T>, to: &mut Vec<T>) {
    let count = from.len().min(*wanted);
    to.extend(from.drain(..count));
    *wanted -= count;
}
