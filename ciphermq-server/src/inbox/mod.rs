//! One receiver's waiting messages in memory: its lanes, leases, consumers and their credit.
//!
//! A message goes only to the client that it is for, and an ack names no queue. So memory is
//! divided by receiver: an [`Inbox`] holds a `Lane` for each queue with messages or consumers of
//! that receiver, and everything that is in flight to it. Receivers do not wait for each other.
//!
//! ```text
//!    committed ──► fresh ──┐                      ┌─ settled ──► credit free again
//!    store page ──► fresh ─┼─► in flight (leased) ┴─ removed ──► gone
//!    lost lease ► returned ┤        │
//!         ▲       aside ───┘        │
//!         │         ▲               │
//!         │         └─ not answered ┤
//!         └─ connection lost, resend ┘
//! ```
//!
//! No I/O, no clock, no lock: values and the time in; [`Inbox::poll`] then tells what to deliver
//! and what to read.

mod budget;
mod consumer;
mod deferred;
mod in_flight;
mod lane;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use ciphermq_protocol::envelope::EnvelopeBytes;
use ciphermq_protocol::{Delivery, MessageId};

pub use budget::Budget;
use deferred::Lapse;
use in_flight::{InFlight, Lease};
use lane::{Lane, Waiting};

use crate::model::{AckOutcome, Page, PageLimit, QueueId, Seq, Time};

/// A connection of the receiver, for as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// How an inbox behaves.
#[derive(Debug, Clone)]
pub struct Policy {
    /// After how long a silence a connection loses its leases.
    pub redelivery_timeout: Duration,
    /// After how many lost leases a message steps aside for all others.
    pub max_redeliveries: u32,
    /// The most messages of a lane that are deferred before the redelivery timeout. Each takes some
    /// 300 bytes.
    pub max_deferred: usize,
    /// How many bytes may be on their way to a connection's socket; one message at least.
    pub unsent_bytes: usize,
    /// How much one lane holds ready.
    pub ready: PageLimit,
}

/// Messages for one connection, in order.
#[derive(Debug)]
pub struct Dispatch {
    /// The connection.
    pub connection: ConnectionId,
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
}

/// So many acked messages may wait for their commits beside a prefetch: some commits' worth. All
/// that is not confirmed may come again after a crash, and receivers of older clients' messages
/// recognise the last 100,000.
const MOST_UNCONFIRMED: u32 = 16_384;

/// How many messages of one queue a connection may have at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefetch {
    unacked: u32,
    unconfirmed: u32,
}

impl Prefetch {
    /// So many until their confirmations: what an ack makes room for comes after its confirmation.
    #[must_use]
    pub fn until_confirmed(messages: u32) -> Self {
        Self {
            unacked: messages,
            unconfirmed: messages,
        }
    }

    /// So many until their acks, and as many again, but no more than 16,384, until their
    /// confirmations: a receiver need not wait for the commit.
    #[must_use]
    pub fn until_acked(messages: u32) -> Self {
        Self {
            unacked: messages,
            unconfirmed: messages.saturating_add(messages.min(MOST_UNCONFIRMED)),
        }
    }
}

/// What to read from the store, then to hand to [`Inbox::loaded`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadRequest {
    /// The lane's queue.
    pub queue: QueueId,
    /// What of it.
    pub what: LoadScope,
}

/// What to read of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadScope {
    /// What comes after this.
    After(Seq, PageLimit),
    /// These again, up to so many bytes.
    Again(Vec<Seq>, usize),
}

/// What [`Inbox::poll`] wants to be done.
#[derive(Debug, Default)]
pub struct Actions {
    /// Deliveries, at most one entry a connection and lane.
    pub dispatches: Vec<Dispatch>,
    /// Reads.
    pub loads: Vec<LoadRequest>,
    /// When to call [`Inbox::look`], once: a message may then have been left unanswered for too
    /// long.
    pub look_at: Option<Instant>,
}

/// What [`Inbox::expire`] has ended.
#[derive(Debug, Default)]
pub struct Expired {
    /// Connections that did not answer in time. [`Inbox::touch`] wants to know when something is
    /// received on them.
    pub silent: HashSet<ConnectionId>,
    /// Messages that stepped aside, with how often they have by now.
    pub deferred: Vec<(MessageId, u32)>,
}

/// The answer to a `fetch`.
#[derive(Debug)]
pub enum Fetched {
    /// The message, leased to the connection.
    Message(Delivery),
    /// Nothing waits.
    Nothing,
    /// Read this first, then ask again.
    Load(LoadRequest),
    /// Another read is under way; ask again after it.
    Loading,
}

