//! Group commit: one task commits everything that waits in one transaction.
//!
//! ```text
//!   publish, ack, ...           ┌───────────── writer task ─────────────┐
//!   ───── submission ─────────► │ queue ─► batch ─► Committer::commit   │
//!                               │                          │            │
//!   ◄──────── answer ────────── │ ◄── CommitObserver ◄─────┘            │
//!                               └───────────────────────────────────────┘
//! ```
//!
//! - Clients take turns, by the work that their submissions are for the database. A transaction is
//!   a turn of each, so that it is short while few clients have much to do. The submissions of one
//!   client are committed in their order. While one transaction is being committed the next
//!   one gathers.
//! - No submission is answered before its commit has returned and the observer has seen it.
//! - Publishes wait for room and for the database until their deadline; acks, rejections and
//!   changes wait indefinitely. The queue is bounded: publishes by bytes, acks and rejections by
//!   number. Each client has a part of that room.
//! - A commit whose outcome is not known is resolved before anything else is committed.
//! - A transaction that the database refuses is split until the faulty item is alone; only that
//!   item is refused. A transaction during which the connection is lost again and again is split,
//!   too.
//!
//! Modules in reading order: [`WriterHandle`] here; `client`, what a client submits; `cost` and
//! `fair_queue`, whose turn it is; `queue`, the submissions; `outcome`, splitting transactions and
//! joining their outcomes; `task`, the loop; `thread`, its runtime.

mod client;
mod cost;
mod fair_queue;
mod outcome;
mod queue;
mod task;
#[cfg(test)]
mod tests;
mod thread;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ciphermq_protocol::{ClientId, MessageId};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Committer, Space};
use crate::model::{
    Ack, AckOutcome, Change, ChangeOutcome, HeldBySender, Publish, Seq, Time, Transaction,
};
use crate::quota::Rooms;
use client::Shares;
pub use client::{ClientWriter, Deadlines, Parts};
use queue::Submission;
pub use thread::WriterThread;

/// Limits and timeouts of the writer.
#[derive(Debug, Clone)]
pub struct WriterSettings {
    /// The most bytes of messages that may be submitted and not yet answered, over all submitters.
    pub max_pending_bytes: usize,
    /// The most acks and rejections that may be submitted and not yet answered, over all
    /// submitters.
    pub max_pending_acks: usize,
    /// The part of both that one client may use: 1 divided by this number.
    pub client_part: usize,
    /// The work after which a transaction takes no further submission, however many clients wait,
    /// in about microseconds of the database's time.
    pub max_batch_work: u64,
    /// The number of envelope bytes after which a transaction takes no further submission.
    pub max_batch_bytes: usize,
    /// How long the metadata of an acknowledged message is kept after it was accepted; `None`:
    /// forever.
    pub metadata_retention: Option<Duration>,
    /// The time to commit what waits when all handles are dropped without
    /// [`WriterHandle::shutdown`], and the time to close the database.
    pub close_timeout: Duration,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self {
            max_pending_bytes: 64 << 20,
            max_pending_acks: 256 << 10,
            client_part: 4,
            max_batch_work: 24_576,
            max_batch_bytes: 8 << 20,
            metadata_retention: None,
            close_timeout: Duration::from_secs(10),
        }
    }
}

/// The reason why an item was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The database did not answer in time. Whether the item was written is not known.
    #[error("the database is not available")]
    Unavailable,
    /// The database's disk is full. Nothing was written.
    #[error("the database's disk is full")]
    Full,
    /// The database refuses this item, with its reason. Nothing was written.
    #[error("the database refuses it: {0}")]
    Refused(Arc<str>),
    /// The server is stopping. Whether the item was written is not known.
    #[error("the server is stopping")]
    Closed,
}

/// An ack or a rejection, with its outcome.
pub type Settled<'a> = (&'a Ack, &'a AckOutcome);

