//! Groups publishes into batches and recognises retries.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::id::{Stream, split_id};
use super::settlement::{Found, Settlement};
use super::{BatchRow, MAX_BYTES, MAX_MESSAGES, count};
use crate::model::{Amount, HeldBySender, Publish, PublishOutcome, Seq};
use crate::quota::Rooms;

/// The result of accepting a transaction's publishes.
pub(in crate::store) struct Accepted<'a> {
    /// The batches to insert.
    pub(in crate::store) batches: Vec<NewBatch<'a>>,
    /// One outcome for each publish. Sequence numbers start at 0 until [`Accepted::assign_seqs`] is
    /// called.
    pub(in crate::store) outcomes: Vec<PublishOutcome>,
    /// The number of sequence numbers that it takes.
    pub(in crate::store) copies: i64,
}

/// A batch to insert.
pub(in crate::store) struct NewBatch<'a> {
    pub(in crate::store) first_seq: i64,
    pub(in crate::store) stream: Stream,
    pub(in crate::store) position: i64,
    /// The first publish, with everything that all of them have in common.
    pub(in crate::store) first: &'a Publish,
    pub(in crate::store) publishes: Vec<&'a Publish>,
    bytes: usize,
}

/// How a publish relates to the messages that are known.
enum Verdict {
    New,
    Known(PublishOutcome),
    /// The same id as that of an earlier publish of this transaction, by its index.
    Repeats(usize),
}

impl<'a> Accepted<'a> {
    /// Recognises retries by the batches in the settlement, and groups all other publishes into
    /// batches, as far as their senders have room.
    pub(in crate::store) fn new(
        publishes: &'a [Arc<Publish>],
        settlement: &Settlement,
        rooms: &mut Rooms,
    ) -> Self {
        let mut accepted = Self {
            batches: Vec::new(),
            outcomes: Vec::with_capacity(publishes.len()),
            copies: 0,
        };
        let mut by_id = HashMap::with_capacity(publishes.len());
        for (at, publish) in publishes.iter().enumerate() {
            let first = *by_id
                .entry(publish.envelope.message_id.as_str())
                .or_insert(at);
            let verdict = match settlement.find(&publish.envelope.message_id) {
                Some(known) => Verdict::Known(duplicate_if(is_known(&known, publish))),
                None if first == at => Verdict::New,
                None => Verdict::Repeats(first),
            };
            let outcome = match verdict {
                Verdict::New => accepted.store(publish, rooms),
                Verdict::Known(outcome) => outcome,
                // The earlier one had lost its queues, or there was no room for it.
                Verdict::Repeats(first)
                    if matches!(
                        accepted.outcomes.get(first),
                        Some(PublishOutcome::NoQueue | PublishOutcome::Excess(_))
                    ) =>
                {
                    by_id.insert(publish.envelope.message_id.as_str(), at);
                    accepted.store(publish, rooms)
                }
                Verdict::Repeats(first) => duplicate_if(
                    publishes
                        .get(first)
                        .is_some_and(|first| is_retry(first, publish)),
                ),
            };
            accepted.outcomes.push(outcome);
        }
        accepted
    }

    fn store(&mut self, publish: &'a Publish, rooms: &mut Rooms) -> PublishOutcome {
        if publish.queues.is_empty() {
            return PublishOutcome::NoQueue;
        }
        let (stream, position) = split_id(&publish.envelope.message_id);
        let last = self.batches.last_mut();
        let joined = last.filter(|batch| batch.takes(&stream, position, publish));
        let raw = publish.envelope.raw();
        let bytes = match joined {
            Some(_) => raw.own().len(),
            None => raw.stored_len(),
        };
        let receiver = &publish.envelope.receiver_client_id;
        if let Err(excess) = rooms.take_message(&publish.sender, receiver, bytes as u64) {
            return PublishOutcome::Excess(excess);
        }
        let first = self.copies;
        self.copies += count(publish.queues.len());
        match joined {
            Some(batch) => batch.join(publish),
            None => self.batches.push(NewBatch {
                first_seq: first,
                stream,
                position,
                first: publish,
                publishes: vec![publish],
                bytes: raw.own().len(),
            }),
        }
        PublishOutcome::Stored { first: Seq(first) }
    }

    /// Adds what its batches take to what their senders hold.
    pub(in crate::store) fn add_held(&self, held: &mut HeldBySender) {
        for batch in &self.batches {
            let taken = Amount {
                messages: count(batch.publishes.len()),
                bytes: batch.stored_bytes(),
            };
            held.add_waiting(batch.first.sender.as_str(), taken);
        }
    }

    /// Assigns the sequence numbers from `next` on.
    pub(in crate::store) fn assign_seqs(&mut self, next: i64) {
        for batch in &mut self.batches {
            batch.first_seq += next;
        }
        for outcome in &mut self.outcomes {
            if let PublishOutcome::Stored { first } = outcome {
                first.0 += next;
            }
        }
    }
}

