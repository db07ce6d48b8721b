//! Submissions that wait, and those in the transaction that is being committed.

use std::sync::Arc;

use ciphermq_protocol::MessageId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::cost::{self, Cost};
use super::fair_queue::FairQueue;
use super::outcome::Results;
use super::{Submitter, WriteError, WriterSettings};
use crate::model::{
    Ack, AckOutcome, Change, ChangeOutcome, Publish, PublishOutcome, Rejection, Time, Transaction,
};
use crate::shared_budget::Taken;

type Answer<T> = oneshot::Sender<Result<T, WriteError>>;

/// Items that are committed in one transaction, as long as none of them is refused and the
/// connection to the database is not lost again and again.
#[derive(Debug)]
pub(super) enum Submission {
    Publish {
        publishes: Vec<Arc<Publish>>,
        cost: Cost,
        deadline: Instant,
        /// `None` when the deadline has passed during its commit.
        answer: Option<Answer<Vec<Result<PublishOutcome, WriteError>>>>,
        room: Taken,
    },
    Ack {
        acks: Vec<Ack>,
        cost: Cost,
        answer: Answer<Vec<Result<AckOutcome, WriteError>>>,
        room: Taken,
    },
    Reject {
        rejection: Rejection,
        answer: Answer<AckOutcome>,
        room: Taken,
    },
    Change {
        change: Change,
        answer: Answer<ChangeOutcome>,
    },
    Deliver {
        deliveries: Vec<(MessageId, Time)>,
    },
}

impl Submission {
    /// Returns what it costs to commit.
    fn cost(&self) -> Cost {
        match self {
            Self::Publish { cost, .. } | Self::Ack { cost, .. } => *cost,
            Self::Reject { rejection, .. } => cost::rejection(rejection),
            Self::Change { .. } => Cost::work(cost::CHANGE),
            Self::Deliver { deliveries } => cost::deliveries(deliveries.len()),
        }
    }

    /// Whether it may be committed a moment later.
    fn can_wait(&self) -> bool {
        matches!(self, Self::Ack { .. } | Self::Deliver { .. })
    }

    /// Returns the time by which it has to be answered.
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

    /// Answers a publish with an error unless it is answered already. Returns whether it is a
    /// publish.
    fn refuse(&mut self, error: &WriteError) -> bool {
        let Self::Publish { answer, .. } = self else {
            return false;
        };
        if let Some(answer) = answer.take() {
            let _ = answer.send(Err(error.clone()));
        }
        true
    }

    /// Answers it if its deadline has passed. Returns whether it has.
    fn expire(&mut self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
            && self.refuse(&WriteError::Unavailable)
    }
}

/// Submissions that wait for their transaction: each submitter's in order, and the submitters in
/// turns, by what their submissions cost.
pub(super) struct Queue {
    incoming: mpsc::UnboundedReceiver<(Submitter, Submission)>,
    waiting: FairQueue<Submitter, Waiting>,
    /// A lower bound of the deadlines of the waiting submissions.
    next_deadline: Option<Instant>,
}

struct Waiting {
    submission: Submission,
    cost: Cost,
}

impl Queue {
    pub(super) fn new(incoming: mpsc::UnboundedReceiver<(Submitter, Submission)>) -> Self {
        Self {
            incoming,
            waiting: FairQueue::new(cost::TURN),
            next_deadline: None,
        }
    }

    /// Waits until a submission waits. Returns `false` if none ever will.
    pub(super) async fn filled(&mut self) -> bool {
        self.gather();
        if self.waiting.is_empty() {
            match self.incoming.recv().await {
                Some((submitter, submission)) => self.push(submitter, submission),
                None => return false,
            }
            self.gather();
        }
        true
    }

    /// Whether everything that waits may be committed a moment later.
    pub(super) fn can_wait(&self) -> bool {
        let mut waiting = self.waiting.iter();
        waiting.all(|waiting| waiting.submission.can_wait())
    }

