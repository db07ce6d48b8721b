//! Leases: messages delivered and not yet acknowledged, or acknowledged and not yet settled.

use std::collections::HashMap;
use std::time::Instant;

use ciphermq_protocol::{Delivery, MessageId};

use super::lane::{Lane, Ready};
use super::waiting::{FirstDelivery, Lapse, Lapses, Waiting};
use super::{ConnectionId, Inbox};
use crate::model::{Now, QueueId, Seq};

/// The leases and acks of one message id.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// One lease for each queue that has delivered it: nearly always one.
    pub(super) leases: Vec<Lease>,
    /// The number of its acks on their way to the store.
    pub(super) acks: u32,
    /// Whether the store has removed it: only confirmations are left to be sent.
    pub(super) gone: bool,
}

impl InFlight {
    pub(super) fn is_done(&self) -> bool {
        self.leases.is_empty() && self.acks == 0
    }

    /// Takes out the leases for which `which` is true.
    pub(super) fn extract(&mut self, mut which: impl FnMut(&Lease) -> bool) -> Vec<Lease> {
        self.leases.extract_if(.., |lease| which(lease)).collect()
    }
}

/// A message delivered to a connection.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) queue: QueueId,
    pub(super) seq: Seq,
    /// `None` once the connection has ended while an ack was under way.
    pub(super) holder: Option<ConnectionId>,
    /// Whether it takes a consumer's credit; a fetched message does not.
    pub(super) credited: bool,
    /// Whether its holder has acked it, which may make room for another one.
    pub(super) acked: bool,
    pub(super) since: Instant,
    /// Its first delivery, which may be this one.
    pub(super) first: FirstDelivery,
    /// The number of times that it came back before, other than by lapsing.
    pub(super) attempts: u32,
    /// The number of times that it was not answered in time before.
    pub(super) lapses: Lapses,
    /// The delivery's number among all of the inbox.
    pub(super) delivery_tag: u64,
    /// The connection that may have discarded it before.
    pub(super) missed_by: Option<ConnectionId>,
}

impl Lease {
    /// Returns the tag of the delivery that an answer of the connection is to: the message may have
    /// lapsed there, and be delivered again, while the connection was busy with it.
    pub(super) fn tag_at(&self, connection: ConnectionId, lane: &Lane) -> u64 {
        let answered_tag = lane.answered_tag(connection).unwrap_or_default();
        let first_tag = self.lapses.first_tag(connection, answered_tag);
        first_tag.unwrap_or(self.delivery_tag)
    }

    /// Returns the message as it waits if it comes back as it was delivered.
    fn waiting(&self, message_id: &MessageId) -> Waiting {
        Waiting {
            message_id: message_id.clone(),
            attempts: self.attempts,
            lapses: self.lapses,
            first: Some(self.first),
            missed_by: self.missed_by,
        }
    }
}

impl Inbox {
    /// Ends the leases that `which` names, unless an ack is under way.
    pub(super) fn end_leases(&mut self, now: Instant, which: impl FnMut(&Lease) -> bool) {
        for taken in take_leases(&mut self.in_flight, which) {
            self.free_all(&taken.leases);
            if !taken.gone {
                self.give_back_all(&taken.message_id, &taken.leases, now);
            }
            self.forget_if_done(&taken.message_id);
        }
    }

    /// A lease was not answered in time: its message steps aside, unless its holder may have missed
    /// it. Returns how often it has stepped aside.
    pub(super) fn lapse(
        &mut self,
        message_id: &MessageId,
        lease: &Lease,
        now: Instant,
    ) -> Option<u32> {
        let holder = lease.holder?;
        let lane = self.lanes.entry(lease.queue).or_default();
        let answered_tag = lane.answered_tag(holder).unwrap_or_default();
        if lane.may_have_missed(holder, lease.delivery_tag) {
            self.give_back_missed(message_id, lease, answered_tag, now);
            return None;
        }
        let lapse = Lapse {
            holder,
            since: lease.since,
            kept_until: lease.since + self.policy.redelivery_timeout,
            delivery_tag: lease.delivery_tag,
        };
        let waiting = Waiting {
            lapses: lease.lapses.another(&lapse, answered_tag),
            ..lease.waiting(message_id)
        };
        let lapses = waiting.lapses.count();
        self.put_back(waiting, lease, Some(lapse), now);
        Some(lapses)
    }

