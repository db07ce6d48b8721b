//! The consumers of a lane: turns, credit and probation.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Lane, Waiting};
use crate::inbox::consumer::Consumer;
use crate::inbox::deferred::{Lapse, Lapsed};
use crate::inbox::{Budget, ConnectionId, Policy, Prefetch};
use crate::model::Seq;

impl Lane {
    pub(in crate::inbox) fn subscribe(&mut self, connection: ConnectionId, prefetch: Prefetch) {
        let consumer = self
            .consumers
            .entry(connection)
            .or_insert_with(|| Consumer::new(prefetch));
        consumer.prefetch = prefetch;
        consumer.end_probation();
        self.enlist(connection);
    }

    /// Removes a consumer. Without consumers nothing is held ready: it would take memory from those
    /// who can use it.
    pub(in crate::inbox) fn unsubscribe(&mut self, connection: ConnectionId, budget: &Budget) {
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
    pub(in crate::inbox) fn unload(&mut self, budget: &Budget) {
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

    pub(in crate::inbox) fn has_consumers(&self) -> bool {
        !self.consumers.is_empty()
    }

    /// Puts a consumer at the end of the turns if it has credit.
    pub(in crate::inbox) fn enlist(&mut self, connection: ConnectionId) {
        if let Some(consumer) = self.consumers.get_mut(&connection)
            && !consumer.enlisted
            && consumer.has_credit()
        {
            consumer.enlisted = true;
            self.turns.push_back(connection);
        }
    }

    /// Returns the consumer whose turn it is. It keeps its turn until [`Lane::take_credit`].
    pub(in crate::inbox) fn next_consumer(
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

    pub(in crate::inbox) fn take_credit(&mut self, connection: ConnectionId) {
        if let Some(index) = self.turns.iter().position(|turn| *turn == connection) {
            self.turns.remove(index);
        }
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.enlisted = false;
            consumer.outstanding += 1;
        }
        self.enlist(connection);
    }

    pub(in crate::inbox) fn free_credit(&mut self, connection: ConnectionId, acked: bool) {
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.outstanding = consumer.outstanding.saturating_sub(1);
            consumer.acked = consumer
                .acked
                .saturating_sub(u32::from(acked))
                .min(consumer.outstanding);
        }
        self.enlist(connection);
    }

    /// Notes that an ack of a message delivered at `since` was read. Returns whether that makes
    /// room for another one.
    pub(in crate::inbox) fn acked(
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

    /// Notes that an ack has failed.
    pub(in crate::inbox) fn not_acked(&mut self, connection: ConnectionId) {
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.acked = consumer.acked.saturating_sub(1);
        }
    }

    pub(in crate::inbox) fn suspect(&mut self, connection: ConnectionId) {
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.suspect = true;
        }
    }

    pub(in crate::inbox) fn trust(&mut self, connection: ConnectionId) {
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.suspect = false;
        }
        self.deferred.touch(connection);
    }

    pub(in crate::inbox) fn has_probation(&self) -> bool {
        self.consumers.values().any(Consumer::is_on_probation)
    }

    /// Returns when a message that the consumer got at `since` lapses before the redelivery
    /// timeout; `None` if it does not.
    pub(in crate::inbox) fn lapses_at(
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
    pub(in crate::inbox) fn confirmed(
        &mut self,
        connection: ConnectionId,
        last_delivery_tag: u64,
        now: Instant,
    ) -> Vec<Lapsed> {
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
    pub(in crate::inbox) fn may_have_missed(
        &self,
        connection: ConnectionId,
        delivery_tag: u64,
    ) -> bool {
        self.consumers
            .get(&connection)
            .is_some_and(|consumer| consumer.may_have_missed(delivery_tag))
    }

    /// Notes that leases of the consumer have lapsed.
    pub(in crate::inbox) fn stalled(&mut self, connection: ConnectionId, policy: &Policy) {
        let may_grow = self.deferred.len() < policy.max_deferred;
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.stalled(policy.redelivery_timeout, may_grow);
        }
        self.enlist(connection);
    }

    /// Ends the consumer's probation: it keeps its leases by what it sends.
    pub(in crate::inbox) fn keep_leases(&mut self, connection: ConnectionId) {
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.end_probation();
        }
    }

    /// Notes that a message was acked whose lease had lapsed before.
    pub(in crate::inbox) fn acked_late(&mut self, lapse: &Lapse, now: Instant) {
        if let Some(consumer) = self.consumers.get_mut(&lapse.holder) {
            consumer.answer(lapse.since, lapse.delivery_tag, now);
        }
    }

    /// Notes that the connection has ended. What it got and never said a word after goes back to
    /// the head, since it was dead; nobody keeps the others any more.
    pub(in crate::inbox) fn release(&mut self, connection: ConnectionId, now: Instant) {
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
