//! The invariants of batches, and of the rows that belong to them.
//!
//! A check reads what anybody may have written, so nothing here is taken for granted: a row that
//! breaks a rule is reported, and the check goes on.

use bytes::Bytes;
use ciphermq_protocol::Envelope;
use ciphermq_protocol::envelope::EnvelopeBytes;
use sha2::{Digest as _, Sha256};

use super::disposition::{DispositionRange, disposition_ranges};
use super::id::message_id;
use super::select::parse_ends;
use super::{MAX_MESSAGES, count, length, queues};
use crate::store::offline::{Fault, Report};

/// What to do about a row of which the rest is lost.
const RESTORE: &str = "restore the database from a backup, or see what the sender can send again";
/// What to do about rows that contradict each other.
const INCONSISTENT: &str = "somebody else has written to the database, or it is damaged: restore \
                            it from a backup";
/// What to do about a row that only takes space.
pub(in crate::store) const NEEDLESS: &str = "stop the server and delete the row: nothing needs it";
/// What to do about rows that tell what became of messages.
const TIMES: &str = "it misleads people only: correct it while the server is stopped, or leave it";

/// A batch with its envelopes and dispositions, as they are stored.
#[derive(Debug, Default)]
pub(in crate::store) struct StoredBatch {
    pub(in crate::store) first_seq: i64,
    pub(in crate::store) messages: i64,
    /// A JSON list.
    pub(in crate::store) queues: String,
    pub(in crate::store) stream: String,
    pub(in crate::store) position: i64,
    /// `None`, like the sender, in rows of older servers.
    pub(in crate::store) receiver: Option<String>,
    pub(in crate::store) sent_time: Option<String>,
    pub(in crate::store) digests: Option<Vec<u8>>,
    /// `None` in a schema that does not have it.
    pub(in crate::store) bytes: Option<i64>,
    /// A JSON list, made by the database.
    pub(in crate::store) dispositions: String,
    pub(in crate::store) envelopes: Option<StoredEnvelopes>,
    /// The number of queues in which it waits.
    pub(in crate::store) lanes: i64,
}

/// The envelopes of a batch.
#[derive(Debug)]
pub(in crate::store) struct StoredEnvelopes {
    /// A JSON list.
    pub(in crate::store) ends: String,
    pub(in crate::store) own: Vec<u8>,
    pub(in crate::store) shared: Option<Vec<u8>>,
}

/// A row of `waiting`, with what it refers to.
#[derive(Debug)]
pub(in crate::store) struct StoredLane {
    pub(in crate::store) queue: i64,
    pub(in crate::store) receiver: String,
    pub(in crate::store) first_seq: i64,
    pub(in crate::store) copy: i64,
    /// The batch's queues, a JSON list; `None` if there is no batch.
    pub(in crate::store) queues: Option<String>,
    /// The batch's receiver.
    pub(in crate::store) batch_receiver: Option<String>,
    pub(in crate::store) has_envelopes: bool,
    /// Whether the queue exists, or is being emptied after it was deleted.
    pub(in crate::store) has_queue: bool,
}

/// Checks batches in the order of their numbers.
pub(in crate::store) struct BatchCheck {
    /// The last sequence number that was given.
    last_seq: i64,
    /// The number after the last one of the batch before.
    next: i64,
    pub(in crate::store) batches: u64,
    pub(in crate::store) waiting: i64,
}

impl BatchCheck {
    /// Begins with the number that the server gave last.
    pub(in crate::store) fn new(last_seq: i64) -> Self {
        Self {
            last_seq,
            next: i64::MIN,
            batches: 0,
            waiting: 0,
        }
    }

