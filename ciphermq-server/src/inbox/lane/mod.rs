//! A lane: one queue's messages for one receiver, in order.
//!
//! Three places hold messages that wait, and they are emptied in this order:
//!
//! 1. `returned`: handed out before and come back, by sequence number. Their envelopes are read
//!    again.
//! 2. `fresh`: the window of messages never handed out, up to `cursor`; the store may hold more
//!    after it.
//! 3. `deferred`: come back too often, or not answered in time. All others go first.

mod consumers;
mod loading;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Instant;

use ciphermq_protocol::MessageId;
use ciphermq_protocol::envelope::EnvelopeBytes;

use super::consumer::Consumer;
use super::deferred::{Deferred, Lapsed};
use super::waiting::{Lapse, Lapses, Waiting};
use super::{Budget, ConnectionId};
use crate::model::{PageLimit, Seq, Time};

/// The most pages of messages that are kept as they are committed, while there is memory for them:
/// a receiver that lags for a moment does not read them from the store.
const KEPT_PAGES: usize = 8;
/// The most returned messages that are read again at once.
const RETURNED_PAGE: usize = 256;

/// A message that is to be delivered next.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) seq: Seq,
    pub(super) waiting: Waiting,
    pub(super) envelope: EnvelopeBytes,
}

#[derive(Debug)]
struct Fresh {
    seq: Seq,
    message_id: MessageId,
    envelope: EnvelopeBytes,
}

#[derive(Debug)]
struct Returned {
    waiting: Waiting,
    envelope: Option<EnvelopeBytes>,
}

#[derive(Debug)]
enum Loading {
    No,
    Again,
    After {
        /// Messages committed meanwhile: they follow the page, if that is the last one.
        arrivals: VecDeque<Fresh>,
        /// Whether more was committed than there was room for.
        overflown: bool,
    },
}

impl Loading {
    fn arrivals(&self) -> &VecDeque<Fresh> {
        const NONE: &VecDeque<Fresh> = &VecDeque::new();
        match self {
            Self::After { arrivals, .. } => arrivals,
            Self::No | Self::Again => NONE,
        }
    }

    /// Frees what was committed meanwhile: it is read from the store.
    fn overflow(&mut self, budget: &Budget) {
        if let Self::After {
            arrivals,
            overflown,
        } = self
        {
            budget.give(arrivals.iter().map(|arrival| arrival.envelope.len()).sum());
            *arrivals = VecDeque::new();
            *overflown = true;
        }
    }
}

/// One queue's messages for one receiver.
#[derive(Debug)]
pub(super) struct Lane {
    /// The highest sequence number that has been in memory.
    cursor: Seq,
    /// Whether the store may hold messages after the cursor.
    more: bool,
    loading: Loading,
    /// Messages removed while a read was under way, which may still have seen them.
    removed: HashSet<Seq>,
    fresh: VecDeque<Fresh>,
    returned: BTreeMap<Seq, Returned>,
    deferred: Deferred,
    in_flight: usize,
    consumers: HashMap<ConnectionId, Consumer>,
    /// Consumers that may have credit, in turn.
    turns: VecDeque<ConnectionId>,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            cursor: Seq::default(),
            more: true,
            loading: Loading::No,
            removed: HashSet::new(),
            fresh: VecDeque::new(),
            returned: BTreeMap::new(),
            deferred: Deferred::default(),
            in_flight: 0,
            consumers: HashMap::new(),
            turns: VecDeque::new(),
        }
    }
}

impl Lane {
    pub(super) fn committed(
        &mut self,
        seq: Seq,
        message_id: &MessageId,
        envelope: &EnvelopeBytes,
        ready: PageLimit,
        budget: &Budget,
    ) {
        // A read may have found it before its commit was told of: when the commit's outcome was not
        // known for a while, long before.
        if seq <= self.cursor {
            return;
        }
        let ahead = self.fresh.len() + self.loading.arrivals().len();
        // Messages of one lane are mostly of one size.
        let room = ahead == 0
            || (ahead < KEPT_PAGES * ready.messages
                && ahead.saturating_mul(envelope.len()) < KEPT_PAGES * ready.bytes
                && budget.free() >= envelope.len());
        let wanted = room && !self.consumers.is_empty();
        let fresh = |budget: &Budget| {
            budget.take(envelope.len());
            Fresh {
                seq,
                message_id: message_id.clone(),
                envelope: envelope.detached(),
            }
        };
        match &mut self.loading {
            Loading::After {
                overflown: true, ..
            } => {}
            Loading::After { arrivals, .. } if wanted => arrivals.push_back(fresh(budget)),
            Loading::After { .. } => self.loading.overflow(budget),
            _ if self.more || !wanted => self.more = true,
            _ => {
                self.cursor = seq;
                self.fresh.push_back(fresh(budget));
            }
        }
    }

    fn push_fresh(
        &mut self,
        seq: Seq,
        message_id: MessageId,
        envelope: EnvelopeBytes,
        budget: &Budget,
    ) {
        budget.take(envelope.len());
        self.fresh.push_back(Fresh {
            seq,
            message_id,
            envelope,
        });
    }

