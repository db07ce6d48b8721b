//! A lane: one queue's messages for one receiver, in order.
//!
//! Three places hold messages that wait, and they are emptied in this order:
//!
//! 1. `returned`: handed out before and come back, by sequence number. Their envelopes are read
//!    again.
//! 2. `fresh`: the window of messages never handed out, up to `cursor`; the store may hold more
//!    after it.
//! 3. `deferred`: come back too often, or not answered in time. All others go first.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Instant;

use ciphermq_protocol::MessageId;
use ciphermq_protocol::envelope::EnvelopeBytes;

use super::consumer::Consumer;
use super::deferred::{Deferred, Lapse};
use super::{Budget, ConnectionId, LoadScope, Policy, Prefetch};
use crate::model::{Page, PageLimit, Seq, Time};

/// So many pages of messages are kept as they are committed, while there is memory for them: a
/// receiver that lags for a moment does not read them from the store.
const KEPT_PAGES: usize = 8;
/// How many returned messages are read again at once.
const RETURNED_PAGE: usize = 256;
/// A message that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) message_id: MessageId,
    /// How often it was handed out and came back, other than by lapsing.
    pub(super) attempts: u32,
    /// How often it was not answered in time.
    pub(super) lapses: u32,
    /// When it was handed out first, and whether the store knows.
    pub(super) delivered: Option<(Time, bool)>,
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
        /// What was committed meanwhile: it follows the page, if that is the last one.
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

    /// Lets go of what was committed meanwhile: it is read from the store.
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

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    /// What is at or below this has been in memory.
    cursor: Seq,
    /// Whether the store may hold messages after the cursor.
    more: bool,
    loading: Loading,
    /// What was removed while a read was under way, which may still have seen it.
    removed: HashSet<Seq>,
    fresh: VecDeque<Fresh>,
    returned: BTreeMap<Seq, Returned>,
    deferred: Deferred,
    in_flight: usize,
    consumers: HashMap<ConnectionId, Consumer>,
    /// Consumers that may have credit, the next one first.
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

/// Consumers.
impl Lane {
    pub(super) fn subscribe(&mut self, connection: ConnectionId, prefetch: Prefetch) {
        let consumer = self
            .consumers
            .entry(connection)
            .or_insert_with(|| Consumer::new(prefetch));
        consumer.prefetch = prefetch;
        consumer.end_probation();
        self.enlist(connection);
    }

    /// Without consumers nothing is held ready: it would take memory from those who can use it.
    pub(super) fn unsubscribe(&mut self, connection: ConnectionId, budget: &Budget) {
        self.consumers.remove(&connection);
        self.turns.retain(|turn| *turn != connection);
        if !self.consumers.is_empty() {
            return;
        }
        if let Some(first) = self.fresh.front() {
            self.cursor = Seq(first.seq.0 - 1);
            self.more = true;
        }
        self.unload(budget);
    }

    /// Drops the envelopes. Only a lane without consumers may: its cursor has been set back.
    pub(super) fn unload(&mut self, budget: &Budget) {
        budget.give(self.fresh.iter().map(|fresh| fresh.envelope.len()).sum());
        self.fresh = VecDeque::new();
        self.loading.overflow(budget);
        for returned in self.returned.values_mut() {
            budget.give(
                returned
                    .envelope
                    .take()
                    .map_or(0, |envelope| envelope.len()),
            );
        }
    }

    pub(super) fn has_consumers(&self) -> bool {
        !self.consumers.is_empty()
    }

    /// Puts a consumer at the end of the turns if it has credit.
    pub(super) fn enlist(&mut self, connection: ConnectionId) {
        if let Some(consumer) = self.consumers.get_mut(&connection)
            && !consumer.enlisted
            && consumer.has_credit()
        {
            consumer.enlisted = true;
            self.turns.push_back(connection);
        }
    }

