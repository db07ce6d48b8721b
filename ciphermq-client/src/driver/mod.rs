//! The task that owns a connection.
//!
//! ```text
//!   handles ── Op ──► machine ──► bytes ──► TLS
//!                        ▲                   │
//!                        └───── bytes ◄──────┘
//! ```
//!
//! - `opening`: the first exchange on a new connection, hello and set-up
//! - `pending_replies`: matches each reply to a command of this connection
//! - `outbox`: items that are sent until they are answered, across reconnects
//! - `publications`: the publishers' outboxes, and the effect of replies on them
//! - `acks`: the outbox of acknowledgements
//! - `machine`: the protocol logic as a whole: bytes and times in, bytes out
//! - `task`: sockets, clock, reconnecting
//! - `handle`: the handles' end of the channel
//!
//! All but the last two use neither sockets nor clock.

mod acks;
mod handle;
mod machine;
mod opening;
mod outbox;
mod pending_replies;
mod publications;
mod task;

#[cfg(test)]
mod machine_tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ciphermq_protocol::{Command, Envelope, ExchangeName, Reply, RoutingKey};
use tokio::sync::oneshot;

pub(crate) use acks::AckItem;
pub(crate) use handle::Handle;
pub(crate) use task::start;

use crate::backoff::Backoff;
use crate::consumer::AckSummary;
use crate::error::PublishError;
use crate::publisher::{BatchLimits, OutcomeObserver, Summary, Window};

/// Limits and timing of a connection.
#[derive(Debug, Clone)]
pub(crate) struct DriverSettings {
    pub(crate) retry: Retry,
    pub(crate) ping_interval: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) max_reply_bytes: usize,
    pub(crate) program: String,
}

/// Number and duration of the attempts of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) attempts: u32,
    pub(crate) timeout: Duration,
}

impl Retry {
    /// Returns the time that all attempts take together.
    pub(crate) fn total(self) -> Duration {
        self.timeout.saturating_mul(self.attempts)
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            timeout: Duration::from_secs(10),
        }
    }
}

/// The commands that follow hello on every new connection.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Identifies the consumer across its connections.
    pub(crate) consumer: Option<String>,
    pub(crate) commands: Vec<Command>,
    /// The current prefetch, which overrides that of the `consume` command.
    pub(crate) prefetch: Option<Arc<AtomicU32>>,
}

impl Setup {
    /// Returns the set-up of a connection for requests and publishing: hello is enough.
    pub(crate) fn client() -> Self {
        Self {
            consumer: None,
            commands: Vec::new(),
            prefetch: None,
        }
    }
}

/// An operation that a handle asks the driver for.
#[derive(Debug)]
pub(crate) enum Op {
    Request(Request),
    OpenPublisher(PublisherId, PublisherSetup),
    Publish(PublisherId, Outgoing),
    Flush(PublisherId, oneshot::Sender<Result<(), PublishError>>),
    Finish(PublisherId, oneshot::Sender<Summary>),
    FlushAcks(oneshot::Sender<AckSummary>),
    Close(oneshot::Sender<()>),
}

/// A command with a reply of one line. Its caller waits no longer than all attempts take.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Reply>,
}

/// Identifies a publisher within the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PublisherId(u64);

impl PublisherId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The driver's view of a publisher.
#[derive(Debug)]
pub(crate) struct PublisherSetup {
    pub(crate) exchange: ExchangeName,
    pub(crate) routing_key: RoutingKey,
    pub(crate) limits: BatchLimits,
    pub(crate) window: Arc<Window>,
    pub(crate) observer: OutcomeObserver,
}

/// A sealed message on its way to the server.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) envelope: Envelope,
    /// Its share of the publisher's window, in bytes.
    pub(crate) weight: u32,
    pub(crate) receipt: Option<oneshot::Sender<Result<(), PublishError>>>,
}