    /// Waits for a submission that cannot be committed later, or for the end of all submitters.
    pub(super) async fn urgent(&mut self) {
        while let Some((submitter, submission)) = self.incoming.recv().await {
            let can_wait = submission.can_wait();
            self.push(submitter, submission);
            if !can_wait {
                break;
            }
        }
        self.gather();
    }

    /// Takes in all submissions that have arrived.
    pub(super) fn gather(&mut self) {
        while let Ok((submitter, submission)) = self.incoming.try_recv() {
            self.push(submitter, submission);
        }
    }

    /// Closes the queue to new submissions.
    pub(super) fn close(&mut self) {
        self.incoming.close();
        self.gather();
    }

    /// Returns the time of the next deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    fn push(&mut self, submitter: Submitter, submission: Submission) {
        self.next_deadline = earlier(self.next_deadline, submission.deadline());
        let cost = submission.cost();
        self.waiting
            .push(submitter, cost.work, Waiting { submission, cost });
    }

    /// Answers and drops submissions whose deadline has passed.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.next_deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.waiting
            .retain_mut(|waiting| !waiting.submission.expire(now));
        self.next_deadline = self
            .waiting
            .iter()
            .fold(None, |next, w| earlier(next, w.submission.deadline()));
    }

    /// Refuses all waiting publishes.
    pub(super) fn refuse_publishes(&mut self, error: &WriteError) {
        self.waiting
            .retain_mut(|waiting| !waiting.submission.refuse(error));
        self.next_deadline = None;
    }

    /// Takes the submissions of one transaction.
    ///
    /// It holds a turn of each client, within the settings' limit. More would only make those wait
    /// longer who have little to do, because of those who have much.
    pub(super) fn batch(&mut self, settings: &WriterSettings) -> (Transaction, Batch) {
        let mut transaction = Transaction::default();
        let mut submissions = Vec::new();
        let mut spent = Cost::default();
        let turns = cost::TURN.saturating_mul(self.waiting.parties() as u64);
        let most_work = turns.max(cost::LEAST_BATCH).min(settings.max_batch_work);
        while spent.work < most_work
            && spent.bytes < settings.max_batch_bytes
            && let Some(Waiting { submission, cost }) = self.waiting.pop()
        {
            spent += cost;
            match &submission {
                Submission::Publish { publishes, .. } => {
                    transaction.publishes.extend(publishes.iter().cloned());
                }
                Submission::Ack { acks, .. } => transaction.acks.extend_from_slice(acks),
                Submission::Reject { rejection, .. } => {
                    transaction.rejections.push(rejection.clone());
                }
                Submission::Change { change, .. } => transaction.changes.push(change.clone()),
                Submission::Deliver { deliveries } => {
                    transaction.deliveries.extend_from_slice(deliveries);
                }
            }
            submissions.push(submission);
        }
        (transaction, Batch { submissions })
    }
}

/// Submissions in the transaction that is being committed.
pub(super) struct Batch {
    submissions: Vec<Submission>,
}

impl Batch {
    /// Returns the earliest deadline of those not answered yet.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.submissions
            .iter()
            .fold(None, |next, s| earlier(next, s.deadline()))
    }

    /// Answers those whose deadline has passed. They stay in the batch and keep their room.
    pub(super) fn expire(&mut self, now: Instant) {
        for submission in &mut self.submissions {
            submission.expire(now);
        }
    }

    /// Refuses all publishes before the other items are committed.
    pub(super) fn refuse_publishes(&mut self, error: &WriteError) {
        for submission in &mut self.submissions {
            submission.refuse(error);
        }
    }

    /// Answers all submissions.
    pub(super) fn answer(self, results: Results) {
        let mut publishes = results.publishes.into_iter();
        let mut acks = results.acks.into_iter();
        let mut rejections = results.rejections.into_iter();
        let mut changes = results.changes.into_iter();
        for submission in self.submissions {
            // A submitter that no longer waits for the answer has dropped its receiver.
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
                    ..
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

/// Returns the earlier of two points in time, where `None` is never.
pub(super) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
