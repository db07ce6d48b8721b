//! Messages that step aside: everything else that waits goes first, and they come again after a
//! growing delay.
//!
//! A message gets here in two ways: it came back too often from connections that were lost, or a
//! connection that lives did not answer it in time. The second happens to messages that their
//! receiver cannot open and, being of an older generation, does not reject: at the head of a lane
//! each of them would hold up all others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::ConnectionId;
use super::lane::Waiting;
use crate::model::Seq;

/// How long a message waits aside; doubled each further time.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// How long it waits at most.
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// So many messages may step aside fast. Each costs memory, and a receiver that can open nothing at
/// all would bring all that waits for it here.
const MOST: usize = 4096;

/// How a message came to lapse.
#[derive(Debug, Clone)]
pub(super) struct Lapse {
    /// Who did not answer it.
    pub(super) holder: ConnectionId,
    /// When it was handed out.
    pub(super) since: Instant,
    /// Its number among all that were handed out.
    pub(super) delivery_tag: u64,
}

#[derive(Debug)]
struct Parked {
    waiting: Waiting,
    due: Instant,
    /// Who did not answer it and has said nothing since.
    lapse: Option<Lapse>,
    heard: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    parked: BTreeMap<Seq, Parked>,
    due: BTreeSet<(Instant, Seq)>,
}

impl Deferred {
    /// How long a message waits aside; `None` if it need not.
    pub(super) fn delay(waiting: &Waiting, max_redeliveries: u32) -> Option<Duration> {
        let doubled = |times: u32| {
            FIRST_DELAY
                .saturating_mul(1 << times.min(16))
                .min(LONGEST_DELAY)
        };
        // The first time nothing is to be waited for but the others.
        let lapsed = match waiting.lapses {
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
        self.due.insert((due, seq));
        let parked = Parked {
            waiting,
            due,
            lapse,
            heard: false,
        };
        self.parked.insert(seq, parked);
    }

    /// Takes out a message that is gone; returns how it lapsed.
    pub(super) fn remove(&mut self, seq: Seq) -> Option<Lapse> {
        let parked = self.parked.remove(&seq)?;
        self.due.remove(&(parked.due, seq));
        parked.lapse
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
            parked.heard = true;
        }
    }

    /// Takes what the connection did not answer, and has said nothing after.
    pub(super) fn take_silent(&mut self, connection: ConnectionId) -> Vec<(Seq, Waiting)> {
        let silent = self.parked.extract_if(.., |_, parked| {
            let lapse = parked.lapse.as_ref();
            !parked.heard && lapse.is_some_and(|lapse| lapse.holder == connection)
        });
        let silent: Vec<(Seq, Parked)> = silent.collect();
        let take = |(seq, parked): (Seq, Parked)| {
            self.due.remove(&(parked.due, seq));
            (seq, parked.waiting)
        };
        silent.into_iter().map(take).collect()
    }

    /// Whether no more may step aside fast.
    pub(super) fn is_full(&self) -> bool {
        self.parked.len() >= MOST
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
