//! What happens to an inbox. [`Inbox::poll`] follows each of these.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use ciphermq_protocol::MessageId;
use ciphermq_protocol::envelope::EnvelopeBytes;

use super::consumer::ConsumerAnswer;
use super::leases::{Lease, take_leases};
use super::waiting::Lapses;
use super::{ConnectionId, ConnectionUse, Inbox, LoadRequest, Prefetch};
use crate::model::{AckOutcome, Page, QueueId, Seq, Time};

impl Inbox {
    /// Starts a consumer of the queue on the connection, or changes its prefetch.
    pub fn subscribe(&mut self, queue: QueueId, connection: ConnectionId, prefetch: Prefetch) {
        self.peers
            .entry(connection)
            .or_default()
            .queues
            .insert(queue);
        self.lanes
            .entry(queue)
            .or_default()
            .subscribe(connection, prefetch);
        self.dirty.insert(queue);
    }

    /// Forgets a queue that was deleted, with everything in it: also what is handed out. Acks of
    /// that are answered by the store. Returns the connections that have consumed from it.
    pub fn remove_queue(&mut self, queue: QueueId) -> Vec<ConnectionId> {
        let Some(mut lane) = self.lanes.remove(&queue) else {
            return Vec::new();
        };
        lane.unload(&self.budget);
        self.dirty.remove(&queue);
        for peer in self.peers.values_mut() {
            peer.queues.remove(&queue);
        }
        self.take_copies(|lease| lease.queue == queue);
        lane.into_consumers()
    }

    /// Forgets what is in a queue up to a message, since it was purged: also what is handed out.
    pub fn purge_queue(&mut self, queue: QueueId, up_to: Seq) {
        let Some(lane) = self.lanes.get_mut(&queue) else {
            return;
        };
        lane.purge(up_to, &self.budget);
        let leases = self.take_copies(|lease| lease.queue == queue && lease.seq <= up_to);
        self.free_all(&leases);
        self.dirty.insert(queue);
    }

    /// Takes out the leases that `which` names, even if an ack is under way.
    fn take_copies(&mut self, which: impl Fn(&Lease) -> bool) -> Vec<Lease> {
        let mut leases = Vec::new();
        self.in_flight.retain(|_, in_flight| {
            leases.extend(in_flight.extract(&which));
            !in_flight.is_done()
        });
        leases
    }

    /// Returns the queues that are consumed from, each with the number of connections.
    pub fn consumers(&self) -> impl Iterator<Item = (QueueId, usize)> {
        let lanes = self.lanes.iter();
        lanes
            .map(|(queue, lane)| (*queue, lane.consumer_count()))
            .filter(|(_, count)| *count > 0)
    }

    /// Returns what each connection consumes from, and how many messages it holds.
    pub fn connection_uses(&self) -> HashMap<ConnectionId, ConnectionUse> {
        let mut uses: HashMap<ConnectionId, ConnectionUse> = HashMap::new();
        for (queue, lane) in &self.lanes {
            for connection in lane.consumer_ids() {
                uses.entry(connection).or_default().queues.push(*queue);
            }
        }
        let leases = self
            .in_flight
            .values()
            .flat_map(|in_flight| &in_flight.leases);
        for holder in leases
            .filter(|lease| !lease.acked)
            .filter_map(|lease| lease.holder)
        {
            uses.entry(holder).or_default().in_flight += 1;
        }
        uses
    }

    /// Takes a message for this receiver that was committed.
    pub fn committed(
        &mut self,
        queue: QueueId,
        seq: Seq,
        message_id: &MessageId,
        envelope: &EnvelopeBytes,
    ) {
        // A lane that is not there finds the message in the store when somebody comes for it.
        if let Some(lane) = self.lanes.get_mut(&queue) {
            lane.committed(seq, message_id, envelope, self.policy.ready, &self.budget);
            self.dirty.insert(queue);
        }
    }

    /// Notes that an ack or rejection was read on `connection`. From now on the message is not
    /// delivered again, unless the store says that it still waits. Returns when it was first
    /// delivered, if the inbox knows.
    pub fn begin_ack(
        &mut self,
        connection: ConnectionId,
        message_id: &MessageId,
        now: Instant,
    ) -> Option<Time> {
        self.pass_over(connection, message_id, now);
        let in_flight = self.in_flight.entry(message_id.clone()).or_default();
        in_flight.acks += 1;
        for lease in &mut in_flight.leases {
            if lease.holder == Some(connection) && lease.credited && !lease.acked {
                lease.acked = true;
                let Some(lane) = self.lanes.get_mut(&lease.queue) else {
                    continue;
                };
                let answer = ConsumerAnswer {
                    since: lease.since,
                    delivery_tag: lease.tag_at(connection, lane),
                    was_missed: lease.missed_by == Some(connection),
                };
                if lane.acked(connection, &answer, now) {
                    self.dirty.insert(lease.queue);
                }
            }
        }
        in_flight.leases.iter().map(|lease| lease.first.time).min()
    }

