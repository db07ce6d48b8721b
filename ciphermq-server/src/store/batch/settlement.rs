//! Acks, rejections and first deliveries, applied to the batches of their messages.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ciphermq_protocol::name::NameError;
use ciphermq_protocol::{ClientId, MessageId};

use super::disposition::{Disposition, DispositionRange, TimeText, later};
use super::id::{Stream, message_id, split_id};
use super::{BatchRow, count, length};
use crate::model::{
    Ack, AckOutcome, Amount, HeldBySender, MessageState, Outcomes, QueueId, Rejection, Time,
    Transaction,
};
use crate::store::{Error, corrupt};

/// The batches of a transaction's messages, as far as they exist, with the changes that it makes.
#[derive(Default)]
pub(in crate::store) struct Settlement {
    entries: Vec<Entry>,
    by_stream: HashMap<Stream, BTreeMap<i64, usize>>,
    rejected: Vec<Rejected>,
    delivered: TimeText,
    settled: TimeText,
}

struct Entry {
    stream: Stream,
    batch: BatchRow,
    /// The disposition of each message, once one of them has changed.
    dispositions: Option<Vec<Option<Disposition>>>,
    /// The number of messages that are settled now.
    settled: i64,
}

/// A message that was found in a batch.
pub(super) struct Found<'a> {
    pub(super) batch: &'a BatchRow,
    pub(super) index: usize,
}

/// A message to set aside.
pub(in crate::store) struct Rejected {
    pub(in crate::store) batch: i64,
    pub(in crate::store) index: i64,
    pub(in crate::store) message_id: MessageId,
    pub(in crate::store) reason: String,
    pub(in crate::store) time: Arc<str>,
}

/// The rows that a settlement writes and removes.
#[derive(Default)]
pub(in crate::store) struct SettlementRows<'a> {
    /// Dispositions to write, each with its batch; they replace those that begin at the same index.
    pub(in crate::store) written: Vec<(i64, DispositionRange)>,
    /// Dispositions to remove, by batch and first index.
    pub(in crate::store) removed: Vec<(i64, i64)>,
    /// Batches of which nothing waits from now on.
    pub(in crate::store) finished: Vec<&'a BatchRow>,
    /// Batches of which messages are settled now, with their number.
    pub(in crate::store) settled: Vec<(&'a BatchRow, i64)>,
    /// Messages to set aside. Their batches may be among the finished ones.
    pub(in crate::store) rejected: &'a [Rejected],
}

impl Settlement {
    /// Adds a batch unless it was added before.
    ///
    /// # Errors
    ///
    /// [`NameError`] if its ids are invalid.
    pub(in crate::store) fn add(&mut self, batch: BatchRow) -> Result<(), NameError> {
        let first = message_id(&batch.stream, batch.position)?;
        self.add_to(split_id(&first).0, batch);
        Ok(())
    }

    /// Adds a batch of a stream unless it was added before.
    pub(super) fn add_to(&mut self, stream: Stream, batch: BatchRow) {
        let batches = self.by_stream.entry(stream.clone()).or_default();
        if let std::collections::btree_map::Entry::Vacant(vacant) = batches.entry(batch.position) {
            vacant.insert(self.entries.len());
            self.entries.push(Entry {
                stream,
                batch,
                dispositions: None,
                settled: 0,
            });
        }
    }

    /// Returns the batches with their new dispositions, each with its stream.
    pub(super) fn into_batches(self) -> impl Iterator<Item = (Stream, BatchRow)> {
        self.entries.into_iter().map(|entry| {
            let mut batch = entry.batch;
            if let Some(dispositions) = entry.dispositions {
                batch.dispositions = to_ranges(&dispositions);
            }
            (entry.stream, batch)
        })
    }

    fn locate(&self, id: &MessageId) -> Option<(usize, usize)> {
        let (stream, position) = split_id(id);
        let (&first, &at) = self
            .by_stream
            .get(&stream)?
            .range(..=position)
            .next_back()?;
        let index = position - first;
        (index < self.entries.get(at)?.batch.messages).then_some((at, length(index)))
    }