impl<'a> NewBatch<'a> {
    /// Whether a message can join it.
    fn takes(&self, stream: &Stream, position: i64, publish: &Publish) -> bool {
        self.publishes.len() < MAX_MESSAGES
            && self.bytes < MAX_BYTES
            && self.stream == *stream
            && self.position.saturating_add(count(self.publishes.len())) == position
            && position >= 0
            && is_alike(self.first, publish)
    }

    fn join(&mut self, publish: &'a Publish) {
        self.publishes.push(publish);
        self.bytes += publish.envelope.raw().own().len();
    }

    /// Returns the size of its envelopes, with the piece that they share.
    fn stored_bytes(&self) -> i64 {
        count(self.bytes + self.shared().map_or(0, <[u8]>::len))
    }

    /// Returns the end offsets of the envelopes' own pieces, as a JSON list.
    pub(in crate::store) fn ends(&self) -> String {
        let mut end = 0;
        let ends: Vec<String> = self
            .publishes
            .iter()
            .map(|publish| {
                end += publish.envelope.raw().own().len();
                end.to_string()
            })
            .collect();
        format!("[{}]", ends.join(","))
    }

    /// Returns the piece that all of its envelopes share.
    pub(in crate::store) fn shared(&self) -> Option<&'a [u8]> {
        self.first.envelope.raw().shared().map(Bytes::as_ref)
    }

    /// Returns its envelopes' own pieces, concatenated.
    pub(in crate::store) fn envelopes(&self) -> Vec<u8> {
        let raw: Vec<&[u8]> = self
            .publishes
            .iter()
            .map(|publish| Bytes::as_ref(publish.envelope.raw().own()))
            .collect();
        raw.concat()
    }

    pub(in crate::store) fn row(&self) -> BatchRow {
        let first = self.first;
        let digests: Option<Vec<&[u8]>> = self
            .publishes
            .iter()
            .map(|publish| publish.digest.as_ref().map(<[u8; 32]>::as_slice))
            .collect();
        BatchRow {
            first_seq: self.first_seq,
            messages: count(self.publishes.len()),
            queues: first.queues.to_vec(),
            stream: self.stream.to_string(),
            position: self.position,
            sender: Some(first.sender.to_string()),
            receiver: Some(first.envelope.receiver_client_id.to_string()),
            route: Some((first.exchange.to_string(), first.routing_key.to_string())),
            sent_time: Some(first.sent_time.to_string()),
            has_suite: first.envelope.has_suite,
            digests: digests.map(|digests| digests.concat()),
            bytes: self.stored_bytes(),
            dispositions: Vec::new(),
        }
    }
}

/// Whether two messages agree in everything that a batch stores once.
fn is_alike(a: &Publish, b: &Publish) -> bool {
    a.sent_time == b.sent_time
        && a.envelope.has_suite == b.envelope.has_suite
        && a.digest.is_some() == b.digest.is_some()
        && (Arc::ptr_eq(&a.queues, &b.queues) || a.queues == b.queues)
        && a.envelope.receiver_client_id == b.envelope.receiver_client_id
        && a.sender == b.sender
        && a.exchange == b.exchange
        && a.routing_key == b.routing_key
        && (a.envelope.raw().shares_with(b.envelope.raw())
            || a.envelope.raw().shared().is_none() && b.envelope.raw().shared().is_none())
}

fn duplicate_if(same: bool) -> PublishOutcome {
    if same {
        PublishOutcome::Duplicate
    } else {
        PublishOutcome::IdInUse
    }
}

/// Whether a publish is a retry of a known message: from the same sender, to the same receiver, by
/// the same route. A message by another route would not arrive where it should.
fn is_known(known: &Found<'_>, publish: &Publish) -> bool {
    let receiver = publish.envelope.receiver_client_id.as_str();
    let (exchange, routing_key) = (publish.exchange.as_str(), publish.routing_key.as_str());
    let is_route = |(of, by): &(String, String)| of == exchange && by == routing_key;
    known.batch.sender.as_deref() == Some(publish.sender.as_str())
        && known
            .batch
            .receiver
            .as_deref()
            .is_none_or(|known| known == receiver)
        && known.batch.route.as_ref().is_none_or(is_route)
        && (known.batch.has_suite && publish.envelope.has_suite
            || publish.digest.is_some()
                && known.batch.digest(known.index)
                    == publish.digest.as_ref().map(<[u8; 32]>::as_slice))
}

/// Whether the second publish is a retry of the first one.
///
/// A client that names a suite may have sealed it anew; the ids of such clients do not collide.
fn is_retry(first: &Publish, second: &Publish) -> bool {
    first.sender == second.sender
        && first.envelope.receiver_client_id == second.envelope.receiver_client_id
        && first.exchange == second.exchange
        && first.routing_key == second.routing_key
        && (first.envelope.has_suite && second.envelope.has_suite
            || first.digest.is_some() && first.digest == second.digest)
}
