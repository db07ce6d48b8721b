//! What an inbox wants to be done: deliveries, reads, and a look at a time.

use std::time::Instant;

use ciphermq_protocol::MessageId;

use super::lane::Lane;
use super::leases::{Lease, Recipient, lease};
use super::{Actions, ConnectionId, Dispatch, Fetched, Inbox, LoadRequest};
use crate::model::{Now, PageLimit, QueueId, Time};

impl Inbox {
    /// Delivers what can be delivered, to the consumers of a lane in turn, and returns what to read
    /// next.
    pub fn poll(&mut self, now: Now) -> Actions {
        let mut actions = Actions {
            deferred: std::mem::take(&mut self.newly_deferred),
            ..Actions::default()
        };
        for queue in std::mem::take(&mut self.dirty) {
            self.dispatch(queue, now, &mut actions.dispatches);
            let what = self
                .lanes
                .get_mut(&queue)
                .and_then(|lane| lane.begin_load(self.policy.ready, false, &self.budget));
            actions
                .loads
                .extend(what.map(|what| LoadRequest { queue, what }));
        }
        if self.probation && !self.looking {
            actions.look_at = self.next_look();
            self.looking = actions.look_at.is_some();
        }
        actions
    }

    /// Returns when the first message lapses that a consumer on probation holds.
    fn next_look(&mut self) -> Option<Instant> {
        self.probation = self.lanes.values().any(Lane::has_probation);
        let (lanes, policy) = (&self.lanes, &self.policy);
        let lapses_at = |lease: &Lease| {
            let lane = lanes.get(&lease.queue)?;
            lane.lapses_at(lease.holder?, lease.since, policy)
        };
        let leases = self
            .in_flight
            .values()
            .flat_map(|in_flight| &in_flight.leases);
        leases
            .filter(|lease| !lease.acked)
            .filter_map(lapses_at)
            .min()
    }

    fn dispatch(&mut self, queue: QueueId, now: Now, dispatches: &mut Vec<Dispatch>) {
        let Some(lane) = self.lanes.get_mut(&queue) else {
            return;
        };
        while !self.policy.has_sent_too_much(self.unsent) {
            let most = self.policy.most_unsent(self.unsent, &self.unsent_budget);
            let next = lane.next_consumer(|connection| {
                self.peers.get_mut(&connection).is_some_and(|peer| {
                    peer.is_full = peer.unsent >= most;
                    !peer.is_full
                })
            });
            let Some(connection) = next else { break };
            let Some(ready) = lane.next(now.instant, &self.budget) else {
                break;
            };
            self.last_delivery_tag += 1;
            let to = Recipient {
                connection,
                credited: true,
                delivery_tag: self.last_delivery_tag,
            };
            let Some(delivery) = lease(&mut self.in_flight, lane, queue, ready, to, now) else {
                continue;
            };
            lane.take_credit(connection);
            if let Some(peer) = self.peers.get_mut(&connection) {
                let bytes = delivery.envelope.len();
                peer.unsent += bytes;
                self.unsent += bytes;
                self.unsent_budget.take(bytes);
            }
            match dispatches
                .iter_mut()
                .find(|dispatch| dispatch.connection == connection)
            {
                Some(dispatch) => dispatch.deliveries.push(delivery),
                None => dispatches.push(Dispatch {
                    connection,
                    deliveries: vec![delivery],
                }),
            }
        }
    }

    /// Leases one message to a connection that does not consume.
    pub fn fetch(&mut self, queue: QueueId, connection: ConnectionId, now: Now) -> Fetched {
        let lane = self.lanes.entry(queue).or_default();
        while let Some(ready) = lane.next(now.instant, &self.budget) {
            self.last_delivery_tag += 1;
            let to = Recipient {
                connection,
                credited: false,
                delivery_tag: self.last_delivery_tag,
            };
            if let Some(delivery) = lease(&mut self.in_flight, lane, queue, ready, to, now) {
                self.peers
                    .entry(connection)
                    .or_default()
                    .queues
                    .insert(queue);
                return Fetched::Message(delivery);
            }
        }
        if lane.is_loading() {
            return Fetched::Loading;
        }
        let one = PageLimit {
            messages: 1,
            bytes: 1,
        };
        match lane.begin_load(one, true, &self.budget) {
            Some(what) => Fetched::Load(LoadRequest { queue, what }),
            None => Fetched::Nothing,
        }
    }

    /// Returns first deliveries that are not acked and whose time is not recorded yet: those at or
    /// before `before`, and those that have come back, whose time would be lost with the process.
    pub fn unrecorded(&mut self, before: Instant) -> Vec<(MessageId, Time)> {
        let mut deliveries = Vec::new();
        for (message_id, in_flight) in self
            .in_flight
            .iter_mut()
            .filter(|(_, in_flight)| !in_flight.gone)
        {
            for lease in in_flight
                .leases
                .iter_mut()
                .filter(|lease| !lease.first.recorded && lease.since <= before)
            {
                lease.first.recorded = true;
                deliveries.push((message_id.clone(), lease.first.time));
            }
        }
        deliveries.extend(self.lanes.values_mut().flat_map(Lane::unrecorded));
        deliveries
    }

    /// Returns the deferred messages, each with the number of its deliveries.
    pub fn deferred(&self) -> impl Iterator<Item = (&MessageId, u32)> {
        self.lanes.values().flat_map(Lane::deferred)
    }
}