    pub(super) fn find(&self, id: &MessageId) -> Option<Found<'_>> {
        let (at, index) = self.locate(id)?;
        let batch = &self.entries.get(at)?.batch;
        Some(Found { batch, index })
    }

    /// Returns the state of a message; `None` also for an older server's message without a sender.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a name is invalid.
    pub(in crate::store) fn state(&self, id: &MessageId) -> Result<Option<MessageState>, Error> {
        let Some(Found { batch, index }) = self.find(id) else {
            return Ok(None);
        };
        let Some(sender) = batch.sender.as_deref() else {
            return Ok(None);
        };
        let is_settled = batch
            .dispositions
            .iter()
            .any(|run| run.contains(count(index)) && run.disposition.is_settled());
        Ok(Some(MessageState {
            sender: ClientId::new(sender).map_err(corrupt)?,
            receiver: batch
                .receiver
                .as_deref()
                .map(|receiver| ClientId::new(receiver).map_err(corrupt))
                .transpose()?,
            waiting: if is_settled {
                Vec::new()
            } else {
                batch.copies(index)
            },
        }))
    }

    /// Applies a transaction to the messages in it: acks, then rejections, then deliveries.
    pub(in crate::store) fn apply(&mut self, transaction: &Transaction, outcomes: &mut Outcomes) {
        outcomes.acks = transaction.acks.iter().map(|ack| self.ack(ack)).collect();
        outcomes.rejections = transaction
            .rejections
            .iter()
            .map(|rejection| self.reject(rejection))
            .collect();
        for (id, time) in &transaction.deliveries {
            self.deliver(id, *time);
        }
    }

    /// Records that the receiver has processed a message.
    pub(in crate::store) fn ack(&mut self, ack: &Ack) -> AckOutcome {
        self.settle(ack, |time| (Some(time), None))
            .unwrap_or_else(|why| why.ack_outcome())
    }

    /// Records that the receiver cannot use a message.
    pub(in crate::store) fn reject(&mut self, rejection: &Rejection) -> AckOutcome {
        let ack = &rejection.ack;
        match self.settle(ack, |time| (None, Some(time))) {
            Ok(outcome) => {
                if let Some((at, index)) = self.locate(&ack.message_id)
                    && let Some(entry) = self.entries.get_mut(at)
                    && let Some(Some(disposition)) = entry.disposition(index)
                    && let Some(time) = disposition.rejected.clone()
                {
                    self.rejected.push(Rejected {
                        batch: entry.batch.first_seq,
                        index: count(index),
                        message_id: ack.message_id.clone(),
                        reason: rejection.reason.clone(),
                        time,
                    });
                }
                outcome
            }
            Err(why) => why.rejection_outcome(),
        }
    }

    /// Sets aside all messages of a batch that are not settled: they have lost their last queue.
    ///
    /// One that was never delivered gets the same time for its delivery.
    ///
    /// # Errors
    ///
    /// [`NameError`] if its ids are invalid.
    pub(in crate::store) fn set_aside(
        &mut self,
        first_seq: i64,
        reason: &str,
        time: Time,
    ) -> Result<(), NameError> {
        let time = self.settled.text(time);
        let batches = self.entries.iter_mut();
        for entry in batches.filter(|entry| entry.batch.first_seq == first_seq) {
            for index in 0..length(entry.batch.messages) {
                let position = match entry.batch.position {
                    first if first < 0 => first,
                    first => first.saturating_add(count(index)),
                };
                let delivered = entry.delivered(Arc::clone(&time));
                let message_id = message_id(&entry.batch.stream, position)?;
                let Some(disposition) = entry.disposition(index) else {
                    continue;
                };
                let delivered = match disposition {
                    Some(disposition) if disposition.is_settled() => continue,
                    Some(disposition) => Arc::clone(&disposition.delivered),
                    None => delivered,
                };
                let time = later(&delivered, &time);
                *disposition = Some(Disposition {
                    delivered,
                    acknowledged: None,
                    rejected: Some(Arc::clone(&time)),
                });
                entry.settled += 1;
                self.rejected.push(Rejected {
                    batch: first_seq,
                    index: count(index),
                    message_id,
                    reason: reason.to_owned(),
                    time,
                });
            }
        }
        Ok(())
    }

    /// Records the first delivery of a message that stays unsettled for a while.
    pub(in crate::store) fn deliver(&mut self, id: &MessageId, time: Time) {
        let delivered = self.delivered.text(time);
        let Some((at, index)) = self.locate(id) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(at) else {
            return;
        };
        let delivered = entry.delivered(delivered);
        if let Some(disposition @ None) = entry.disposition(index) {
            *disposition = Some(Disposition {
                delivered,
                acknowledged: None,
                rejected: None,
            });
        }
    }

    fn settle(
        &mut self,
        ack: &Ack,
        how: impl FnOnce(Arc<str>) -> (Option<Arc<str>>, Option<Arc<str>>),
    ) -> Result<AckOutcome, Unsettled> {
        let (at, index) = self.locate(&ack.message_id).ok_or(Unsettled::Unknown)?;
        let entry = self.entries.get_mut(at).ok_or(Unsettled::Unknown)?;
        match entry.batch.receiver.as_deref() {
            // A row of an older server, which kept these messages in memory: they are gone.
            None => return Err(Unsettled::Unknown),
            Some(receiver) if receiver != ack.client_id.as_str() => {
                return Err(Unsettled::NotAuthorized);
            }
            Some(_) => {}
        }
        // The server's clock may be set back between two of these times. None may be earlier than
        // the one it follows.
        let delivered = self.delivered.text(ack.delivered_time.unwrap_or(ack.time));
        let delivered = entry.delivered(delivered);
        let time = self.settled.text(ack.time);
        let disposition = entry.disposition(index).ok_or(Unsettled::Unknown)?;
        let delivered = match disposition {
            Some(disposition) if disposition.is_settled() => {
                return Err(Unsettled::Before {
                    acknowledged: disposition.acknowledged.is_some(),
                });
            }
            Some(disposition) => Arc::clone(&disposition.delivered),
            None => delivered,
        };
        let (acknowledged, rejected) = how(later(&delivered, &time));
        *disposition = Some(Disposition {
            delivered,
            acknowledged,
            rejected,
        });
        entry.settled += 1;
        Ok(AckOutcome::Done(entry.batch.copies(index)))
    }

    /// Returns the rows to write.
    pub(in crate::store) fn rows(&self) -> SettlementRows<'_> {
        let mut entries = SettlementRows {
            rejected: &self.rejected,
            ..SettlementRows::default()
        };
        for Entry {
            batch,
            dispositions,
            settled,
            ..
        } in &self.entries
        {
            let Some(dispositions) = dispositions else {
                continue;
            };
            if *settled > 0 {
                entries.settled.push((batch, *settled));
            }
            let runs = to_ranges(dispositions);
            let begins = |from: i64| runs.binary_search_by_key(&from, |run| run.from).is_ok();
            let gone = batch.dispositions.iter().filter(|old| !begins(old.from));
            entries
                .removed
                .extend(gone.map(|old| (batch.first_seq, old.from)));
            // Not one that was finished before, of which something was acknowledged again.
            if *settled > 0
                && dispositions
                    .iter()
                    .all(|disposition| disposition.as_ref().is_some_and(Disposition::is_settled))
            {
                entries.finished.push(batch);
            }
            let new = runs
                .into_iter()
                .filter(|run| !batch.dispositions.contains(run));
            entries
                .written
                .extend(new.map(|run| (batch.first_seq, run)));
        }
        entries
    }
}