/// An observer of commits, called in their order and before the submitters are answered.
pub trait CommitObserver: Send + Sync {
    /// Called with the messages that were stored, in order, each with its first copy's sequence
    /// number, and with all acks and rejections, whatever their outcome. Called by the writer's
    /// task: must not block.
    ///
    /// An ack that the database refuses is reported as [`AckOutcome::NotFound`]: an id that the
    /// database cannot hold is no message's id.
    fn committed(
        &self,
        publishes: &[(Arc<Publish>, Seq)],
        acks: &[Settled<'_>],
        rejections: &[Settled<'_>],
    );

    /// Returns what the clients that a transaction concerns may still add; `space` is that on the
    /// database's disk. Called before each commit.
    fn rooms(&self, _transaction: &Transaction, _space: Space) -> Rooms {
        Rooms::default()
    }

    /// Called with what senders hold more or less since the last call, before anything else of a
    /// commit. Called by the writer's task: must not block.
    fn held(&self, _changes: &HeldBySender) {}

    /// Returns the senders of rejected messages, with the times before which they are not kept.
    fn rejected_before(&self, _now: Time) -> Vec<(ClientId, Time)> {
        Vec::new()
    }

    /// Called with all changes of a commit and their outcomes, after its messages. Called by the
    /// writer's task: must not block.
    fn changed(&self, changes: &[Change], outcomes: &[ChangeOutcome]);
}

/// The answer to a submission, when it arrives.
///
/// Awaiting it is cancel safe. Dropping it does not cancel the submission.
#[derive(Debug)]
pub struct Pending<T>(oneshot::Receiver<Result<T, WriteError>>);

impl<T> Future for Pending<T> {
    type Output = Result<T, WriteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Dropped without an answer: the writer has ended.
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(WriteError::Closed)))
    }
}

/// A handle for submitting to the writer. It is cheap to clone. When the last one is dropped, the
/// writer commits what waits and ends.
#[derive(Debug, Clone)]
pub struct WriterHandle {
    submissions: mpsc::UnboundedSender<(Submitter, Submission)>,
    shares: Arc<Shares>,
    close_by: Arc<watch::Sender<Option<Instant>>>,
}

/// The one who submits: submitters take turns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Submitter {
    /// A client, on all its connections together.
    Client(ClientId),
    /// The server itself.
    Server,
}

/// Starts the writer on a runtime, in a server that of [`WriterThread`].
///
/// The task returns `Ok` after [`WriterHandle::shutdown`] or when all handles are dropped, and an
/// error as soon as the database cannot be used any more ([`super::Error::Unusable`],
/// [`super::Error::Corrupt`]): then the server has to stop. In either case the database is closed.
pub fn spawn(
    runtime: &Handle,
    committer: Box<dyn Committer>,
    observer: Arc<dyn CommitObserver>,
    settings: WriterSettings,
) -> (WriterHandle, JoinHandle<Result<(), super::Error>>) {
    let (submissions, waiting) = mpsc::unbounded_channel();
    let (close_by, closing) = watch::channel(None);
    let handle = WriterHandle {
        submissions,
        shares: Arc::new(Shares::new(&settings)),
        close_by: Arc::new(close_by),
    };
    let task = runtime.spawn(task::run(committer, observer, settings, waiting, closing));
    (handle, task)
}

impl WriterHandle {
    /// Returns a handle for the submissions of a client. All handles of one client have one share
    /// of the room.
    #[must_use]
    pub fn client(&self, client_id: &ClientId) -> ClientWriter {
        ClientWriter {
            share: self.shares.of(client_id),
            client_id: client_id.clone(),
            writer: self.clone(),
        }
    }

    /// Submits first deliveries, without an answer.
    pub fn delivered(&self, deliveries: Vec<(MessageId, Time)>) {
        self.submit(Submitter::Server, Submission::Deliver { deliveries });
    }

    /// Stops the writer: it takes no further submissions, commits what waits until `deadline`, and
    /// closes the database.
    ///
    /// What is not committed by then is answered with [`WriteError::Closed`]. Await the task for
    /// its end.
    pub fn shutdown(&self, deadline: Instant) {
        self.shares.close();
        self.close_by.send_replace(Some(deadline));
    }

    fn submit(&self, submitter: Submitter, submission: Submission) {
        // If the writer has ended, the answer's sender is dropped with the submission, which
        // answers it.
        let _ = self.submissions.send((submitter, submission));
    }
}
