//! What one client submits, and its share of the room.

use std::sync::Arc;

use ciphermq_protocol::ClientId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::cost::{self, Cost};
use super::queue::Submission;
use super::{Pending, Submitter, WriteError, WriterHandle, WriterSettings};
use crate::by_client::ByClient;
use crate::model::{Ack, AckOutcome, Change, ChangeOutcome, Publish, PublishOutcome, Rejection};

/// The memory of a message that waits for its commit, apart from its envelope.
pub(super) const MESSAGE_BYTES: usize = 512;

/// A handle for the submissions of one client.
///
/// It is cheap to clone. What is submitted through it is committed in order, and takes turns with
/// what other clients submit.
#[derive(Debug, Clone)]
pub struct ClientWriter {
    pub(super) client_id: ClientId,
    pub(super) share: Arc<Share>,
    pub(super) writer: WriterHandle,
}

impl ClientWriter {
    /// Submits messages, and returns when there was room for them or the deadline has passed.
    ///
    /// The answers are in their order. Messages that are not committed by the deadline are answered
    /// with [`WriteError::Unavailable`]. They are committed in one transaction: see [`parts`].
    pub async fn publish(
        &self,
        publishes: Vec<Arc<Publish>>,
        deadline: Instant,
    ) -> Pending<Vec<Result<PublishOutcome, WriteError>>> {
        let (answer, pending) = oneshot::channel();
        let bytes: usize = publishes
            .iter()
            .map(|publish| publish.envelope.raw().len() + MESSAGE_BYTES)
            .sum();
        let room = self.share.bytes(bytes);
        let error = match tokio::time::timeout_at(deadline, room).await {
            Ok(Some(room)) => {
                self.submit(Submission::Publish {
                    cost: cost::publishes(&publishes).sum(),
                    publishes,
                    deadline,
                    answer: Some(answer),
                    room,
                });
                return Pending(pending);
            }
            Ok(None) => WriteError::Closed,
            Err(_elapsed) => WriteError::Unavailable,
        };
        let _ = answer.send(Err(error));
        Pending(pending)
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
        if let Some(room) = self.share.acks(count).await {
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
        if let Some(room) = self.share.acks(1).await {
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
pub fn parts(publishes: Vec<Arc<Publish>>) -> Vec<Vec<Arc<Publish>>> {
    let mut lengths = Vec::new();
    let (mut length, mut spent) = (0, Cost::default());
    for cost in cost::publishes(&publishes) {
        if length > 0 && spent.work + cost.work > cost::TURN {
            lengths.push(std::mem::take(&mut length));
            spent = Cost::default();
        }
        length += 1;
        spent += cost;
    }
    if lengths.is_empty() {
        return if publishes.is_empty() {
            Vec::new()
        } else {
            vec![publishes]
        };
    }
    lengths.push(length);
    let mut publishes = publishes.into_iter();
    lengths
        .into_iter()
        .map(|length| publishes.by_ref().take(length).collect())
        .collect()
}

/// The room for submissions: that of all clients together, and the shares of those that are
/// connected.
#[derive(Debug)]
pub(super) struct Shares {
    bytes: Bounded,
    acks: Bounded,
    part: usize,
    clients: ByClient<Share>,
}

/// One client's room.
#[derive(Debug)]
pub(super) struct Share {
    bytes: Part,
    acks: Part,
}

impl Share {
    /// Waits for room for so many bytes of messages; `None` when the writer is closed.
    async fn bytes(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        self.bytes.take(bytes, self).await
    }

    /// Waits for room for so many acks; `None` when the writer is closed.
    async fn acks(self: &Arc<Self>, count: usize) -> Option<Room> {
        self.acks.take(count, self).await
    }
}

impl Shares {
    pub(super) fn new(settings: &WriterSettings) -> Self {
        Self {
            bytes: Bounded::new(settings.max_pending_bytes),
            acks: Bounded::new(settings.max_pending_acks),
            part: settings.client_part.max(1),
            clients: ByClient::default(),
        }
    }

    /// Returns the share of a client, the same one while it is in use.
    pub(super) fn of(&self, client_id: &ClientId) -> Arc<Share> {
        self.clients.get(client_id, || Share {
            bytes: self.bytes.part(self.part),
            acks: self.acks.part(self.part),
        })
    }

    /// Ends all waiting for room.
    pub(super) fn close(&self) {
        self.bytes.room.close();
        self.acks.room.close();
        self.clients.for_each(|share| {
            share.bytes.own.room.close();
            share.acks.own.room.close();
        });
    }
}

/// A bounded amount of something.
#[derive(Debug, Clone)]
struct Bounded {
    room: Arc<Semaphore>,
    size: usize,
}

impl Bounded {
    fn new(size: usize) -> Self {
        let size = size.min(Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(size)),
            size,
        }
    }

    fn part(&self, part: usize) -> Part {
        Part {
            own: Self::new((self.size / part).max(1)),
            common: self.clone(),
        }
    }

    /// Waits for `amount`; `None` when it is closed. More than there is takes all of it.
    async fn take(&self, amount: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(amount.min(self.size)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room);
        room.acquire_many_owned(permits).await.ok()
    }
}

/// A client's part of a bounded amount.
#[derive(Debug)]
struct Part {
    own: Bounded,
    common: Bounded,
}

impl Part {
    /// Waits for its own room first: so only as much as clients may use waits for the common room.
    async fn take(&self, amount: usize, share: &Arc<Share>) -> Option<Room> {
        let own = self.own.take(amount).await?;
        let common = self.common.take(amount).await?;
        Some(Room {
            _own: own,
            _common: common,
            _share: Arc::clone(share),
        })
    }
}

/// The room that a submission takes until it is answered.
#[derive(Debug)]
pub(super) struct Room {
    _own: OwnedSemaphorePermit,
    _common: OwnedSemaphorePermit,
    /// Keeps the share, so that a client that connects again has what is left of it.
    _share: Arc<Share>,
}