    /// The consumer whose turn it is. It keeps its turn until [`Lane::take_credit`].
    pub(super) fn next_consumer(
        &mut self,
        can_take: impl Fn(ConnectionId) -> bool,
    ) -> Option<ConnectionId> {
        loop {
            let trusted = self
                .turns
                .iter()
                .position(|turn| self.consumers.get(turn).is_some_and(|c| !c.suspect));
            let index = trusted.unwrap_or(0);
            let connection = *self.turns.get(index)?;
            let has_credit = self
                .consumers
                .get(&connection)
                .is_some_and(Consumer::has_credit);
            if has_credit && can_take(connection) {
                return Some(connection);
            }
            // It is put in line again when it has credit and room.
            self.turns.remove(index);
            if let Some(consumer) = self.consumers.get_mut(&connection) {
                consumer.enlisted = false;
            }
        }
    }

    pub(super) fn take_credit(&mut self, connection: ConnectionId) {
        if let Some(index) = self.turns.iter().position(|turn| *turn == connection) {
            self.turns.remove(index);
        }
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.enlisted = false;
            consumer.outstanding += 1;
        }
        self.enlist(connection);
    }

    pub(super) fn free_credit(&mut self, connection: ConnectionId, acked: bool) {
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.outstanding = consumer.outstanding.saturating_sub(1);
            consumer.acked = consumer
                .acked
                .saturating_sub(u32::from(acked))
                .min(consumer.outstanding);
        }
        self.enlist(connection);
    }

    /// Notes that an ack of a message delivered at `since` was read. Returns whether that makes room
    /// for another one.
    pub(super) fn acked(
        &mut self,
        connection: ConnectionId,
        since: Instant,
        delivery_tag: u64,
        now: Instant,
    ) -> bool {
        let Some(consumer) = self.consumers.get_mut(&connection) else {
            return false;
        };
        consumer.acked = (consumer.acked + 1).min(consumer.outstanding);
        consumer.answer(since, delivery_tag, now);
        self.enlist(connection);
        self.turns.contains(&connection)
    }

    /// And the ack has failed.
    pub(super) fn not_acked(&mut self, connection: ConnectionId) {
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.acked = consumer.acked.saturating_sub(1);
        }
    }

    pub(super) fn suspect(&mut self, connection: ConnectionId) {
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.suspect = true;
        }
    }

    pub(super) fn trust(&mut self, connection: ConnectionId) {
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.suspect = false;
        }
        self.deferred.touch(connection);
    }

    pub(super) fn has_probation(&self) -> bool {
        self.consumers.values().any(Consumer::is_on_probation)
    }

    /// Returns when a message that the consumer got at `since` lapses before the redelivery timeout;
    /// `None` if it does not.
    pub(super) fn lapses_at(
        &self,
        connection: ConnectionId,
        since: Instant,
        policy: &Policy,
    ) -> Option<Instant> {
        let consumer = self.consumers.get(&connection)?;
        let time = consumer.lapses_at(since);
        time.filter(|_| self.deferred.len() < policy.max_deferred)
    }

    /// Notes that confirmations are in the consumer's output, behind everything up to this tag.
    /// Takes the messages whose lapses do not count, to be leased to it again.
    pub(super) fn confirmed(
        &mut self,
        connection: ConnectionId,
        last_delivery_tag: u64,
        now: Instant,
    ) -> Vec<(Seq, Waiting, Lapse)> {
        let Some(consumer) = self.consumers.get_mut(&connection) else {
            return Vec::new();
        };
        let Some(answered) = consumer.confirmed(last_delivery_tag, now) else {
            return Vec::new();
        };
        if consumer.lapsed_tag <= answered {
            return Vec::new();
        }
        let later = self.deferred.take_later(connection, answered);
        consumer.outstanding += u32::try_from(later.len()).unwrap_or(u32::MAX);
        self.in_flight += later.len();
        later
    }

    /// Whether the consumer may have discarded a message that it has not answered.
    pub(super) fn may_have_missed(&self, connection: ConnectionId, delivery_tag: u64) -> bool {
        self.consumers
            .get(&connection)
            .is_some_and(|consumer| consumer.may_have_missed(delivery_tag))
    }

    /// Notes that leases of the consumer have lapsed.
    pub(super) fn stalled(&mut self, connection: ConnectionId, policy: &Policy) {
        let may_grow = self.deferred.len() < policy.max_deferred;
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.stalled(policy.redelivery_timeout, may_grow);
        }
        self.enlist(connection);
    }

    /// It keeps its leases by what it says.
    pub(super) fn keep_leases(&mut self, connection: ConnectionId) {
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.end_probation();
        }
    }

    /// It has acked a message whose lease had lapsed before.
    pub(super) fn acked_late(&mut self, lapse: &Lapse, now: Instant) {
        if let Some(consumer) = self.consumers.get_mut(&lapse.holder) {
            consumer.answer(lapse.since, lapse.delivery_tag, now);
        }
    }

    /// Notes that the connection has ended. What it got and never said a word after goes back to the
    /// head, since it was dead; nobody keeps the others any more.
    pub(super) fn release(&mut self, connection: ConnectionId, now: Instant) {
        for (seq, waiting) in self.deferred.take_silent(connection) {
            let waiting = Waiting {
                lapses: waiting.lapses.saturating_sub(1),
                ..waiting
            };
            self.put_first(seq, waiting);
        }
        self.deferred.release(connection, now);
    }
}