/// A connection that consumes or fetches.
#[derive(Debug, Default)]
struct Peer {
    unsent: usize,
    queues: HashSet<QueueId>,
    /// It has left a message unanswered, and nothing was received on it since: it may be dead.
    silent: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Inbox {
    policy: Policy,
    budget: Budget,
    lanes: HashMap<QueueId, Lane>,
    in_flight: HashMap<MessageId, InFlight>,
    peers: HashMap<ConnectionId, Peer>,
    /// Lanes in which something has changed since they were pumped.
    dirty: HashSet<QueueId>,
    /// How many messages were handed out.
    last_delivery_tag: u64,
    /// A consumer may be on probation.
    probation: bool,
    /// Somebody has been told when to look.
    looking: bool,
}

/// What happens to an inbox. After any of these, [`Inbox::poll`] it.
impl Inbox {
    /// An inbox that holds nothing yet; the store may hold more.
    #[must_use]
    pub fn new(policy: Policy, budget: Budget) -> Self {
        Self {
            policy,
            budget,
            lanes: HashMap::new(),
            in_flight: HashMap::new(),
            peers: HashMap::new(),
            dirty: HashSet::new(),
            last_delivery_tag: 0,
            probation: false,
            looking: false,
        }
    }

    /// A connection wants the queue's messages, at most so many of them at a time.
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

    /// A message for this receiver was committed.
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

    /// An ack or rejection was read on `connection`: from now on the message is not delivered
    /// again, unless the store says that it still waits. Returns when it was first delivered, as
    /// far as is known here.
    pub fn begin_ack(
        &mut self,
        connection: ConnectionId,
        message_id: &MessageId,
        now: Instant,
    ) -> Option<Time> {
        let in_flight = self.in_flight.entry(message_id.clone()).or_default();
        in_flight.acks += 1;
        for lease in &mut in_flight.leases {
            if lease.holder == Some(connection) && lease.credited && !lease.acked {
                lease.acked = true;
                if let Some(lane) = self.lanes.get_mut(&lease.queue)
                    && lane.acked(connection, lease.since, lease.delivery_tag, now)
                {
                    self.dirty.insert(lease.queue);
                }
            }
        }
        in_flight.leases.iter().map(|lease| lease.delivered).min()
    }

