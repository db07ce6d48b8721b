//! What goes into an inbox and comes out of it.

use std::time::{Duration, Instant};

use ciphermq_protocol::{Delivery, MessageId};

use super::budget::Budget;
use crate::model::{PageLimit, QueueId, Seq};

pub use crate::model::ConnectionId;

/// The limits of an inbox.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The silence after which a connection loses its leases.
    pub redelivery_timeout: Duration,
    /// The number of lost leases after which a message is deferred.
    pub max_redeliveries: u32,
    /// The most messages of a lane that are deferred before the redelivery timeout. Each takes some
    /// 300 bytes.
    pub max_deferred: usize,
    /// The most bytes on their way to a connection's socket; always at least one message.
    pub unsent_bytes: usize,
    /// The same for all connections of the client together; beyond it each has a little, and beyond
    /// twice as much nothing.
    pub client_unsent_bytes: usize,
    /// The most that one lane holds ready.
    pub ready: PageLimit,
}

impl Policy {
    /// Whether nothing more may be sent to any connection of the client.
    pub(super) fn has_sent_too_much(&self, unsent: usize) -> bool {
        unsent >= 2 * self.client_unsent_bytes
    }

    /// Returns the most bytes that may be on their way to one connection's socket, when `unsent`
    /// are on their way to all sockets of the client.
    pub(super) fn most_unsent(&self, unsent: usize, budget: &Budget) -> usize {
        if unsent < self.client_unsent_bytes && budget.free() > 0 {
            self.unsent_bytes
        } else {
            self.unsent_bytes.min(FREE_UNSENT_BYTES)
        }
    }
}

/// The bytes that a connection may always have on their way to its socket.
const FREE_UNSENT_BYTES: usize = 64 * 1024;

/// The memory that all inboxes share.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// For messages that are ready for delivery.
    pub ready: Budget,
    /// For deliveries on their way to sockets.
    pub unsent: Budget,
}

/// What a connection uses of an inbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionUse {
    /// The queues that it consumes from.
    pub queues: Vec<QueueId>,
    /// The number of messages that were delivered to it, and that it has not acknowledged.
    pub in_flight: u64,
}

/// Messages for one connection, in order.
#[derive(Debug)]
pub struct Dispatch {
    /// The connection.
    pub connection: ConnectionId,
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
}

/// The most acked messages that wait for their commits beside a prefetch: some commits' worth. All
/// that is not confirmed may come again after a crash, and receivers of older clients' messages
/// recognise the last 100,000.
const MOST_UNCONFIRMED: u32 = 16_384;

/// The most messages of one queue that a connection has at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefetch {
    pub(super) unacked: u32,
    pub(super) unconfirmed: u32,
}

impl Prefetch {
    /// Counts messages until their confirmations: what an ack makes room for comes after its
    /// confirmation.
    #[must_use]
    pub fn until_confirmed(messages: u32) -> Self {
        Self {
            unacked: messages,
            unconfirmed: messages,
        }
    }

    /// Counts messages until their acks, and as many again, but at most 16,384, until their
    /// confirmations: the receiver does not wait for the commit.
    #[must_use]
    pub fn until_acked(messages: u32) -> Self {
        Self {
            unacked: messages,
            unconfirmed: messages.saturating_add(messages.min(MOST_UNCONFIRMED)),
        }
    }
}

/// A read from the store, whose result goes to [`Inbox::loaded`](super::Inbox::loaded).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadRequest {
    /// The lane's queue.
    pub queue: QueueId,
    /// The part of the lane.
    pub what: LoadScope,
}

/// The part of a lane to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadScope {
    /// Messages after this one.
    After(Seq, PageLimit),
    /// These messages again, up to this number of bytes.
    Again(Vec<Seq>, usize),
}

/// The work that [`Inbox::poll`](super::Inbox::poll) asks for.
#[derive(Debug, Default)]
pub struct Actions {
    /// Deliveries, at most one entry a connection and lane.
    pub dispatches: Vec<Dispatch>,
    /// Reads.
    pub loads: Vec<LoadRequest>,
    /// Messages that were deferred since the last time, as their consumer did not answer them, each
    /// with the number of times that it did not: for the log.
    pub deferred: Vec<(MessageId, u32)>,
    /// The time for one call of [`Inbox::look`](super::Inbox::look): a consumer may have stalled
    /// then.
    pub look_at: Option<Instant>,
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