/// Messages.
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

    /// The next message to hand out; `None` if there is none, or its envelope must be read first.
    pub(super) fn next(
        &mut self,
        now: Instant,
        budget: &Budget,
    ) -> Option<(Seq, Waiting, EnvelopeBytes)> {
        if let Some(first) = self.returned.first_entry() {
            first.get().envelope.as_ref()?;
            let (seq, returned) = first.remove_entry();
            let envelope = returned.envelope?;
            budget.give(envelope.len());
            return Some((seq, returned.waiting, envelope));
        }
        if let Some(fresh) = self.fresh.pop_front() {
            budget.give(fresh.envelope.len());
            let waiting = Waiting {
                message_id: fresh.message_id,
                attempts: 0,
                lapses: 0,
                delivered: None,
            };
            return Some((fresh.seq, waiting, fresh.envelope));
        }
        if !self.more && !self.is_loading() {
            self.unpark(now);
        }
        None
    }

    /// Lets the message aside that has been due for longest return. One at a time: what comes
    /// meanwhile goes first.
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

    /// Puts a message at the head again, in order, or aside if it lapsed or has come back too often
    /// before.
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
            holder.lapsed_tag = holder.lapsed_tag.max(lapse.delivery_tag);
        }
        match Deferred::delay(&waiting, max_redeliveries) {
            None => self.put_first(seq, waiting),
            Some(delay) => self.deferred.insert(seq, waiting, now + delay, lapse),
        }
    }

    /// The message is gone from the store. Returns how it lapsed if it did, and had not been handed
    /// out since.
    pub(super) fn remove(&mut self, seq: Seq, budget: &Budget) -> Option<Lapse> {
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

    pub(super) fn leased(&mut self) {
        self.in_flight += 1;
    }

    pub(super) fn released(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whether a message aside may be handed out again.
    pub(super) fn has_due(&self, now: Instant) -> bool {
        self.deferred.has_due(now)
    }

    pub(super) fn deferred(&self) -> impl Iterator<Item = (&MessageId, u32)> {
        self.deferred
            .iter()
            .map(|waiting| (&waiting.message_id, waiting.attempts + waiting.lapses))
    }

    /// First deliveries of messages that have come back, whose time the store does not know yet. It
    /// is taken to know them from now on.
    pub(super) fn unrecorded(&mut self) -> impl Iterator<Item = (MessageId, Time)> {
        let returned = self
            .returned
            .values_mut()
            .map(|returned| &mut returned.waiting);
        returned
            .chain(self.deferred.iter_mut())
            .filter_map(|waiting| match &mut waiting.delivered {
                Some((time, recorded @ false)) => {
                    *recorded = true;
                    Some((waiting.message_id.clone(), *time))
                }
                _ => None,
            })
    }

    /// Whether forgetting the lane loses nothing: all that it has is in the store.
    pub(super) fn is_idle(&self) -> bool {
        self.consumers.is_empty()
            && self.in_flight == 0
            && self.returned.is_empty()
            && self.deferred.is_empty()
            && !self.is_loading()
    }
}

/// Reading from the store.
impl Lane {
    pub(super) fn is_loading(&self) -> bool {
        !matches!(self.loading, Loading::No)
    }

    /// What to read next. `asked` is whether somebody waits who is no consumer.
    pub(super) fn begin_load(
        &mut self,
        ready: PageLimit,
        asked: bool,
        budget: &Budget,
    ) -> Option<LoadScope> {
        let wanted = asked || !self.turns.is_empty();
        if self.is_loading() || !(wanted || self.has_consumers()) {
            return None;
        }
        let bytes = ready.bytes.min(budget.free()).max(1);
        if self
            .returned
            .first_key_value()
            .is_some_and(|(_, first)| first.envelope.is_none())
        {
            if !wanted {
                return None;
            }
            let page = RETURNED_PAGE.min(ready.messages);
            let seqs = self
                .returned
                .iter()
                .filter(|(_, r)| r.envelope.is_none())
                .map(|(seq, _)| *seq)
                .take(page)
                .collect();
            self.loading = Loading::Again;
            return Some(LoadScope::Again(seqs, bytes));
        }
        // The next page is fetched while half of the last one is still there; in want of memory,
        // when none is.
        let low = self.fresh.is_empty() && wanted
            || self.fresh.len() < ready.messages / 2 && budget.free() >= ready.bytes;
        if !self.more || !low {
            return None;
        }
        self.loading = Loading::After {
            arrivals: VecDeque::new(),
            overflown: false,
        };
        Some(LoadScope::After(
            self.cursor,
            PageLimit {
                messages: ready.messages,
                bytes,
            },
        ))
    }

    pub(super) fn loaded(&mut self, what: LoadScope, page: Page, budget: &Budget) {
        let loading = std::mem::replace(&mut self.loading, Loading::No);
        let removed = std::mem::take(&mut self.removed);
        match what {
            LoadScope::Again(seqs, _) => self.loaded_again(&seqs, page, &removed, budget),
            LoadScope::After(cursor, _) => {
                let Loading::After {
                    arrivals,
                    overflown,
                } = loading
                else {
                    return;
                };
                // Unloaded meanwhile: the page does not join on.
                let joins_on = cursor == self.cursor;
                let is_last = joins_on && !page.more && !overflown;
                if joins_on {
                    self.more = !is_last;
                    for message in page.messages {
                        self.cursor = message.seq;
                        if !removed.contains(&message.seq) {
                            self.push_fresh(
                                message.seq,
                                message.message_id,
                                message.envelope,
                                budget,
                            );
                        }
                    }
                }
                for arrival in arrivals {
                    // The read may have found it too.
                    let is_next = arrival.seq > self.cursor && !removed.contains(&arrival.seq);
                    if is_last && is_next {
                        self.cursor = arrival.seq;
                        self.fresh.push_back(arrival);
                    } else {
                        budget.give(arrival.envelope.len());
                    }
                }
            }
        }
    }

    /// What was asked for and is not there has been removed; what lies past a page that was cut
    /// short is not known.
    fn loaded_again(&mut self, seqs: &[Seq], page: Page, removed: &HashSet<Seq>, budget: &Budget) {
        let known_to = if page.more {
            page.messages.last().map(|message| message.seq)
        } else {
            seqs.last().copied()
        };
        let mut found: HashMap<Seq, EnvelopeBytes> = page
            .messages
            .into_iter()
            .map(|message| (message.seq, message.envelope))
            .collect();
        for seq in seqs
            .iter()
            .filter(|seq| known_to.is_some_and(|known_to| **seq <= known_to))
        {
            match found.remove(seq).filter(|_| !removed.contains(seq)) {
                Some(envelope) => {
                    if let Some(returned) = self.returned.get_mut(seq)
                        && returned.envelope.is_none()
                    {
                        budget.take(envelope.len());
                        returned.envelope = Some(envelope);
                    }
                }
                None => {
                    self.remove(*seq, budget);
                }
            }
        }
    }
}
