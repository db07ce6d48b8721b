//! Selects messages from batches, and cuts their envelopes out of what is read.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use ciphermq_protocol::envelope::EnvelopeBytes;

use super::disposition::DispositionRange;
use super::id::message_id;
use super::{count, length};
use crate::model::{Page, PageLimit, Seq, StoredMessage};
use crate::store::{Error, corrupt};

/// A batch with waiting messages, as a lane or a lookup by sequence number sees it.
#[derive(Debug)]
pub(in crate::store) struct WaitingBatch {
    pub(in crate::store) first_seq: i64,
    pub(in crate::store) copies: i64,
    /// The index of the lane's copy of each message.
    pub(in crate::store) copy: i64,
    /// Whether none of the copies before this one waits any more.
    pub(in crate::store) is_first: bool,
    pub(in crate::store) stream: String,
    pub(in crate::store) position: i64,
    pub(in crate::store) sent_time: Option<String>,
    /// The end offsets of the envelopes' own pieces.
    pub(in crate::store) ends: Vec<i64>,
    /// The length of the piece that all envelopes share, which each of them has besides its own.
    pub(in crate::store) shared_bytes: i64,
    pub(in crate::store) dispositions: Vec<DispositionRange>,
}

impl WaitingBatch {
    fn seq(&self, index: usize, copy: i64) -> i64 {
        self.first_seq + count(index) * self.copies + copy
    }

    /// Returns the range of an envelope's own piece.
    fn range(&self, index: usize) -> Range<usize> {
        let end = |index: usize| self.ends.get(index).map_or(0, |&end| length(end));
        let start = index.checked_sub(1).map_or(0, end);
        start..end(index).max(start)
    }

    fn is_settled(&self, index: usize) -> bool {
        let index = count(index);
        self.dispositions
            .iter()
            .any(|run| run.contains(index) && run.disposition.is_settled())
    }

    /// Returns the index of the message with this sequence number, and the index of its copy.
    fn index(&self, seq: i64) -> Option<(usize, i64)> {
        let offset = seq
            .checked_sub(self.first_seq)
            .filter(|offset| *offset >= 0)?;
        let index = length(offset.checked_div(self.copies)?);
        (index < self.ends.len()).then_some((index, offset % self.copies))
    }
}

/// Iterates over the numbers of batches to read at a time: first as many as most pages need, then
/// ever more for lanes with small batches.
pub(in crate::store) fn read_sizes() -> impl Iterator<Item = i64> {
    std::iter::successors(Some(8), |step| Some(i64::min(step * 8, 4096)))
}

/// Parses end offsets, a JSON list.
pub(in crate::store) fn parse_ends(json: &str) -> Result<Vec<i64>, serde_json::Error> {
    serde_json::from_str(json)
}

/// A waiting message, without its envelope.
#[derive(Debug, Clone, Copy)]
struct Selected {
    batch: usize,
    index: usize,
    seq: i64,
}

/// A selected message with its envelope.
struct ReadMessage<'a> {
    selected: Selected,
    batch: &'a WaitingBatch,
    envelope: EnvelopeBytes,
}

/// Messages selected from batches, up to a limit.
#[derive(Debug)]
pub(in crate::store) struct Selection {
    limit: PageLimit,
    /// Whether only the envelopes of first copies are wanted, among those that wait.
    of_first_copies: bool,
    batches: Vec<WaitingBatch>,
    selected: Vec<Selected>,
    bytes: usize,
    more: bool,
}

/// The part of a batch's envelopes that was read.
#[derive(Debug)]
pub(in crate::store) struct EnvelopeSlice {
    /// The slice that was asked for.
    own: Bytes,
    /// The piece that all envelopes share.
    shared: Option<Bytes>,
}

impl EnvelopeSlice {
    pub(in crate::store) fn new(own: Vec<u8>, shared: Option<Vec<u8>>) -> Self {
        Self {
            own: own.into(),
            shared: shared.map(Bytes::from),
        }
    }
}

/// The part of a batch's envelopes to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Slice {
    pub(in crate::store) batch: i64,
    /// The offset, from 0.
    pub(in crate::store) start: usize,
    pub(in crate::store) length: usize,
}

impl Selection {
    pub(in crate::store) fn new(limit: PageLimit) -> Self {
        Self {
            limit,
            of_first_copies: false,
            batches: Vec::new(),
            selected: Vec::new(),
            bytes: 0,
            more: false,
        }
    }

    /// Creates a selection in which further copies of a message count, but not their envelopes.
    pub(in crate::store) fn of_first_copies(limit: PageLimit) -> Self {
        Self {
            of_first_copies: true,
            ..Self::new(limit)
        }
    }

    /// Selects the waiting messages of a lane's batch after a sequence number. Returns whether more
    /// can be selected.
    pub(in crate::store) fn select_after(&mut self, batch: WaitingBatch, after: i64) -> bool {
        let copy = batch.copy;
        let from = if after < batch.first_seq {
            0
        } else {
            length((after - batch.first_seq - copy).div_euclid(batch.copies.max(1)) + 1)
        };
        let waiting: Vec<(usize, i64)> = (from..batch.ends.len())
            .filter(|&index| !batch.is_settled(index))
            .map(|index| (index, batch.seq(index, copy)))
            .collect();
        self.select(batch, waiting)
    }

