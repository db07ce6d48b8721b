//! What a transaction comes to, without SQL: the rules that both databases follow.

use std::collections::HashMap;
use std::sync::Arc;

use super::model::{Ack, AckOutcome, Publish, PublishOutcome, QueueId, Seq};

/// The publishes of one transaction, with those found that name an id twice.
pub(super) struct PublishPlan<'a> {
    publishes: &'a [Arc<Publish>],
    /// For each publish, where the first one with the same id stands.
    firsts: Vec<usize>,
    /// How many sequence numbers the transaction takes. Those of messages that turn out to have been
    /// accepted before stay unused.
    pub(super) copies: i64,
}

/// A message to insert, unless its id is taken.
pub(super) struct Candidate<'a> {
    pub(super) publish: &'a Publish,
    /// Its first copy's sequence number.
    pub(super) first: i64,
    pub(super) copies: i64,
}

/// One copy of a message, for one queue.
pub(super) struct CopyRow<'a> {
    pub(super) seq: i64,
    pub(super) first: i64,
    pub(super) queue: QueueId,
    pub(super) publish: &'a Publish,
    pub(super) bytes: i64,
    /// `None` on all copies but the first.
    pub(super) envelope: Option<&'a [u8]>,
}

/// What is known of a message whose id is taken.
pub(super) struct Taken {
    pub(super) sender: Option<String>,
    pub(super) digest: Option<Vec<u8>>,
    pub(super) has_suite: bool,
}

impl<'a> PublishPlan<'a> {
    pub(super) fn new(publishes: &'a [Arc<Publish>]) -> Self {
        let mut by_id = HashMap::with_capacity(publishes.len());
        let mut firsts = Vec::with_capacity(publishes.len());
        let mut copies = 0;
        for (index, publish) in publishes.iter().enumerate() {
            let first = *by_id.entry(publish.envelope.message_id.as_str()).or_insert(index);
            if first == index {
                copies += count(publish.queues.len());
            }
            firsts.push(first);
        }
        Self {
            publishes,
            firsts,
            copies,
        }
    }

    /// What to insert, numbered from `next` on.
    pub(super) fn candidates(&self, mut next: i64) -> Vec<Candidate<'a>> {
        let mut candidates = Vec::with_capacity(self.publishes.len());
        for (index, (publish, &first)) in self.publishes.iter().zip(&self.firsts).enumerate() {
            if first == index {
                let copies = count(publish.queues.len());
                candidates.push(Candidate {
                    publish,
                    first: next,
                    copies,
                });
                next += copies;
            }
        }
        candidates
    }

    /// What became of each publish, when the numbers began at `next` and the ids in `taken` were taken.
    pub(super) fn outcomes(&self, mut next: i64, taken: &HashMap<String, Taken>) -> Vec<PublishOutcome> {
        let judge = |same| {
            if same {
                PublishOutcome::Duplicate
            } else {
                PublishOutcome::IdInUse
            }
        };
        let mut outcomes = Vec::with_capacity(self.publishes.len());
        for (index, (publish, &first)) in self.publishes.iter().zip(&self.firsts).enumerate() {
            let own = Seq(next);
            if first == index {
                next += count(publish.queues.len());
            }
            outcomes.push(match taken.get(publish.envelope.message_id.as_str()) {
                Some(taken) => judge(taken.is_same(publish)),
                None if first == index => PublishOutcome::Stored { first: own },
                None => judge(
                    self.publishes
                        .get(first)
                        .is_some_and(|first| is_retry(first, publish)),
                ),
            });
        }
        outcomes
    }
}

impl<'a> Candidate<'a> {
    /// A row for each queue that the message goes to.
    pub(super) fn rows(&self) -> impl Iterator<Item = CopyRow<'a>> + use<'a> {
        let (publish, first) = (self.publish, self.first);
        let raw: &'a [u8] = publish.envelope.raw();
        publish
            .queues
            .iter()
            .zip(first..)
            .map(move |(&queue, seq)| CopyRow {
                seq,
                first,
                queue,
                publish,
                bytes: count(raw.len()),
                envelope: (seq == first).then_some(raw),
            })
    }
}