    /// Takes the store's decision on an ack or rejection that was begun.
    ///
    /// The credit of a lease whose connection has acked it stays taken until [`Inbox::settled`], so
    /// that no delivery overtakes the confirmation that makes room for it; [`Prefetch`] tells what
    /// is free before.
    pub fn ack_committed(&mut self, message_id: &MessageId, outcome: &AckOutcome, now: Instant) {
        if let AckOutcome::Done(copies) = outcome {
            for (queue, seq) in copies {
                if let Some(lane) = self.lanes.get_mut(queue)
                    && let Some(lapsed) = lane.remove(*seq, &self.budget)
                {
                    lane.acked_late(&lapsed, now);
                }
            }
        }
        let Some(in_flight) = self.in_flight.get_mut(message_id) else {
            return;
        };
        in_flight.acks = in_flight.acks.saturating_sub(1);
        in_flight.gone |= matches!(outcome, AckOutcome::Done(_));
        if in_flight.gone {
            let is_awaited = |lease: &Lease| {
                lease.acked
                    && lease
                        .holder
                        .is_some_and(|holder| self.peers.contains_key(&holder))
            };
            let free = in_flight.extract(|lease| !is_awaited(lease));
            self.free_all(&free);
        } else if in_flight.acks == 0 {
            // Not acked after all: what nobody holds any more waits again.
            for lease in &mut in_flight.leases {
                if let Some(holder) = lease.holder
                    && std::mem::take(&mut lease.acked)
                    && let Some(lane) = self.lanes.get_mut(&lease.queue)
                {
                    lane.not_acked(holder);
                }
            }
            let orphans = in_flight.extract(|lease| lease.holder.is_none());
            self.free_all(&orphans);
            self.give_back_all(message_id, &orphans, now);
        }
        self.forget_if_done(message_id);
    }