    /// The store has decided on an ack or rejection that was begun.
    ///
    /// The credit of a lease whose connection has acked it stays taken until [`Inbox::settled`], so
    /// that no delivery overtakes the confirmation that makes room for it; [`Prefetch`] tells what
    /// is free before.
    pub fn ack_committed(&mut self, message_id: &MessageId, outcome: &AckOutcome, now: Instant) {
        if let AckOutcome::Done(copies) = outcome {
            for (queue, seq) in copies {
                if let Some(lane) = self.lanes.get_mut(queue)
                    && let Some(lapse) = lane.remove(*seq, &self.budget)
                {
                    lane.acked_late(&lapse, now);
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
        // Also where a lease had lapsed before: its client waited for the confirmation all the same.
        if self.probation {
            self.lease_again(connection, now);
        }
    }

    /// Leases to a consumer again what lapsed while it was busy with another message.
    fn lease_again(&mut self, connection: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.get(&connection) else {
            return;
        };
        for queue in &peer.queues {
            let Some(lane) = self.lanes.get_mut(queue) else {
                continue;
            };
            for (seq, waiting, lapse) in lane.confirmed(connection, self.last_delivery_tag, now) {
                // Always there: it has been delivered.
                let Some((delivered, recorded)) = waiting.delivered else {
                    continue;
                };
                let in_flight = self.in_flight.entry(waiting.message_id).or_default();
                in_flight.leases.push(Lease {
                    queue: *queue,
                    seq,
                    holder: Some(connection),
                    credited: true,
                    acked: false,
                    since: lapse.since,
                    delivered,
                    recorded,
                    attempts: waiting.attempts,
                    lapses: waiting.lapses.saturating_sub(1),
                    delivery_tag: lapse.delivery_tag,
                });
            }
            self.dirty.insert(*queue);
        }
    }

    /// So many bytes of deliveries have been written to the connection's socket.
    pub fn sent(&mut self, connection: ConnectionId, bytes: usize) {
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        let was_full = peer.unsent >= self.policy.unsent_bytes;
        peer.unsent = peer.unsent.saturating_sub(bytes);
        if was_full && peer.unsent < self.policy.unsent_bytes {
            for queue in &peer.queues {
                if let Some(lane) = self.lanes.get_mut(queue) {
                    lane.enlist(connection);
                    self.dirty.insert(*queue);
                }
            }
        }
    }

    /// The store has answered a [`LoadRequest`].
    pub fn loaded(&mut self, load: LoadRequest, page: Page) {
        if let Some(lane) = self.lanes.get_mut(&load.queue) {
            lane.loaded(load.what, page, &self.budget);
            self.dirty.insert(load.queue);
        }
    }

    /// The sender wants an unacknowledged message to be delivered again, even while it is leased.
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

    /// The connection has ended: its leases return at once, at the head of their lanes, in order.
    pub fn disconnect(&mut self, connection: ConnectionId, now: Instant) {
        let Some(peer) = self.peers.remove(&connection) else {
            return;
        };
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
            lease.lapses = 0;
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
    pub fn expire(
        &mut self,
        now: Instant,
        last_received: impl Fn(ConnectionId) -> Option<Instant>,
    ) -> Expired {
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
        let mut expired = Expired::default();
        let mut holders = HashSet::new();
        for (message_id, leases, gone) in take_leases(&mut self.in_flight, lapsed) {
            self.free_all(&leases);
            for lease in &leases {
                holders.extend(lease.holder.map(|holder| (lease.queue, holder)));
                if gone {
                    continue;
                }
                let lapses = self.lapse(&message_id, lease, now);
                expired
                    .deferred
                    .extend(lapses.map(|lapses| (message_id.clone(), lapses)));
            }
            self.forget_if_done(&message_id);
        }
        for (queue, connection) in holders {
            if let Some(lane) = self.lanes.get_mut(&queue) {
                lane.suspect(connection);
                lane.stalled(connection, &self.policy);
                self.probation = true;
            }
            if let Some(peer) = self.peers.get_mut(&connection) {
                peer.silent = true;
            }
            expired.silent.insert(connection);
        }
        expired
    }

    /// It is time to look for messages that are left unanswered. Call [`Inbox::expire`] after it.
    pub fn look(&mut self) {
        self.looking = false;
    }

    /// The client asks to keep what it was handed: it is slow, and lives.
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

    /// Something was received on a connection that had been silent: it lives.
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

    /// Time has passed: parked messages may be due.
    pub fn wake(&mut self, now: Instant) {
        let due = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.has_consumers() && lane.has_due(now));
        self.dirty.extend(due.map(|(queue, _)| *queue));
    }

    /// Forgets lanes in which nothing happens, and gives their memory back. Returns whether nothing
    /// is left.
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

/// What an inbox gives.
impl Inbox {
    /// Hands out what can be handed out, consumers of a lane in turn, and tells what to read next.
    pub fn poll(&mut self, clock: (Instant, Time)) -> Actions {
        let mut actions = Actions::default();
        for queue in std::mem::take(&mut self.dirty) {
            self.dispatch(queue, clock, &mut actions.dispatches);
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

    fn dispatch(&mut self, queue: QueueId, clock: (Instant, Time), dispatches: &mut Vec<Dispatch>) {
        let Some(lane) = self.lanes.get_mut(&queue) else {
            return;
        };
        let unsent_bytes = self.policy.unsent_bytes;
        while let Some(connection) =
            lane.next_consumer(|c| self.peers.get(&c).is_some_and(|p| p.unsent < unsent_bytes))
        {
            let Some(next) = lane.next(clock.0, &self.budget) else {
                break;
            };
            self.last_delivery_tag += 1;
            let to = (connection, true, self.last_delivery_tag);
            let Some(delivery) = lease(&mut self.in_flight, lane, queue, next, to, clock) else {
                continue;
            };
            lane.take_credit(connection);
            if let Some(peer) = self.peers.get_mut(&connection) {
                peer.unsent += delivery.envelope.len();
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

    /// Takes one message for a connection that does not consume.
    pub fn fetch(
        &mut self,
        queue: QueueId,
        connection: ConnectionId,
        clock: (Instant, Time),
    ) -> Fetched {
        let lane = self.lanes.entry(queue).or_default();
        while let Some(next) = lane.next(clock.0, &self.budget) {
            self.last_delivery_tag += 1;
            let to = (connection, false, self.last_delivery_tag);
            if let Some(delivery) = lease(&mut self.in_flight, lane, queue, next, to, clock) {
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

    /// First deliveries that are not acked and whose time is not recorded yet: those at or before
    /// `before`, and those that have come back, as their time would be lost with the process.
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
                .filter(|lease| !lease.recorded && lease.since <= before)
            {
                lease.recorded = true;
                deliveries.push((message_id.clone(), lease.delivered));
            }
        }
        deliveries.extend(self.lanes.values_mut().flat_map(Lane::unrecorded));
        deliveries
    }

    /// Messages that let all others go first, with how often they were handed out.
    pub fn deferred(&self) -> impl Iterator<Item = (&MessageId, u32)> {
        self.lanes.values().flat_map(Lane::deferred)
    }
}

/// Leases.
impl Inbox {
    /// Ends the leases that `which` names, unless an ack is under way.
    fn end_leases(&mut self, now: Instant, which: impl FnMut(&Lease) -> bool) {
        for (message_id, leases, gone) in take_leases(&mut self.in_flight, which) {
            self.free_all(&leases);
            if !gone {
                self.give_back_all(&message_id, &leases, now);
            }
            self.forget_if_done(&message_id);
        }
    }

    /// A lease was not answered in time: its message steps aside, unless its holder may have missed
    /// it. Returns how often it has stepped aside.
    fn lapse(&mut self, message_id: &MessageId, lease: &Lease, now: Instant) -> Option<u32> {
        let holder = lease.holder?;
        let lane = self.lanes.entry(lease.queue).or_default();
        if lane.may_have_missed(holder, lease.delivery_tag) {
            // That says nothing of the message: it is not counted.
            self.give_back_after(lease.attempts, message_id, lease, None, now);
            return None;
        }
        let lapse = Lapse {
            holder,
            since: lease.since,
            kept_until: lease.since + self.policy.redelivery_timeout,
            delivery_tag: lease.delivery_tag,
        };
        self.give_back(message_id, lease, Some(lapse), now);
        Some(lease.lapses.saturating_add(1))
    }

    /// The leases' credit is free again.
    fn free_all(&mut self, leases: &[Lease]) {
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
    fn give_back_all(&mut self, message_id: &MessageId, leases: &[Lease], now: Instant) {
        for lease in leases {
            self.give_back(message_id, lease, None, now);
        }
    }

    fn give_back(
        &mut self,
        message_id: &MessageId,
        lease: &Lease,
        lapse: Option<Lapse>,
        now: Instant,
    ) {
        let attempts = lease.attempts.saturating_add(u32::from(lapse.is_none()));
        self.give_back_after(attempts, message_id, lease, lapse, now);
    }

    fn give_back_after(
        &mut self,
        attempts: u32,
        message_id: &MessageId,
        lease: &Lease,
        lapse: Option<Lapse>,
        now: Instant,
    ) {
        let waiting = Waiting {
            message_id: message_id.clone(),
            attempts,
            lapses: lease.lapses.saturating_add(u32::from(lapse.is_some())),
            delivered: Some((lease.delivered, lease.recorded)),
        };
        let lane = self.lanes.entry(lease.queue).or_default();
        lane.give_back(lease.seq, waiting, self.policy.max_redeliveries, lapse, now);
        self.dirty.insert(lease.queue);
    }

    fn forget_if_done(&mut self, message_id: &MessageId) {
        if self
            .in_flight
            .get(message_id)
            .is_some_and(InFlight::is_done)
        {
            self.in_flight.remove(message_id);
        }
    }
}

/// Leases a message that has come up. `None` if it is acked already, or if an ack for it is under
/// way: then it is set aside, and waits again only if the ack fails.
fn lease(
    in_flight: &mut HashMap<MessageId, InFlight>,
    lane: &mut Lane,
    queue: QueueId,
    (seq, waiting, envelope): (Seq, Waiting, EnvelopeBytes),
    (connection, credited, delivery_tag): (ConnectionId, bool, u64),
    (since, time): (Instant, Time),
) -> Option<Delivery> {
    let in_flight = in_flight.entry(waiting.message_id.clone()).or_default();
    if in_flight.gone {
        return None;
    }
    let holder = (in_flight.acks == 0).then_some(connection);
    let (delivered, recorded) = waiting.delivered.unwrap_or((time, false));
    in_flight.leases.push(Lease {
        queue,
        seq,
        holder,
        credited,
        acked: false,
        since,
        delivered,
        recorded,
        attempts: waiting.attempts,
        lapses: waiting.lapses,
        delivery_tag,
    });
    lane.leased();
    holder.map(|_| Delivery {
        message_id: waiting.message_id,
        envelope,
    })
}

/// Takes out the leases that `which` names, unless an ack is under way, and tells whether their
/// message is gone.
fn take_leases(
    in_flight: &mut HashMap<MessageId, InFlight>,
    mut which: impl FnMut(&Lease) -> bool,
) -> Vec<(MessageId, Vec<Lease>, bool)> {
    let mut taken = Vec::new();
    for (message_id, in_flight) in in_flight {
        if in_flight.gone || in_flight.acks == 0 {
            let leases = in_flight.extract(&mut which);
            if !leases.is_empty() {
                taken.push((message_id.clone(), leases, in_flight.gone));
            }
        }
    }
    taken
}
