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
//!         ▲    deferred ───┘        │
//!         │         ▲               │
//!         │         └─ not answered ┤
//!         └─ connection lost, resend ┘
//! ```
//!
//! | state | meaning |
//! |---|---|
//! | fresh | never delivered |
//! | in flight | delivered to a connection, under a lease, and not settled |
//! | returned | its lease has ended without an answer: the next one to be delivered |
//! | deferred | returned too often, or not answered in time: delivered after all others |
//! | settled | acked by its receiver, and the ack is committed |
//!
//! An inbox does no I/O and has no clock and no lock: events and the time go in, and
//! [`Inbox::poll`] returns what to deliver and what to read from the store.
//!
//! Modules in reading order: `types`, what goes in and out; `events`, what happens to an inbox;
//! `poll`, what it wants to be done; `leases`, what it has handed out; `lane`, the messages of one
//! queue; `waiting`, a message that waits; `consumer`, credit and probation; `probation`, what
//! follows for leases; `deferred`, messages that let others go first; `budget`, the memory for
//! messages held ready.

mod budget;
mod consumer;
mod deferred;
mod events;
mod lane;
mod leases;
mod poll;
mod probation;
#[cfg(test)]
mod tests;
mod types;
mod waiting;

use std::collections::{HashMap, HashSet};

use ciphermq_protocol::MessageId;

pub use budget::Budget;
use lane::Lane;
use leases::InFlight;
pub use types::{
    Actions, Budgets, ConnectionId, ConnectionUse, Dispatch, Fetched, LoadRequest, LoadScope,
    Policy, Prefetch,
};

use crate::model::QueueId;

/// A connection that consumes or fetches.
#[derive(Debug, Default)]
struct Peer {
    /// Bytes of deliveries that are not written to the socket yet.
    unsent: usize,
    /// Whether it gets no more until some of these are written.
    is_full: bool,
    /// The queues that it consumes from, or has fetched from.
    queues: HashSet<QueueId>,
    /// Whether it has left a message unanswered and nothing was received from it since, so that it
    /// may be dead.
    silent: bool,
}

/// One receiver's waiting messages in memory.
#[derive(Debug)]
pub struct Inbox {
    policy: Policy,
    /// Memory for messages held ready, shared by all inboxes.
    budget: Budget,
    /// Memory for deliveries on their way to sockets, shared by all inboxes.
    unsent_budget: Budget,
    /// Bytes of deliveries to all connections that are not written to their sockets yet.
    unsent: usize,
    /// A lane for each queue that has consumers, or messages in memory.
    lanes: HashMap<QueueId, Lane>,
    /// The messages with a lease, or with an ack that is not committed.
    in_flight: HashMap<MessageId, InFlight>,
    /// The connections that consume or fetch.
    peers: HashMap<ConnectionId, Peer>,
    /// Lanes in which something has changed since the last poll.
    dirty: HashSet<QueueId>,
    /// Messages that were deferred since the last poll, with the number of times.
    newly_deferred: Vec<(MessageId, u32)>,
    /// The number of deliveries so far.
    last_delivery_tag: u64,
    /// Whether any consumer may be on probation.
    probation: bool,
    /// Whether the caller has been told when to look for stalled consumers.
    looking: bool,
}

impl Inbox {
    /// Creates an inbox that holds nothing yet; the store may hold more.
    #[must_use]
    pub fn new(policy: Policy, budgets: Budgets) -> Self {
        Self {
            policy,
            budget: budgets.ready,
            unsent_budget: budgets.unsent,
            unsent: 0,
            lanes: HashMap::new(),
            in_flight: HashMap::new(),
            peers: HashMap::new(),
            dirty: HashSet::new(),
            newly_deferred: Vec::new(),
            last_delivery_tag: 0,
            probation: false,
            looking: false,
        }
    }
}