    /// Checks a batch and what belongs to it.
    pub(in crate::store) fn batch(&mut self, batch: &StoredBatch, report: Report<'_>) {
        self.batches += 1;
        let mut fault = |table: &'static str, what: String, advice: &'static str| {
            report(Fault {
                table,
                key: format!("first_seq {}", batch.first_seq),
                what,
                advice,
            });
        };
        let messages = batch.messages;
        if !(1..=count(MAX_MESSAGES)).contains(&messages) || batch.position < 0 && messages != 1 {
            fault(
                "batches",
                format!("it has {messages} messages at position {}", batch.position),
                INCONSISTENT,
            );
            return;
        }
        let copies = match queues(&batch.queues) {
            Ok(queues) => count(queues.len()),
            Err(error) => {
                let what = format!("its queues cannot be read: {error}");
                fault("batches", what, INCONSISTENT);
                return;
            }
        };
        // Those of older servers have neither queues nor numbers of their own.
        let is_older = batch.receiver.is_none();
        if !is_older {
            if copies == 0 {
                fault("batches", "it has no queues".into(), INCONSISTENT);
                return;
            }
            let end = batch
                .first_seq
                .saturating_add(messages.saturating_mul(copies));
            if batch.first_seq < self.next {
                let what = "its sequence numbers overlap those of the batch before it".into();
                fault("batches", what, INCONSISTENT);
            }
            if end.saturating_sub(1) > self.last_seq {
                let what = format!(
                    "its sequence numbers go beyond the last one, {}, in server_state",
                    self.last_seq
                );
                fault("batches", what, INCONSISTENT);
            }
            self.next = end.max(self.next);
        }
        if let Some(digests) = &batch.digests
            && digests.len() != length(messages) * 32
        {
            let what = format!(
                "it has {} bytes of digests for {messages} messages",
                digests.len()
            );
            fault("batches", what, INCONSISTENT);
        }
        let settled = match disposition_ranges(&batch.dispositions) {
            Ok(ranges) => check_ranges(batch, &ranges, is_older, &mut fault),
            Err(error) => {
                let what = format!("what became of its messages cannot be read: {error}");
                fault("fates", what, INCONSISTENT);
                return;
            }
        };
        let open = messages - settled;
        if is_older {
            return;
        }
        if open > 0 {
            self.waiting += open;
            if batch.lanes == 0 {
                let what = format!("{open} of its messages wait, and no row of waiting has them");
                fault("batches", what, RESTORE);
            }
            if batch.envelopes.is_none() {
                let what = format!("{open} of its messages wait, and their envelopes are missing");
                fault("envelopes", what, RESTORE);
            }
        } else {
            if batch.lanes > 0 {
                let what = "none of its messages waits, and a row of waiting has them".into();
                fault("waiting", what, NEEDLESS);
            }
            if batch.envelopes.is_some() {
                let what = "none of its messages waits, and its envelopes are still there".into();
                fault("envelopes", what, NEEDLESS);
            }
        }
        if let Some(envelopes) = &batch.envelopes {
            check_envelopes(batch, envelopes, &mut fault);
        }
    }
}

/// Checks dispositions, and returns how many messages are settled.
fn check_ranges(
    batch: &StoredBatch,
    ranges: &[DispositionRange],
    is_older: bool,
    fault: &mut impl FnMut(&'static str, String, &'static str),
) -> i64 {
    let (mut next, mut settled) = (0, 0);
    for range in ranges {
        let end = range.from.saturating_add(range.messages);
        if range.from < 0 || range.messages < 1 || end > batch.messages {
            let what = format!(
                "from_index {} with {} messages is not within its {}",
                range.from, range.messages, batch.messages
            );
            fault("fates", what, INCONSISTENT);
            continue;
        }
        if range.from < next {
            let what = format!("from_index {} overlaps the row before it", range.from);
            fault("fates", what, INCONSISTENT);
            continue;
        }
        next = end;
        let disposition = &range.disposition;
        if disposition.is_settled() {
            settled += range.messages;
        }
        let (acknowledged, rejected) = (&disposition.acknowledged, &disposition.rejected);
        if acknowledged.is_some() && rejected.is_some() {
            let what = format!(
                "from_index {} is both acknowledged and rejected",
                range.from
            );
            fault("fates", what, INCONSISTENT);
        }
        // Older servers wrote times in another form.
        let sent = batch.sent_time.as_deref().filter(|_| !is_older);
        let ends = acknowledged.iter().chain(rejected);
        if sent.is_some_and(|sent| &*disposition.delivered < sent)
            || ends
                .into_iter()
                .any(|end| !is_older && *end < disposition.delivered)
        {
            let what = format!(
                "from_index {} has times that go back: sent {}, delivered {}, acknowledged or \
                 rejected {}",
                range.from,
                sent.unwrap_or("?"),
                disposition.delivered,
                acknowledged
                    .as_ref()
                    .or(rejected.as_ref())
                    .map_or("not", |time| &**time),
            );
            fault("fates", what, TIMES);
        }
    }
    settled
}

