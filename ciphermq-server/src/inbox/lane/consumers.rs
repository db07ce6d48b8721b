//! The consumers of a lane: turns, credit and probation.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Lane, Waiting};
use crate::inbox::consumer::{Consumer, ConsumerAnswer};
use crate::inbox::deferred::Lapsed;
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

    pub(in crate::inbox) fn consumer_ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.consumers.keys().copied()
    }

    pub(in crate::inbox) fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    /// Returns the connections that consume.
    pub(in crate::inbox) fn into_consumers(self) -> Vec<ConnectionId> {
        self.consumers.into_keys().collect()
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
        mut can_take: impl FnMut(ConnectionId) -> bool,
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

    /// Notes that an ack was read. Returns whether that makes room for another message.
    pub(in crate::inbox) fn acked(
        &mut self,
        connection: ConnectionId,
        answer: &ConsumerAnswer,
        now: Instant,
    ) -> bool {
        let Some(consumer) = self.consumers.get_mut(&connection) else {
            return false;
        };
        consumer.acked = (consumer.acked + 1).min(consumer.outstanding);
        consumer.answer(answer, now);
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

    /// Returns the highest tag that the consumer has answered, if it is on probation.
    pub(in crate::inbox) fn answered_tag(&self, connection: ConnectionId) -> Option<u64> {
        self.consumers.get(&connection)?.answered_tag()
    }

    /// Notes that confirmations are in the consumer's output, behind everything up to
    /// `last_delivery_tag`. Takes the messages that lapsed and were delivered after the
    /// `answered_tag`: these lapses do not count.
    pub(in crate::inbox) fn confirmed(
        &mut self,
        connection: ConnectionId,
        answered_tag: u64,
        last_delivery_tag: u64,
        now: Instant,
    ) -> Vec<Lapsed> {
        let Some(consumer) = self.consumers.get_mut(&connection) else {
            return Vec::new();
        };
        consumer.confirmed(answered_tag, last_delivery_tag, now);
        if !consumer.has_lapsed_after(answered_tag) {
            return Vec::new();
        }
        self.deferred.take_later(connection, answered_tag)
    }

    /// Notes that this number of messages is leased to the consumer again.
    pub(in crate::inbox) fn leased_again(&mut self, connection: ConnectionId, count: usize) {
        if let Some(consumer) = self.consumers.get_mut(&connection) {
            consumer.outstanding += u32::try_from(count).unwrap_or(u32::MAX);
            self.in_flight += count;
        }
    }

    /// Returns the number of lapsed deliveries that are remembered beside their messages.
    #[cfg(test)]
    pub(in crate::inbox) fn remembered_lapses(&self) -> usize {
        self.consumers
            .values()
            .map(Consumer::remembered_lapses)
            .sum()
    }

    /// Whether the consumer is known to discard what comes between its ack and the confirmation.
    pub(in crate::inbox) fn reads_until_ack(&self, connection: ConnectionId) -> bool {
        self.consumers
            .get(&connection)
            .is_some_and(Consumer::reads_until_ack)
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
    pub(in crate::inbox) fn acked_late(&mut self, lapsed: &Lapsed, now: Instant) {
        let Lapsed { waiting, lapse, .. } = lapsed;
        if let Some(consumer) = self.consumers.get_mut(&lapse.holder) {
            let answered_tag = consumer.answered_tag().unwrap_or_default();
            let first_tag = waiting.lapses.first_tag(lapse.holder, answered_tag);
            let answer = ConsumerAnswer {
                since: lapse.since,
                delivery_tag: first_tag.unwrap_or(lapse.delivery_tag),
                was_missed: waiting.missed_by == Some(lapse.holder),
            };
            consumer.answer(&answer, now);
        }
    }

    /// Notes that the connection has ended. What it got and never said a word after goes back to
    /// the head, since it was dead; nobody keeps the others any more.
    pub(in crate::inbox) fn release(&mut self, connection: ConnectionId, now: Instant) {
        for (seq, waiting) in self.deferred.take_silent(connection) {
            let waiting = Waiting {
                lapses: waiting.lapses.without(connection, 0),
                ..waiting
            };
            self.put_first(seq, waiting);
        }
        self.deferred.release(connection, now);
    }
}