impl Taken {
    fn is_same(&self, publish: &Publish) -> bool {
        self.sender.as_deref() == Some(publish.sender.as_str())
            && (self.digest.as_deref() == Some(publish.digest.as_slice())
                || self.has_suite && publish.envelope.has_suite)
    }
}

/// Whether the second publish is the first one sent again. With a suite it may have been sealed anew; ids of
/// clients that name a suite don't collide.
fn is_retry(first: &Publish, second: &Publish) -> bool {
    first.sender == second.sender
        && (first.digest == second.digest || first.envelope.has_suite && second.envelope.has_suite)
}

/// The acks of one transaction, in rounds in which no id stands twice.
pub(super) struct AckPlan {
    /// Positions. A message that several clients ack stands in several rounds.
    pub(super) rounds: Vec<Vec<usize>>,
    /// Acks that an earlier one of the same client repeats: the ack's position, and the earlier one's.
    repeats: Vec<(usize, usize)>,
}

impl AckPlan {
    pub(super) fn new(acks: &[Ack]) -> Self {
        let mut plan = Self {
            rounds: Vec::new(),
            repeats: Vec::new(),
        };
        let mut by_id: HashMap<&str, Vec<(&str, usize)>> = HashMap::with_capacity(acks.len());
        for (index, ack) in acks.iter().enumerate() {
            let earlier = by_id.entry(ack.message_id.as_str()).or_default();
            if let Some(&(_, same)) = earlier
                .iter()
                .find(|(client, _)| *client == ack.client_id.as_str())
            {
                plan.repeats.push((index, same));
                continue;
            }
            match plan.rounds.get_mut(earlier.len()) {
                Some(round) => round.push(index),
                None => plan.rounds.push(vec![index]),
            }
            earlier.push((ack.client_id.as_str(), index));
        }
        plan
    }

    /// Puts the outcomes of the rounds, by position, into the order of the acks.
    pub(super) fn outcomes(
        &self,
        mut by_position: HashMap<usize, AckOutcome>,
        acks: usize,
    ) -> Vec<AckOutcome> {
        for (index, same) in &self.repeats {
            let outcome = match by_position.get(same) {
                Some(AckOutcome::Done(_)) | None => AckOutcome::AlreadyDone,
                Some(other) => other.clone(),
            };
            by_position.insert(*index, outcome);
        }
        // Every position is in a round or repeats one that is.
        (0..acks)
            .map(|index| by_position.remove(&index).unwrap_or(AckOutcome::NotFound))
            .collect()
    }
}

/// What is known of a message that an ack or a rejection did not remove.
pub(super) struct Fate {
    /// `None` in rows of older servers: those messages were kept in memory and are gone.
    pub(super) receiver: Option<String>,
    pub(super) acknowledged: bool,
}

impl Fate {
    pub(super) fn ack(known: Option<&Self>, ack: &Ack) -> AckOutcome {
        match known.and_then(|fate| fate.receiver.as_deref()) {
            None => AckOutcome::NotFound,
            Some(receiver) if receiver == ack.client_id.as_str() => AckOutcome::AlreadyDone,
            Some(_) => AckOutcome::NotAuthorized,
        }
    }

    /// As for an ack, but what was acked cannot be rejected any more.
    pub(super) fn rejection(known: Option<&Self>, ack: &Ack) -> AckOutcome {
        match Self::ack(known, ack) {
            AckOutcome::AlreadyDone if known.is_some_and(|fate| fate.acknowledged) => AckOutcome::NotFound,
            outcome => outcome,
        }
    }
}

/// The sequence numbers of a message's copies.
pub(super) fn seqs(first: i64, copies: i64) -> impl Iterator<Item = i64> {
    first..first.saturating_add(copies)
}

/// How many of a page's rows, given as (sequence number, envelope's size), fit into `bytes`; one at least.
pub(super) fn fitting(sizes: &[(i64, i64)], bytes: usize) -> usize {
    let mut total = 0usize;
    let full = sizes.iter().position(|&(_, size)| {
        let full = total >= bytes;
        total = total.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        full
    });
    full.unwrap_or(sizes.len()).max(1).min(sizes.len())
}

/// A length as the databases count: both know signed 64-bit integers only.
pub(super) fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