/// Checks that the envelopes are those of the batch's messages.
fn check_envelopes(
    batch: &StoredBatch,
    envelopes: &StoredEnvelopes,
    fault: &mut impl FnMut(&'static str, String, &'static str),
) {
    let own = &envelopes.own;
    let shared = envelopes.shared.clone().map(Bytes::from);
    let size = count(own.len()) + count(shared.as_ref().map_or(0, Bytes::len));
    if let Some(bytes) = batch.bytes.filter(|bytes| *bytes != size) {
        let what = format!("its envelopes have {size} bytes, and batches.bytes is {bytes}");
        fault("batches", what, INCONSISTENT);
    }
    let ends = match parse_ends(&envelopes.ends) {
        Ok(ends) => ends,
        Err(error) => {
            let what = format!("ends cannot be read: {error}");
            fault("envelopes", what, RESTORE);
            return;
        }
    };
    let fits = ends.len() == length(batch.messages)
        && ends.is_sorted_by(|one, next| one < next)
        && ends.first().is_some_and(|first| *first > 0)
        && ends.last() == Some(&count(own.len()));
    if !fits {
        let what = format!(
            "ends does not cut its {} bytes into the envelopes of {} messages",
            own.len(),
            batch.messages
        );
        fault("envelopes", what, RESTORE);
        return;
    }
    let mut start = 0;
    for (index, end) in ends.into_iter().map(length).enumerate() {
        let piece = own.get(start..end).unwrap_or_default();
        start = end;
        let piece = Bytes::copy_from_slice(piece);
        let envelope = match &shared {
            Some(shared) => EnvelopeBytes::packed(piece, shared.clone()),
            None => piece.into(),
        };
        if let Err(what) = check_envelope(batch, index, envelope.to_bytes()) {
            fault("envelopes", what, RESTORE);
        }
    }
}

/// Checks that an envelope is that of its message.
fn check_envelope(batch: &StoredBatch, index: usize, envelope: Bytes) -> Result<(), String> {
    let position = match batch.position {
        first if first < 0 => first,
        first => first.saturating_add(count(index)),
    };
    let id = message_id(&batch.stream, position)
        .map_err(|error| format!("the id of its message {index} is invalid: {error}"))?;
    if let Some(digests) = &batch.digests
        && let Some(digest) = digests.get(index * 32..index * 32 + 32)
        && Sha256::digest(&envelope)[..] != *digest
    {
        return Err(format!("the envelope of message {id} has changed"));
    }
    let envelope = Envelope::parse(envelope)
        .map_err(|error| format!("the envelope of message {id} cannot be read: {error}"))?;
    if envelope.message_id != id {
        return Err(format!(
            "the envelope of message {id} is that of {}",
            envelope.message_id
        ));
    }
    if batch.receiver.as_deref() != Some(envelope.receiver_client_id.as_str()) {
        return Err(format!(
            "the envelope of message {id} is for {}",
            envelope.receiver_client_id
        ));
    }
    Ok(())
}

/// Checks a row of `waiting`.
pub(in crate::store) fn check_lane(lane: &StoredLane, report: Report<'_>) {
    let mut fault = |what: &str, advice: &'static str| {
        report(Fault {
            table: "waiting",
            key: format!(
                "queue_id {}, receiver_client_id {}, first_seq {}",
                lane.queue, lane.receiver, lane.first_seq
            ),
            what: what.to_owned(),
            advice,
        });
    };
    let Some(of_batch) = &lane.queues else {
        fault("its batch is missing", RESTORE);
        return;
    };
    if !lane.has_envelopes {
        fault("its envelopes are missing", RESTORE);
    }
    if !lane.has_queue {
        fault("its queue does not exist", INCONSISTENT);
    }
    if lane.batch_receiver.as_deref() != Some(&lane.receiver) {
        fault("its batch is for another receiver", INCONSISTENT);
    }
    let queue = queues(of_batch)
        .ok()
        .and_then(|queues| queues.get(usize::try_from(lane.copy).ok()?).copied());
    if queue.map(|queue| queue.0) != Some(lane.queue) {
        fault("its batch has another queue at this copy", INCONSISTENT);
    }
}

#[cfg(test)]
mod tests;
