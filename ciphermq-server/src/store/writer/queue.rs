//! What waits, and what is under way.

use std::collections::VecDeque;
use std::sync::Arc;

use ciphermq_protocol::MessageId;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::outcome::Results;
use super::{WriteError, WriterSettings};
use crate::model::{
    Ack, AckOutcome, Change, Publish, PublishOutcome, QueueId, Rejection, Time, Transaction,
};

type Answer<T> = oneshot::Sender<Result<T, WriteError>>;

/// What was submitted in one go; it is committed in one transaction, as long as nothing in it is
/// refused and the database is not lost over it.
#[derive(Debug)]
pub(super) enum Submission {
    Publish {
        publishes: Vec<Arc<Publish>>,
        bytes: usize,
        deadline: Instant,
        /// `None` when the deadline has passed while it was under way.
        answer: Option<Answer<Vec<Result<PublishOutcome, WriteError>>>>,
        room: OwnedSemaphorePermit,
    },
    Ack {
        acks: Vec<Ack>,
        answer: Answer<Vec<Result<AckOutcome, WriteError>>>,
        room: OwnedSemaphorePermit,
    },
    Reject {
        rejection: Rejection,
        answer: Answer<AckOutcome>,
        room: OwnedSemaphorePermit,
    },
    Change {
        change: Change,
        answer: Answer<Option<QueueId>>,
    },
    Deliver {
        deliveries: Vec<(MessageId, Time)>,
    },
}

impl Submission {
    /// By when it has to be answered.
    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Publish {
                deadline,
                answer: Some(_),
                ..
            } => Some(*deadline),
            _ => None,
        }
    }

    /// Answers a publish with an error, unless that was done; whether it is a publish.
    fn refuse(&mut self, error: &WriteError) -> bool {
        let Self::Publish { answer, .. } = self else {
            return false;
        };
        if let Some(answer) = answer.take() {
            let _ = answer.send(Err(error.clone()));
        }
        true
    }

    /// Answers it if its deadline has passed; whether it has.
    fn expire(&mut self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
            && self.refuse(&WriteError::Unavailable)
    }
}

/// Submissions that wait for their transaction, in order.
pub(super) struct Queue {
    incoming: mpsc::UnboundedReceiver<Submission>,
    waiting: VecDeque<Submission>,
    /// No deadline of those that wait is before this.
    next_deadline: Option<Instant>,
}

impl Queue {
    pub(super) fn new(incoming: mpsc::UnboundedReceiver<Submission>) -> Self {
        Self {
            incoming,
            waiting: VecDeque::new(),
            next_deadline: None,
        }
    }

    /// Waits until something waits; `false` if nothing ever will.
    pub(super) async fn filled(&mut self) -> bool {
        self.gather();
        if self.waiting.is_empty() {
            match self.incoming.recv().await {
                Some(submission) => self.push(submission),
                None => return false,
            }
            self.gather();
        }
        true
    }

    /// Takes in what was submitted.
    pub(super) fn gather(&mut self) {
        while let Ok(submission) = self.incoming.try_recv() {
            self.push(submission);
        }
    }

    /// Takes no more from outside.
    pub(super) fn close(&mut self) {
        self.incoming.close();
        self.gather();
    }

    /// The next thing to do here, if nothing else happens.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    fn push(&mut self, submission: Submission) {
        self.next_deadline = earlier(self.next_deadline, submission.deadline());
        self.waiting.push_back(submission);
    }

    /// Answers those that have waited too long, and drops them.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.waiting
            .retain_mut(|submission| !submission.expire(now));
        self.next_deadline = self
            .waiting
            .iter()
            .fold(None, |next, s| earlier(next, s.deadline()));
    }

    /// Refuses all publishes that wait.
    pub(super) fn refuse_publishes(&mut self, error: &WriteError) {
        self.waiting
            .retain_mut(|submission| !submission.refuse(error));
        self.next_deadline = None;
    }

    /// Takes a transaction's worth from the front.
    pub(super) fn batch(&mut self, settings: &WriterSettings) -> (Transaction, Batch) {
        let mut transaction = Transaction::default();
        let mut submissions = Vec::new();
        let (mut items, mut size) = (0, 0);
        while items < settings.max_batch_items
            && size < settings.max_batch_bytes
            && let Some(submission) = self.waiting.pop_front()
        {
            match &submission {
                Submission::Publish {
                    publishes, bytes, ..
                } => {
                    transaction.publishes.extend(publishes.iter().cloned());
                    items += publishes.len();
                    size += bytes;
                }
                Submission::Ack { acks, .. } => {
                    transaction.acks.extend_from_slice(acks);
                    items += acks.len();
                }
                Submission::Reject { rejection, .. } => {
                    transaction.rejections.push(rejection.clone());
                    items += 1;
                }
                Submission::Change { change, .. } => {
                    transaction.changes.push(change.clone());
                    items += 1;
                }
                Submission::Deliver { deliveries } => {
                    transaction.deliveries.extend_from_slice(deliveries);
                    items += deliveries.len();
                }
            }
            submissions.push(submission);
        }
        (transaction, Batch { submissions })
    }
}

/// Submissions that are under way.
pub(super) struct Batch {
    submissions: Vec<Submission>,
}

impl Batch {
    /// The earliest deadline of those not answered yet.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.submissions
            .iter()
            .fold(None, |next, s| earlier(next, s.deadline()))
    }

    /// Answers those that have waited too long. They stay under way, and keep their room.
    pub(super) fn expire(&mut self, now: Instant) {
        for submission in &mut self.submissions {
            submission.expire(now);
        }
    }

    /// Refuses all publishes, before the rest is done.
    pub(super) fn refuse_publishes(&mut self, error: &WriteError) {
        for submission in &mut self.submissions {
            submission.refuse(error);
        }
    }

    /// Answers everything.
    pub(super) fn answer(self, results: Results) {
        let mut publishes = results.publishes.into_iter();
        let mut acks = results.acks.into_iter();
        let mut rejections = results.rejections.into_iter();
        let mut changes = results.changes.into_iter();
        for submission in self.submissions {
            // Whoever no longer waits for the answer has dropped its receiver.
            match submission {
                Submission::Publish {
                    publishes: given,
                    answer,
                    room,
                    ..
                } => {
                    let outcomes = publishes.by_ref().take(given.len()).collect();
                    drop((given, room));
                    if let Some(answer) = answer {
                        let _ = answer.send(Ok(outcomes));
                    }
                }
                Submission::Ack {
                    acks: given,
                    answer,
                    room,
                } => {
                    drop(room);
                    let _ = answer.send(Ok(acks.by_ref().take(given.len()).collect()));
                }
                Submission::Reject { answer, room, .. } => {
                    drop(room);
                    if let Some(outcome) = rejections.next() {
                        let _ = answer.send(outcome);
                    }
                }
                Submission::Change { answer, .. } => {
                    if let Some(outcome) = changes.next() {
                        let _ = answer.send(outcome);
                    }
                }
                Submission::Deliver { .. } => {}
            }
        }
    }
}

/// The earlier of two points in time, where `None` is never.
pub(super) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
