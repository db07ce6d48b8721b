//! What one client submits, and its share of the room.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_protocol::ClientId;
use tokio::sync::oneshot;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::cost::{self, Rows};
use super::queue::Submission;
use super::{Pending, Submitter, WriteError, WriterHandle, WriterSettings};
use crate::model::{Ack, AckOutcome, Change, ChangeOutcome, Publish, PublishOutcome, Rejection};
use crate::shared_budget::{ClientBudget, SharedBudget, Taken};

/// The memory of a message that waits for its commit, apart from its envelope.
pub(super) const MESSAGE_BYTES: usize = 512;

/// The times by which messages are submitted, and by which they are committed.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// When waiting for the client's own room ends.
    room: Instant,
    /// When all waiting ends.
    commit: Instant,
    wait: Duration,
}

impl Deadlines {
    /// Returns the deadlines for the first part of a line, which is committed within `wait`, from
    /// now on.
    #[must_use]
    pub fn within(wait: Duration) -> Self {
        let commit = Instant::now() + wait;
        Self {
            room: commit,
            commit,
            wait,
        }
    }

    /// Returns the deadlines for the further parts of the line: half of the time is for room.
    ///
    /// A client that uses up its own share has much work waiting already, and the rest of a long
    /// line would keep the database busy when its sender has long gone.
    #[must_use]
    pub fn further_parts(self) -> Self {
        Self {
            room: self.commit - self.wait / 2,
            ..self
        }
    }

    /// Returns when all waiting ends.
    #[must_use]
    pub fn commit(&self) -> Instant {
        self.commit
    }
}

/// A handle for the submissions of one client.
///
/// It is cheap to clone. What is submitted through it is committed in order, and takes turns with
/// what other clients submit.
#[derive(Debug, Clone)]
pub struct ClientWriter {
    pub(super) client_id: ClientId,
    pub(super) share: Share,
    pub(super) writer: WriterHandle,
}

impl ClientWriter {
    /// Submits messages, and returns when there was room for them or the deadline has passed.
    ///
    /// The answers are in their order. Messages for which there is no room in time, or that are not
    /// committed in time, are answered with [`WriteError::Unavailable`]. They are committed in one
    /// transaction: see [`Parts`].
    pub async fn publish(
        &self,
        publishes: Vec<Arc<Publish>>,
        deadlines: Deadlines,
    ) -> Pending<Vec<Result<PublishOutcome, WriteError>>> {
        let (answer, pending) = oneshot::channel();
        let bytes: usize = publishes
            .iter()
            .map(|publish| publish.envelope.raw().len() + MESSAGE_BYTES)
            .sum();
        match self.room(bytes, deadlines).await {
            Ok(room) => self.submit(Submission::Publish {
                cost: cost::publishes(&publishes).sum(),
                publishes,
                deadline: deadlines.commit,
                answer: Some(answer),
                room,
            }),
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
        Pending(pending)
    }

    /// Waits for room for messages.
    async fn room(&self, bytes: usize, deadlines: Deadlines) -> Result<Taken, WriteError> {
        // Also if there is room again: what was refused would be overtaken.
        if deadlines.room <= Instant::now() {
            return Err(WriteError::Unavailable);
        }
        let unavailable = |_: Elapsed| WriteError::Unavailable;
        let own = timeout_at(deadlines.room, self.share.bytes.take_own(bytes)).await;
        let own = own.map_err(unavailable)?.ok_or(WriteError::Closed)?;
        let room = timeout_at(deadlines.commit, own.take_common()).await;
        room.map_err(unavailable)?.ok_or(WriteError::Closed)
    }

    /// Submits `count` acks, which `acks` makes once there is room for them; returns when they are
    /// submitted.
    ///
    /// The answers are in their order. Acks wait for room and for the database without a limit.
    /// They are committed in one transaction, so submit no more than some hundreds.
    pub async fn ack(
        &self,
        count: usize,
        acks: impl FnOnce() -> Vec<Ack>,
    ) -> Pending<Vec<Result<AckOutcome, WriteError>>> {
        let (answer, pending) = oneshot::channel();
        // Without room the writer is closed, and dropping the answer says so.
        if let Some(room) = self.share.acks.take(count).await {
            let acks = acks();
            self.submit(Submission::Ack {
                cost: cost::acks(&acks),
                acks,
                answer,
                room,
            });
        }
        Pending(pending)
    }

    /// Submits a rejection, which `rejection` makes once there is room for it; returns when it is
    /// submitted.
    ///
    /// It waits for room and for the database without a limit.
    pub async fn reject(&self, rejection: impl FnOnce() -> Rejection) -> Pending<AckOutcome> {
        let (answer, pending) = oneshot::channel();
        if let Some(room) = self.share.acks.take(1).await {
            let rejection = rejection();
            self.submit(Submission::Reject {
                rejection,
                answer,
                room,
            });
        }
        Pending(pending)
    }

    /// Submits a change. It waits for the database without a limit.
    #[must_use]
    pub fn change(&self, change: Change) -> Pending<ChangeOutcome> {
        let (answer, pending) = oneshot::channel();
        self.submit(Submission::Change { change, answer });
        Pending(pending)
    }

    fn submit(&self, submission: Submission) {
        self.writer
            .submit(Submitter::Client(self.client_id.clone()), submission);
    }
}

/// Splits messages into submissions of a turn's work each, in order, so that a long batch does not
/// hold up what other clients submit.
#[derive(Default)]
pub struct Parts {
    part: Vec<Arc<Publish>>,
    work: u64,
    rows: Rows,
}

impl Parts {
    /// Adds a message. Returns the part before it if that is full.
    pub fn push(&mut self, publish: Arc<Publish>) -> Option<Vec<Arc<Publish>>> {
        let cost = self.rows.publish(&publish);
        let is_full = !self.part.is_empty() && self.work + cost.work > cost::TURN;
        let full = is_full.then(|| {
            self.work = 0;
            std::mem::take(&mut self.part)
        });
        self.work += cost.work;
        self.part.push(publish);
        full
    }

    /// Returns the last part; `None` if no message was added.
    #[must_use]
    pub fn last(self) -> Option<Vec<Arc<Publish>>> {
        (!self.part.is_empty()).then_some(self.part)
    }
}

/// The room for submissions, of which each client has a part.
#[derive(Debug)]
pub(super) struct Shares {
    bytes: SharedBudget,
    acks: SharedBudget,
}

/// One client's room.
#[derive(Debug, Clone)]
pub(super) struct Share {
    bytes: ClientBudget,
    acks: ClientBudget,
}

impl Shares {
    pub(super) fn new(settings: &WriterSettings) -> Self {
        let budget = |size| SharedBudget::new(size, size / settings.client_part.max(1));
        Self {
            bytes: budget(settings.max_pending_bytes),
            acks: budget(settings.max_pending_acks),
        }
    }

    /// Returns the share of a client, the same one while it is in use.
    pub(super) fn of(&self, client_id: &ClientId) -> Share {
        Share {
            bytes: self.bytes.of(client_id),
            acks: self.acks.of(client_id),
        }
    }

    /// Ends all waiting for room.
    pub(super) fn close(&self) {
        self.bytes.close();
        self.acks.close();
    }
}