    /// Selects the waiting messages among these sequence numbers, which are in order. Returns
    /// whether more can be selected.
    pub(in crate::store) fn select_among(&mut self, batch: WaitingBatch, seqs: &[i64]) -> bool {
        let begin = seqs.partition_point(|&seq| seq < batch.first_seq);
        let waiting: Vec<(usize, i64)> = seqs
            .get(begin..)
            .unwrap_or_default()
            .iter()
            .map_while(|&seq| Some((batch.index(seq)?.0, seq)))
            .filter(|&(index, _)| !batch.is_settled(index))
            .collect();
        self.select(batch, waiting)
    }

    fn select(&mut self, batch: WaitingBatch, waiting: Vec<(usize, i64)>) -> bool {
        for (index, seq) in waiting {
            // At least one, unless the limit is no messages at all.
            let full = !self.selected.is_empty() && self.bytes >= self.limit.bytes;
            if full || self.selected.len() >= self.limit.messages {
                self.more = true;
                break;
            }
            if self.wants_envelopes(&batch) {
                self.bytes += batch.range(index).len() + length(batch.shared_bytes);
            }
            self.selected.push(Selected {
                batch: self.batches.len(),
                index,
                seq,
            });
        }
        self.batches.push(batch);
        !self.more
    }

    /// Returns the slices to read, one for each batch.
    pub(in crate::store) fn slices(&self) -> Vec<Slice> {
        let mut slices: Vec<Slice> = Vec::new();
        for choice in &self.selected {
            let batch = self
                .batches
                .get(choice.batch)
                .filter(|batch| self.wants_envelopes(batch));
            let Some(batch) = batch else { continue };
            let range = batch.range(choice.index);
            match slices.last_mut() {
                Some(slice) if slice.batch == batch.first_seq => {
                    slice.length = range.end.saturating_sub(slice.start);
                }
                _ => slices.push(Slice {
                    batch: batch.first_seq,
                    start: range.start,
                    length: range.len(),
                }),
            }
        }
        slices
    }

    /// Returns the messages, given the slices that were read, by batch. A batch that is gone by now
    /// was settled meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if an id is invalid.
    pub(in crate::store) fn page(&self, read: &HashMap<i64, EnvelopeSlice>) -> Result<Page, Error> {
        let mut messages = Vec::with_capacity(self.selected.len());
        for message in self.read(read) {
            let ReadMessage {
                selected,
                batch,
                envelope,
            } = message;
            let position = batch.position.saturating_add(count(selected.index));
            let position = if batch.position < 0 {
                batch.position
            } else {
                position
            };
            messages.push(StoredMessage {
                seq: Seq(selected.seq),
                message_id: message_id(&batch.stream, position).map_err(corrupt)?,
                envelope,
            });
        }
        Ok(Page {
            messages,
            more: self.more,
        })
    }

    /// Returns the envelopes alone, each with the time when its message was accepted.
    pub(in crate::store) fn envelopes(
        &self,
        read: &HashMap<i64, EnvelopeSlice>,
    ) -> Vec<(Option<String>, EnvelopeBytes)> {
        self.read(read)
            .map(|read| (read.batch.sent_time.clone(), read.envelope))
            .collect()
    }

    fn read<'a>(
        &'a self,
        read: &'a HashMap<i64, EnvelopeSlice>,
    ) -> impl Iterator<Item = ReadMessage<'a>> {
        let slices: HashMap<i64, usize> = self
            .slices()
            .into_iter()
            .map(|slice| (slice.batch, slice.start))
            .collect();
        self.selected.iter().filter_map(move |&choice| {
            let batch = self.batches.get(choice.batch)?;
            let EnvelopeSlice { own, shared } = read.get(&batch.first_seq)?;
            let start = *slices.get(&batch.first_seq)?;
            let range = batch.range(choice.index);
            // The receiver rejects an envelope that somebody has truncated in the database.
            let clamp = |at: usize| at.saturating_sub(start).min(own.len());
            // Copied: a message that stays in memory must not hold the whole batch there.
            let own = Bytes::copy_from_slice(own.get(clamp(range.start)..clamp(range.end))?);
            let envelope = match shared {
                Some(shared) => EnvelopeBytes::packed(own, shared.clone()),
                None => own.into(),
            };
            Some(ReadMessage {
                selected: choice,
                batch,
                envelope,
            })
        })
    }

    fn wants_envelopes(&self, batch: &WaitingBatch) -> bool {
        !self.of_first_copies || batch.is_first
    }

    /// Returns the number of selected messages.
    pub(in crate::store) fn len(&self) -> usize {
        self.selected.len()
    }

    /// Returns the sequence number of the last selected message.
    pub(in crate::store) fn last(&self) -> Option<Seq> {
        self.selected.last().map(|choice| Seq(choice.seq))
    }

    /// Whether there may be more messages beyond the limit.
    pub(in crate::store) fn has_more(&self) -> bool {
        self.more
    }
}