impl SettlementRows<'_> {
    /// Adds what senders hold less to what they hold.
    pub(in crate::store) fn add_held(&self, held: &mut HeldBySender) {
        for (batch, settled) in &self.settled {
            let less = Amount {
                messages: -settled,
                bytes: 0,
            };
            held.add_waiting(batch.sender.as_deref().unwrap_or_default(), less);
        }
        for batch in &self.finished {
            let less = Amount {
                messages: 0,
                bytes: -batch.bytes,
            };
            held.add_waiting(batch.sender.as_deref().unwrap_or_default(), less);
        }
    }
}

impl Entry {
    fn disposition(&mut self, index: usize) -> Option<&mut Option<Disposition>> {
        self.dispositions
            .get_or_insert_with(|| per_message(&self.batch))
            .get_mut(index)
    }

    /// Returns the time of a delivery, but not before the message was accepted.
    fn delivered(&self, time: Arc<str>) -> Arc<str> {
        match self.batch.sent_time.as_deref() {
            Some(sent) if sent > &*time => sent.into(),
            _ => time,
        }
    }
}

/// The reason why an ack or a rejection settles nothing.
enum Unsettled {
    Unknown,
    NotAuthorized,
    Before { acknowledged: bool },
}

impl Unsettled {
    fn ack_outcome(self) -> AckOutcome {
        match self {
            Self::Unknown => AckOutcome::NotFound,
            Self::NotAuthorized => AckOutcome::NotAuthorized,
            Self::Before { .. } => AckOutcome::AlreadyDone,
        }
    }

    /// Returns the outcome of a rejection: a message that was acked cannot be rejected any more.
    fn rejection_outcome(self) -> AckOutcome {
        match self {
            Self::Before { acknowledged: true } => AckOutcome::NotFound,
            other => other.ack_outcome(),
        }
    }
}

/// Expands a batch's dispositions to one for each message.
fn per_message(batch: &BatchRow) -> Vec<Option<Disposition>> {
    let mut dispositions = vec![None; length(batch.messages)];
    for run in &batch.dispositions {
        let (from, messages) = (length(run.from), length(run.messages));
        for disposition in dispositions.iter_mut().skip(from).take(messages) {
            *disposition = Some(run.disposition.clone());
        }
    }
    dispositions
}

/// Groups dispositions into as few ranges as possible.
fn to_ranges(dispositions: &[Option<Disposition>]) -> Vec<DispositionRange> {
    let mut runs: Vec<DispositionRange> = Vec::new();
    for (from, disposition) in (0..).zip(dispositions) {
        let Some(disposition) = disposition else {
            continue;
        };
        match runs.last_mut() {
            Some(run) if run.from + run.messages == from && run.disposition == *disposition => {
                run.messages += 1;
            }
            _ => runs.push(DispositionRange {
                from,
                messages: 1,
                disposition: disposition.clone(),
            }),
        }
    }
    runs
}

/// Returns the queues and the receiver of the lanes that a finished batch leaves.
pub(in crate::store) fn lanes(batch: &BatchRow) -> impl Iterator<Item = (QueueId, &str)> {
    let receiver = batch.receiver.as_deref().unwrap_or_default();
    batch.queues.iter().map(move |&queue| (queue, receiver))
}

#[cfg(test)]
mod tests;
