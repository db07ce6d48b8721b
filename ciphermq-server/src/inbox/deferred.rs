//! Deferred messages: all others that wait go first, and these come again after a growing delay.
//!
//! A message is deferred for one of two reasons: it came back too often from connections that were
//! lost, or a connection that lives did not answer it in time. The second happens to messages that
//! their receiver cannot open and, being of an older generation, does not reject: at the head of a
//! lane each of them would hold up all others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::ConnectionId;
use super::waiting::{Lapse, Waiting};
use crate::model::Seq;

/// The first delay; it doubles each further time.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(300);

/// A message that was not answered in time.
#[derive(Debug)]
pub(super) struct Lapsed {
    pub(super) seq: Seq,
    pub(super) waiting: Waiting,
    pub(super) lapse: Lapse,
}

impl Lapsed {
    /// Returns the message as it waits if its holder has discarded it, so that its lapses since
    /// the `answered_tag` do not count.
    pub(super) fn into_missed(self, answered_tag: u64) -> Waiting {
        Waiting {
            lapses: self.waiting.lapses.without(self.lapse.holder, answered_tag),
            missed_by: Some(self.lapse.holder),
            ..self.waiting
        }
    }
}

#[derive(Debug)]
struct Parked {
    waiting: Waiting,
    due: Instant,
    lapse: Option<Lapse>,
    /// Whether anything was received from the lapse's holder since.
    holder_lives: bool,
}

/// The deferred messages of a lane, by sequence number and by the time when they are due.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    parked: BTreeMap<Seq, Parked>,
    due: BTreeSet<(Instant, Seq)>,
}

impl Deferred {
    /// Returns the delay of a message; `None` if it need not be deferred.
    pub(super) fn delay(waiting: &Waiting, max_redeliveries: u32) -> Option<Duration> {
        let doubled = |times: u32| {
            FIRST_DELAY
                .saturating_mul(1 << times.min(16))
                .min(LONGEST_DELAY)
        };
        // The first time the other messages are all that it waits for.
        let lapsed = match waiting.lapses.count() {
            0 => None,
            1 => Some(Duration::ZERO),
            lapses => Some(doubled(lapses - 2)),
        };
        let lost = waiting.attempts.checked_sub(max_redeliveries).map(doubled);
        lapsed.max(lost)
    }

    pub(super) fn insert(
        &mut self,
        seq: Seq,
        waiting: Waiting,
        due: Instant,
        lapse: Option<Lapse>,
    ) {
        let due = lapse
            .as_ref()
            .map_or(due, |lapse| due.max(lapse.kept_until));
        self.due.insert((due, seq));
        let parked = Parked {
            waiting,
            due,
            lapse,
            holder_lives: false,
        };
        self.parked.insert(seq, parked);
    }

    /// Takes out a message that is gone; returns it if it lapsed.
    pub(super) fn remove(&mut self, seq: Seq) -> Option<Lapsed> {
        let parked = self.parked.remove(&seq)?;
        self.due.remove(&(parked.due, seq));
        Some(Lapsed {
            seq,
            waiting: parked.waiting,
            lapse: parked.lapse?,
        })
    }

    /// Takes out messages that are gone, up to one.
    pub(super) fn remove_up_to(&mut self, up_to: Seq) {
        self.parked.retain(|seq, _| *seq > up_to);
        self.due.retain(|(_, seq)| *seq > up_to);
    }

    /// Takes the message that has been due for longest.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Seq, Waiting)> {
        let first = *self.due.first()?;
        if first.0 > now {
            return None;
        }
        self.due.remove(&first);
        Some((first.1, self.parked.remove(&first.1)?.waiting))
    }

    pub(super) fn has_due(&self, now: Instant) -> bool {
        self.due.first().is_some_and(|(due, _)| *due <= now)
    }

    /// The connection lives: what it did not answer stays aside when it ends.
    pub(super) fn touch(&mut self, connection: ConnectionId) {
        let lapsed = self.parked.values_mut().filter(|parked| {
            let lapse = parked.lapse.as_ref();
            lapse.is_some_and(|lapse| lapse.holder == connection)
        });
        for parked in lapsed {
            parked.holder_lives = true;
        }
    }

    /// Takes what the connection did not answer, and has said nothing after.
    pub(super) fn take_silent(&mut self, connection: ConnectionId) -> Vec<(Seq, Waiting)> {
        let silent = self.take(|parked, lapse| !parked.holder_lives && lapse.holder == connection);
        let waiting = silent
            .into_iter()
            .map(|(seq, parked)| (seq, parked.waiting));
        waiting.collect()
    }

    /// Takes what the connection did not answer, and got after the delivery with this tag.
    pub(super) fn take_later(
        &mut self,
        connection: ConnectionId,
        delivery_tag: u64,
    ) -> Vec<Lapsed> {
        let later =
            self.take(|_, lapse| lapse.holder == connection && lapse.delivery_tag > delivery_tag);
        let lapsed = later.into_iter();
        lapsed
            .filter_map(|(seq, parked)| {
                Some(Lapsed {
                    seq,
                    waiting: parked.waiting,
                    lapse: parked.lapse?,
                })
            })
            .collect()
    }

    /// Nobody holds what the connection did not answer any more: it is due after its delay alone.
    pub(super) fn release(&mut self, connection: ConnectionId, now: Instant) {
        let held = self.take(|_, lapse| lapse.holder == connection);
        for (seq, parked) in held {
            let delay = Self::delay(&parked.waiting, u32::MAX).unwrap_or_default();
            self.insert(seq, parked.waiting, parked.due.min(now + delay), None);
        }
    }

    fn take(&mut self, which: impl Fn(&Parked, &Lapse) -> bool) -> Vec<(Seq, Parked)> {
        let taken: Vec<(Seq, Parked)> = self
            .parked
            .extract_if(.., |_, parked| {
                parked
                    .lapse
                    .as_ref()
                    .is_some_and(|lapse| which(parked, lapse))
            })
            .collect();
        for (seq, parked) in &taken {
            self.due.remove(&(parked.due, *seq));
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.parked.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.parked.values().map(|parked| &parked.waiting)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiting> {
        self.parked.values_mut().map(|parked| &mut parked.waiting)
    }
}
