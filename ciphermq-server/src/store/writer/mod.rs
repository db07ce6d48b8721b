//! Group commit: one task that commits whatever waits in one transaction.
//!
//! ```text
//!   publish, ack, ...           ┌───────────── writer task ─────────────┐
//!   ───── submission ─────────► │ queue ─► batch ─► Committer::commit   │
//!                               │                          │            │
//!   ◄──────── answer ────────── │ ◄── CommitObserver ◄─────┘            │
//!                               └───────────────────────────────────────┘
//! ```
//!
//! - The order of submission is the order of commit. While one transaction is being committed the
//!   next one gathers.
//! - Nothing is answered before its commit returned, and before the observer has seen it.
//! - Publishes wait for room and for the database until their deadline; acks, rejections and
//!   changes wait for ever. What waits is bounded: publishes by bytes, acks and rejections by
//!   number.
//! - A commit whose outcome is not known is resolved before anything else is committed.
//! - What the database refuses is split until the culprit stands alone; only it is refused. What
//!   the database is lost over again and again is split, too.
//!
//! Modules in reading order: [`WriterHandle`] here; `queue`, what waits and what is under way;
//! `outcome`, splitting transactions and joining their outcomes; `task`, the loop; `thread`, where
//! it runs.

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

use ciphermq_protocol::MessageId;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Committer;
use crate::model::{
    Ack, AckOutcome, Change, Publish, PublishOutcome, QueueId, Rejection, Seq, Time,
};
use queue::Submission;
pub use thread::WriterThread;

/// How the writer works.
#[derive(Debug, Clone)]
pub struct WriterSettings {
    /// How many bytes of messages may have been submitted and not yet answered, all together.
    pub max_pending_bytes: usize,
    /// How many acks and rejections may have been submitted and not yet answered, all together.
    pub max_pending_acks: usize,
    /// A transaction takes no further submission once it has so many items.
    pub max_batch_items: usize,
    /// A transaction takes no further submission once it has so many bytes of envelopes.
    pub max_batch_bytes: usize,
    /// How long the metadata of an acknowledged message is kept after it was accepted; `None`: for
    /// ever.
    pub metadata_retention: Option<Duration>,
    /// When all handles are gone, or [`WriterHandle::shutdown`] was called without one: how long
    /// what waits may take to be committed.
    pub close_timeout: Duration,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self {
            max_pending_bytes: 64 << 20,
            max_pending_acks: 256 << 10,
            max_batch_items: 4096,
            max_batch_bytes: 8 << 20,
            metadata_retention: None,
            close_timeout: Duration::from_secs(10),
        }
    }
}

/// Why something was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The database did not answer in time. Whether it was written is not known.
    #[error("the database is not available")]
    Unavailable,
    /// No room on the database's disk. Nothing was written.
    #[error("the database's disk is full")]
    Full,
    /// The database refuses this very item, and says why. Nothing was written.
    #[error("the database refuses it: {0}")]
    Refused(Arc<str>),
    /// The server is stopping. Whether it was written is not known.
    #[error("the server is stopping")]
    Closed,
}

/// An ack or a rejection, and what became of it.
pub type Decided<'a> = (&'a Ack, &'a AckOutcome);

/// Sees what was committed, in the order of the commits, before the submitters do.
pub trait CommitObserver: Send + Sync {
    /// These messages were stored, in order, each with its first copy's sequence number; and this
    /// came of acks and of rejections, whatever it was. Called by the writer's task: must not
    /// block.
    ///
    /// An ack that the database refuses is shown as [`AckOutcome::NotFound`]: what it cannot even
    /// hold is no message's id.
    fn committed(
        &self,
        publishes: &[(Arc<Publish>, Seq)],
        acks: &[Decided<'_>],
        rejections: &[Decided<'_>],
    );
}

/// The answer to a submission, once it is there. Dropping it does not take the submission back.
/// Awaiting it is cancel safe.
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

/// Submits to the writer. Cloning is cheap. When the last one is dropped, the writer commits what
/// waits and ends.
#[derive(Debug, Clone)]
pub struct WriterHandle {
    submissions: mpsc::UnboundedSender<Submission>,
    room: Arc<Semaphore>,
    max_pending_bytes: usize,
    room_for_acks: Arc<Semaphore>,
    max_pending_acks: usize,
    close_by: Arc<watch::Sender<Option<Instant>>>,
}

/// Starts the writer on a runtime, [`WriterThread`]'s in a server.
///
/// The task ends with `Ok` after [`WriterHandle::shutdown`] or when all handles are dropped, and
/// with an error as soon as the database cannot be used any more ([`super::Error::Unusable`],
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
        room: Arc::new(Semaphore::new(
            settings.max_pending_bytes.min(Semaphore::MAX_PERMITS),
        )),
        max_pending_bytes: settings.max_pending_bytes,
        room_for_acks: Arc::new(Semaphore::new(settings.max_pending_acks)),
        max_pending_acks: settings.max_pending_acks,
        close_by: Arc::new(close_by),
    };
    let task = runtime.spawn(task::run(committer, observer, settings, waiting, closing));
    (handle, task)
}

