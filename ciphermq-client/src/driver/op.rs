//! The operations that handles ask the driver for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ciphermq_protocol::{Command, Envelope, ExchangeName, Reply, RoutingKey};
use tokio::sync::oneshot;

use super::outcome::{AckSummary, OutcomeObserver, Summary};
use super::settings::BatchLimits;
use super::window::Window;
use crate::error::PublishError;

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
pub(crate) struct PublisherId(pub(super) u64);

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
    /// The message's share of the publisher's window, in bytes.
    pub(crate) weight: u32,
    pub(crate) receipt: Option<oneshot::Sender<Result<(), PublishError>>>,
}