    /// Notes that the answers to acks of these messages are in the connection's output, behind all
    /// that it was given so far: their credit is free.
    pub fn settled<'a>(
        &mut self,
        connection: ConnectionId,
        message_ids: impl IntoIterator<Item = &'a MessageId>,
        now: Instant,
    ) {
        for message_id in message_ids {
            let Some(in_flight) = self
                .in_flight
                .get_mut(message_id)
                .filter(|in_flight| in_flight.gone)
            else {
                continue;
            };
            let leases = in_flight.extract(|lease| lease.holder == Some(connection));
            self.free_all(&leases);
            self.forget_if_done(message_id);
        }
        // Also where a lease had lapsed before: its client waited for the confirmation all the
        // same.
        if self.probation {
            self.revise(connection, now);
        }
    }

    /// Notes that this number of bytes of deliveries has been written to the connection's socket.
    pub fn sent(&mut self, connection: ConnectionId, bytes: usize) {
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        let bytes = bytes.min(peer.unsent);
        peer.unsent -= bytes;
        self.has_left(bytes);
        let most = self.policy.most_unsent(self.unsent, &self.unsent_budget);
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        if peer.is_full && peer.unsent < most {
            peer.is_full = false;
            for queue in &peer.queues {
                if let Some(lane) = self.lanes.get_mut(queue) {
                    lane.enlist(connection);
                    self.dirty.insert(*queue);
                }
            }
        }
    }

    /// Notes that deliveries have left the server's memory.
    fn has_left(&mut self, bytes: usize) {
        let had_sent_too_much = self.policy.has_sent_too_much(self.unsent);
        self.unsent -= bytes;
        self.unsent_budget.give(bytes);
        if had_sent_too_much && !self.policy.has_sent_too_much(self.unsent) {
            self.dirty.extend(self.lanes.keys());
        }
    }

    /// Takes the store's answer to a [`LoadRequest`].
    pub fn loaded(&mut self, load: LoadRequest, page: Page) {
        if let Some(lane) = self.lanes.get_mut(&load.queue) {
            lane.loaded(load.what, page, &self.budget);
            self.dirty.insert(load.queue);
        }
    }

    /// Makes an unacknowledged message wait again, even while it is leased: its sender asks for it.
    pub fn resend(&mut self, message_id: &MessageId, now: Instant) {
        let Some(in_flight) = self.in_flight.get_mut(message_id) else {
            return;
        };
        if in_flight.acks == 0 && !in_flight.gone {
            let leases = std::mem::take(&mut in_flight.leases);
            self.free_all(&leases);
            self.give_back_all(message_id, &leases, now);
            self.forget_if_done(message_id);
        }
    }

    /// Ends a connection: its leases return at once, at the head of their lanes, in order.
    pub fn disconnect(&mut self, connection: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.remove(&connection) else {
            return;
        };
        self.has_left(peer.unsent);
        for queue in &peer.queues {
            if let Some(lane) = self.lanes.get_mut(queue) {
                lane.release(connection, now);
                lane.unsubscribe(connection, &self.budget);
                self.dirty.insert(*queue);
            }
        }
        // What a dead connection did not answer says nothing of the messages.
        let leases = self
            .in_flight
            .values_mut()
            .flat_map(|in_flight| &mut in_flight.leases);
        for lease in leases.filter(|lease| peer.silent && lease.holder == Some(connection)) {
            lease.lapses = Lapses::default();
        }
        // Where an ack is under way, its outcome decides.
        for in_flight in self
            .in_flight
            .values_mut()
            .filter(|in_flight| in_flight.acks > 0)
        {
            for lease in in_flight
                .leases
                .iter_mut()
                .filter(|lease| lease.holder == Some(connection))
            {
                lease.holder = None;
            }
        }
        self.end_leases(now, |lease| lease.holder == Some(connection));
    }

    /// Ends the leases of connections that do not answer: from which nothing was received for too
    /// long, or, on probation, that have left a message alone for too long. These messages step
    /// aside. `last_received` tells when something was last received on a connection.
    ///
    /// Returns connections that did not answer in time: [`Inbox::touch`] must be called when
    /// something is received on them.
    pub fn expire(
        &mut self,
        now: Instant,
        last_received: impl Fn(ConnectionId) -> Option<Instant>,
    ) -> HashSet<ConnectionId> {
        let (lanes, policy) = (&self.lanes, &self.policy);
        let timeout = policy.redelivery_timeout;
        let lapsed = |lease: &Lease| {
            let Some(holder) = lease.holder else {
                return false;
            };
            let lane = lanes.get(&lease.queue).filter(|_| !lease.acked);
            if let Some(time) = lane.and_then(|lane| lane.lapses_at(holder, lease.since, policy)) {
                return now >= time;
            }
            let heard = last_received(holder).map_or(lease.since, |heard| heard.max(lease.since));
            now.saturating_duration_since(heard) >= timeout
        };
        let taken = take_leases(&mut self.in_flight, lapsed);
        let leases = taken.iter().flat_map(|taken| &taken.leases);
        let holders: HashSet<(QueueId, ConnectionId)> = leases
            .filter_map(|lease| Some((lease.queue, lease.holder?)))
            .collect();
        self.lapse_all(taken, now);
        let mut silent = HashSet::new();
        for (queue, connection) in holders {
            if let Some(lane) = self.lanes.get_mut(&queue) {
                lane.suspect(connection);
                lane.stalled(connection, &self.policy);
                self.probation = true;
            }
            if let Some(peer) = self.peers.get_mut(&connection) {
                peer.silent = true;
            }
            silent.insert(connection);
        }
        silent
    }

    /// Starts the look for stalled consumers that [`Inbox::poll`] has asked for. Call
    /// [`Inbox::expire`] after it.
    pub fn look(&mut self) {
        self.looking = false;
    }

    /// Ends the connection's probation: its client asks to keep its leases, since it is slow.
    pub fn keep_leases(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.get(&connection) else {
            return;
        };
        for queue in &peer.queues {
            if let Some(lane) = self.lanes.get_mut(queue) {
                lane.keep_leases(connection);
            }
        }
    }

    /// Notes that something was received on a connection that had been silent.
    pub fn touch(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        peer.silent = false;
        for queue in &peer.queues {
            if let Some(lane) = self.lanes.get_mut(queue) {
                lane.trust(connection);
            }
        }
    }

    /// Wakes lanes with deferred messages that are due.
    pub fn wake(&mut self, now: Instant) {
        let due = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.has_consumers() && lane.has_due(now));
        self.dirty.extend(due.map(|(queue, _)| *queue));
    }

    /// Forgets lanes in which nothing happens, and frees their memory. Returns whether nothing is
    /// left.
    pub fn tidy(&mut self) -> bool {
        self.lanes.retain(|_, lane| {
            let idle = lane.is_idle();
            if idle {
                lane.unload(&self.budget);
            }
            !idle
        });
        if self.in_flight.is_empty() {
            self.in_flight.shrink_to_fit();
        }
        self.lanes.is_empty() && self.in_flight.is_empty() && self.peers.is_empty()
    }
}