impl WriterHandle {
    /// Submits messages; the answers are in their order. Returns when they are submitted: until
    /// then, and no longer than to the deadline, it waits for room.
    ///
    /// Messages that are not committed by the deadline are answered with
    /// [`WriteError::Unavailable`].
    pub async fn publish(
        &self,
        publishes: Vec<Arc<Publish>>,
        deadline: Instant,
    ) -> Pending<Vec<Result<PublishOutcome, WriteError>>> {
        let (answer, pending) = oneshot::channel();
        let bytes: usize = publishes
            .iter()
            .map(|publish| publish.envelope.raw().len())
            .sum();
        // What is larger than all the room there is goes alone.
        let permits = u32::try_from(bytes.min(self.max_pending_bytes)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(permits);
        let error = match tokio::time::timeout_at(deadline, room).await {
            Ok(Ok(room)) => {
                self.submit(Submission::Publish {
                    publishes,
                    bytes,
                    deadline,
                    answer: Some(answer),
                    room,
                });
                return Pending(pending);
            }
            Ok(Err(_closed)) => WriteError::Closed,
            Err(_elapsed) => WriteError::Unavailable,
        };
        let _ = answer.send(Err(error));
        Pending(pending)
    }

    /// Submits so many acks, made when there is room for them; the answers are in their order.
    /// Returns when they are submitted. They wait for room and for the database as long as it
    /// takes.
    ///
    /// They are committed in one transaction, so give no more than a few thousand.
    pub async fn ack(
        &self,
        count: usize,
        acks: impl FnOnce() -> Vec<Ack>,
    ) -> Pending<Vec<Result<AckOutcome, WriteError>>> {
        let (answer, pending) = oneshot::channel();
        // Without room the writer is closed, and dropping the answer says so.
        if let Some(room) = self.room_for_acks(count).await {
            let acks = acks();
            self.submit(Submission::Ack { acks, answer, room });
        }
        Pending(pending)
    }

    /// Submits a rejection, made when there is room for it. Returns when it is submitted. It waits
    /// for room and for the database as long as it takes.
    pub async fn reject(&self, rejection: impl FnOnce() -> Rejection) -> Pending<AckOutcome> {
        let (answer, pending) = oneshot::channel();
        if let Some(room) = self.room_for_acks(1).await {
            let rejection = rejection();
            self.submit(Submission::Reject {
                rejection,
                answer,
                room,
            });
        }
        Pending(pending)
    }

    async fn room_for_acks(&self, count: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(count.min(self.max_pending_acks)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room_for_acks);
        room.acquire_many_owned(permits).await.ok()
    }

    /// Submits a change; the answer is the queue's number if it declares one. It waits for the
    /// database as long as it takes.
    #[must_use]
    pub fn change(&self, change: Change) -> Pending<Option<QueueId>> {
        let (answer, pending) = oneshot::channel();
        self.submit(Submission::Change { change, answer });
        Pending(pending)
    }

    /// Submits first deliveries, which nobody waits for.
    pub fn delivered(&self, deliveries: Vec<(MessageId, Time)>) {
        self.submit(Submission::Deliver { deliveries });
    }

    /// Takes no further submissions, commits what waits until `deadline`, and closes the database.
    /// What is not committed by then is answered with [`WriteError::Closed`]. Await the task for
    /// its end.
    pub fn shutdown(&self, deadline: Instant) {
        self.room.close();
        self.room_for_acks.close();
        self.close_by.send_replace(Some(deadline));
    }

    fn submit(&self, submission: Submission) {
        // If the writer has ended, the answer's sender is dropped with the submission, and that
        // answers it.
        let _ = self.submissions.send(submission);
    }
}
