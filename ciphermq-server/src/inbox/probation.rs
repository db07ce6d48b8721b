//! Leases of consumers on probation: what an answer and its confirmation say of the others.

use std::time::Instant;

use ciphermq_protocol::MessageId;

use super::deferred::Lapsed;
use super::leases::{Lease, TakenLeases, take_leases};
use super::{ConnectionId, Inbox};
use crate::model::QueueId;

impl Inbox {
    /// Ends the leases of messages that a consumer has read before the one that it acks, and has
    /// not answered. That is known of consumers only that discard what is exposed: they read one
    /// message after the other, and what they may have discarded has been given back.
    pub(super) fn pass_over(&mut self, connection: ConnectionId, acked: &MessageId, now: Instant) {
        if !self.probation {
            return;
        }
        let lanes = &self.lanes;
        let acked = self.in_flight.get(acked).into_iter();
        let mut leases = acked.flat_map(|in_flight| &in_flight.leases);
        let lease = leases.find(|lease| lease.holder == Some(connection) && lease.credited);
        let Some((lease, lane)) = lease.and_then(|lease| Some((lease, lanes.get(&lease.queue)?)))
        else {
            return;
        };
        if !lane.reads_until_ack(connection) {
            return;
        }
        let delivery_tag = lease.tag_at(connection, lane);
        let taken = take_leases(&mut self.in_flight, |lease| {
            lease.holder == Some(connection)
                && !lease.acked
                && lease.delivery_tag < delivery_tag
                && lanes
                    .get(&lease.queue)
                    .is_some_and(|lane| lane.reads_until_ack(connection))
        });
        self.lapse_all(taken, now);
    }

    /// Ends leases that were not answered in time.
    pub(super) fn lapse_all(&mut self, taken: Vec<TakenLeases>, now: Instant) {
        for taken in taken {
            let TakenLeases {
                message_id,
                leases,
                gone,
            } = taken;
            self.free_all(&leases);
            for lease in leases.iter().filter(|_| !gone) {
                let lapses = self.lapse(&message_id, lease, now);
                self.newly_deferred
                    .extend(lapses.map(|lapses| (message_id.clone(), lapses)));
            }
            self.forget_if_done(&message_id);
        }
    }

    /// Revises what a consumer on probation has not answered, now that a confirmation is in its
    /// output: it was busy with the message that it answered, and has read none that came later.
    pub(super) fn revise(&mut self, connection: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.get(&connection) else {
            return;
        };
        let queues: Vec<QueueId> = peer.queues.iter().copied().collect();
        let lanes = queues.iter().filter_map(|queue| self.lanes.get(queue));
        // A connection is read in order, whatever queues its messages are from.
        let answered = lanes.filter_map(|lane| lane.answered_tag(connection)).max();
        let Some(answered_tag) = answered else {
            return;
        };
        for queue in queues {
            let Some(lane) = self.lanes.get_mut(&queue) else {
                continue;
            };
            let lapsed = lane.confirmed(connection, answered_tag, self.last_delivery_tag, now);
            if lane.reads_until_ack(connection) {
                for lapsed in lapsed {
                    let seq = lapsed.seq;
                    let waiting = lapsed.into_missed(answered_tag);
                    lane.give_back(seq, waiting, self.policy.max_redeliveries, None, now);
                }
                self.return_exposed(queue, connection, answered_tag, now);
            } else {
                self.lease_again(queue, connection, lapsed, answered_tag);
            }
            self.dirty.insert(queue);
        }
    }

    /// Gives back what a consumer has discarded.
    fn return_exposed(
        &mut self,
        queue: QueueId,
        connection: ConnectionId,
        answered_tag: u64,
        now: Instant,
    ) {
        let exposed = take_leases(&mut self.in_flight, |lease| {
            lease.queue == queue
                && lease.holder == Some(connection)
                && !lease.acked
                && lease.delivery_tag > answered_tag
        });
        for taken in exposed {
            self.free_all(&taken.leases);
            for lease in taken.leases.iter().filter(|_| !taken.gone) {
                self.give_back_missed(&taken.message_id, lease, answered_tag, now);
            }
            self.forget_if_done(&taken.message_id);
        }
    }

    /// Leases to a consumer again what lapsed while it was busy with another message.
    fn lease_again(
        &mut self,
        queue: QueueId,
        connection: ConnectionId,
        lapsed: Vec<Lapsed>,
        answered_tag: u64,
    ) {
        if let Some(lane) = self.lanes.get_mut(&queue) {
            lane.leased_again(connection, lapsed.len());
        }
        for lapsed in lapsed {
            let Lapsed {
                seq,
                waiting,
                lapse,
            } = lapsed;
            // Always there: it has been delivered.
            let Some(first) = waiting.first else {
                continue;
            };
            let in_flight = self.in_flight.entry(waiting.message_id).or_default();
            in_flight.leases.push(Lease {
                queue,
                seq,
                holder: Some(connection),
                credited: true,
                acked: false,
                since: lapse.since,
                first,
                attempts: waiting.attempts,
                lapses: waiting.lapses.without(connection, answered_tag),
                delivery_tag: lapse.delivery_tag,
                missed_by: waiting.missed_by,
            });
        }
    }
}