    /// The leases' credit is free again.
    pub(super) fn free_all(&mut self, leases: &[Lease]) {
        for lease in leases {
            let Some(lane) = self.lanes.get_mut(&lease.queue) else {
                continue;
            };
            lane.released();
            if let Some(holder) = lease.holder.filter(|_| lease.credited) {
                lane.free_credit(holder, lease.acked);
            }
            self.dirty.insert(lease.queue);
        }
    }

    /// The message waits again, at the head of its lanes or aside.
    pub(super) fn give_back_all(&mut self, message_id: &MessageId, leases: &[Lease], now: Instant) {
        for lease in leases {
            let waiting = Waiting {
                attempts: lease.attempts.saturating_add(1),
                ..lease.waiting(message_id)
            };
            self.put_back(waiting, lease, None, now);
        }
    }

    /// The message waits again as before, since its holder may have discarded it: that says nothing
    /// of the message. Nor do its lapses at this holder since the `answered_tag`.
    pub(super) fn give_back_missed(
        &mut self,
        message_id: &MessageId,
        lease: &Lease,
        answered_tag: u64,
        now: Instant,
    ) {
        let lapses = lease
            .holder
            .map(|holder| lease.lapses.without(holder, answered_tag));
        let waiting = Waiting {
            lapses: lapses.unwrap_or(lease.lapses),
            missed_by: lease.holder,
            ..lease.waiting(message_id)
        };
        self.put_back(waiting, lease, None, now);
    }

    fn put_back(&mut self, waiting: Waiting, lease: &Lease, lapse: Option<Lapse>, now: Instant) {
        let lane = self.lanes.entry(lease.queue).or_default();
        lane.give_back(lease.seq, waiting, self.policy.max_redeliveries, lapse, now);
        self.dirty.insert(lease.queue);
    }

    pub(super) fn forget_if_done(&mut self, message_id: &MessageId) {
        if self
            .in_flight
            .get(message_id)
            .is_some_and(InFlight::is_done)
        {
            self.in_flight.remove(message_id);
        }
    }
}

/// The connection that a message is delivered to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipient {
    pub(super) connection: ConnectionId,
    /// Whether the message takes a consumer's credit; a fetched one does not.
    pub(super) credited: bool,
    /// The delivery's number among all of the inbox.
    pub(super) delivery_tag: u64,
}

/// Leases that have been taken out of a message's.
pub(super) struct TakenLeases {
    pub(super) message_id: MessageId,
    pub(super) leases: Vec<Lease>,
    /// Whether the store has removed the message.
    pub(super) gone: bool,
}

/// Leases a message that has come up. `None` if it is acked already, or if an ack for it is under
/// way: then it is set aside, and waits again only if the ack fails.
pub(super) fn lease(
    in_flight: &mut HashMap<MessageId, InFlight>,
    lane: &mut Lane,
    queue: QueueId,
    ready: Ready,
    to: Recipient,
    now: Now,
) -> Option<Delivery> {
    let Ready {
        seq,
        waiting,
        envelope,
    } = ready;
    let in_flight = in_flight.entry(waiting.message_id.clone()).or_default();
    if in_flight.gone {
        return None;
    }
    let holder = (in_flight.acks == 0).then_some(to.connection);
    in_flight.leases.push(Lease {
        queue,
        seq,
        holder,
        credited: to.credited,
        acked: false,
        since: now.instant,
        first: waiting.first.unwrap_or(FirstDelivery {
            time: now.time,
            recorded: false,
        }),
        attempts: waiting.attempts,
        lapses: waiting.lapses,
        delivery_tag: to.delivery_tag,
        missed_by: waiting.missed_by,
    });
    lane.leased();
    holder.map(|_| Delivery {
        message_id: waiting.message_id,
        envelope,
    })
}

/// Takes out the leases that `which` names, unless an ack is under way.
pub(super) fn take_leases(
    in_flight: &mut HashMap<MessageId, InFlight>,
    mut which: impl FnMut(&Lease) -> bool,
) -> Vec<TakenLeases> {
    let mut taken = Vec::new();
    for (message_id, in_flight) in in_flight {
        if in_flight.gone || in_flight.acks == 0 {
            let leases = in_flight.extract(&mut which);
            if !leases.is_empty() {
                taken.push(TakenLeases {
                    message_id: message_id.clone(),
                    leases,
                    gone: in_flight.gone,
                });
            }
        }
    }
    taken
}