    /// Takes the next message to deliver; `None` if there is none, or its envelope must be read
    /// first.
    pub(super) fn next(&mut self, now: Instant, budget: &Budget) -> Option<Ready> {
        if let Some(first) = self.returned.first_entry() {
            first.get().envelope.as_ref()?;
            let (seq, returned) = first.remove_entry();
            let envelope = returned.envelope?;
            budget.give(envelope.len());
            return Some(Ready {
                seq,
                waiting: returned.waiting,
                envelope,
            });
        }
        if let Some(fresh) = self.fresh.pop_front() {
            budget.give(fresh.envelope.len());
            let waiting = Waiting {
                message_id: fresh.message_id,
                attempts: 0,
                lapses: Lapses::default(),
                first: None,
                missed_by: None,
            };
            return Some(Ready {
                seq: fresh.seq,
                waiting,
                envelope: fresh.envelope,
            });
        }
        if !self.more && !self.is_loading() {
            self.unpark(now);
        }
        None
    }

    /// Returns the deferred message that has been due for longest to the head. One at a time: what
    /// comes meanwhile goes first.
    fn unpark(&mut self, now: Instant) {
        if let Some((seq, waiting)) = self.deferred.take_due(now) {
            self.put_first(seq, waiting);
        }
    }

    fn put_first(&mut self, seq: Seq, waiting: Waiting) {
        self.returned.insert(
            seq,
            Returned {
                waiting,
                envelope: None,
            },
        );
    }

    /// Puts a message at the head again, in order, or defers it if it lapsed or has come back too
    /// often before.
    pub(super) fn give_back(
        &mut self,
        seq: Seq,
        waiting: Waiting,
        max_redeliveries: u32,
        lapse: Option<Lapse>,
        now: Instant,
    ) {
        if let Some(lapse) = &lapse
            && let Some(holder) = self.consumers.get_mut(&lapse.holder)
        {
            holder.lapsed(lapse.delivery_tag);
        }
        match Deferred::delay(&waiting, max_redeliveries) {
            None => self.put_first(seq, waiting),
            Some(delay) => self.deferred.insert(seq, waiting, now + delay, lapse),
        }
    }

    /// Removes a message that is gone from the store. Returns it if it lapsed, and was not
    /// delivered since.
    pub(super) fn remove(&mut self, seq: Seq, budget: &Budget) -> Option<Lapsed> {
        if self.is_loading() {
            self.removed.insert(seq);
        }
        if let Some(returned) = self.returned.remove(&seq) {
            budget.give(returned.envelope.map_or(0, |envelope| envelope.len()));
        }
        if let Ok(index) = self.fresh.binary_search_by_key(&seq, |fresh| fresh.seq)
            && let Some(fresh) = self.fresh.remove(index)
        {
            budget.give(fresh.envelope.len());
        }
        self.deferred.remove(seq)
    }

    /// Removes everything up to a message, which the store is about to set aside.
    pub(super) fn purge(&mut self, up_to: Seq, budget: &Budget) {
        let mut freed = 0;
        self.returned.retain(|seq, returned| {
            let stays = *seq > up_to;
            if !stays {
                freed += returned.envelope.as_ref().map_or(0, EnvelopeBytes::len);
            }
            stays
        });
        self.fresh.retain(|fresh| {
            let stays = fresh.seq > up_to;
            if !stays {
                freed += fresh.envelope.len();
            }
            stays
        });
        budget.give(freed);
        self.deferred.remove_up_to(up_to);
        if self.cursor < up_to {
            // What is being read begins before the next message, and is not used.
            self.loading.overflow(budget);
            self.cursor = up_to;
            self.more = true;
        }
    }

    pub(super) fn leased(&mut self) {
        self.in_flight += 1;
    }

    pub(super) fn released(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whether a deferred message may be delivered again.
    pub(super) fn has_due(&self, now: Instant) -> bool {
        self.deferred.has_due(now)
    }

    pub(super) fn deferred(&self) -> impl Iterator<Item = (&MessageId, u32)> {
        self.deferred.iter().map(|waiting| {
            (
                &waiting.message_id,
                waiting.attempts + waiting.lapses.count(),
            )
        })
    }

    /// Returns first deliveries of messages that have come back, whose time the store does not know
    /// yet. It is taken to know them from now on.
    pub(super) fn unrecorded(&mut self) -> impl Iterator<Item = (MessageId, Time)> {
        let returned = self
            .returned
            .values_mut()
            .map(|returned| &mut returned.waiting);
        returned
            .chain(self.deferred.iter_mut())
            .filter_map(|waiting| {
                let first = waiting.first.as_mut().filter(|first| !first.recorded)?;
                first.recorded = true;
                Some((waiting.message_id.clone(), first.time))
            })
    }

    /// Whether forgetting the lane loses nothing, since all that it has is in the store.
    pub(super) fn is_idle(&self) -> bool {
        self.consumers.is_empty()
            && self.in_flight == 0
            && self.returned.is_empty()
            && self.deferred.is_empty()
            && !self.is_loading()
    }
}
