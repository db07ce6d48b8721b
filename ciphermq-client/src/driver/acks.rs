//! The outbox of acknowledgements, and the effect of replies on it.

use std::collections::VecDeque;
use std::time::Duration;

use ciphermq_protocol::{Command, ErrorReply, MessageId, Reply};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Retry;
use super::outbox::{Expired, Outbox};
use super::pending_replies::{ItemAnswer, ReplyScope, Violation};
use crate::consumer::{AckSummary, AckTally};
use crate::error::kinds::OperationKind as _;
use crate::error::{AckError, AckErrorKind};
use crate::publisher::BatchLimits;

/// Limits on one `ack` line. An ack is sent alone while no other is in flight, and batched
/// otherwise.
const LIMITS: BatchLimits = BatchLimits {
    messages: 512,
    bytes: 64 * 1024,
    time: Duration::from_millis(2),
};

/// A message to acknowledge, and the recipient of the result.
#[derive(Debug)]
pub(crate) struct AckItem {
    message_id: MessageId,
    waiter: Waiter,
}

#[derive(Debug)]
enum Waiter {
    /// A caller awaits the result.
    Awaited(oneshot::Sender<Result<(), AckError>>),
    /// The result is counted in the [`AckSummary`] of the next flush.
    Counted,
    /// The result is dropped: the message was acknowledged before.
    Nobody,
}

impl AckItem {
    /// Creates an ack whose result a caller awaits.
    pub(crate) fn awaited(
        message_id: MessageId,
    ) -> (Self, oneshot::Receiver<Result<(), AckError>>) {
        let (sender, receiver) = oneshot::channel();
        (
            Self {
                message_id,
                waiter: Waiter::Awaited(sender),
            },
            receiver,
        )
    }

    /// Creates an ack whose result is counted.
    pub(crate) fn later(message_id: MessageId) -> Self {
        Self {
            message_id,
            waiter: Waiter::Counted,
        }
    }

    /// Creates an ack that repeats an earlier one, for a message that was redelivered.
    pub(crate) fn repeated(message_id: MessageId) -> Self {
        Self {
            message_id,
            waiter: Waiter::Nobody,
        }
    }
}

/// The pending acks of a connection.
#[derive(Debug)]
pub(crate) struct Acks {
    outbox: Outbox<AckItem>,
    tally: AckTally,
    flushes: VecDeque<(u64, oneshot::Sender<AckSummary>)>,
}

impl Acks {
    pub(crate) fn new(retry: Retry, now: Instant) -> Self {
        Self {
            outbox: Outbox::new(LIMITS, retry, now),
            tally: AckTally::default(),
            flushes: VecDeque::new(),
        }
    }

    pub(crate) fn outbox(&mut self) -> &mut Outbox<AckItem> {
        &mut self.outbox
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.outbox.is_empty()
    }

    pub(crate) fn push(&mut self, now: Instant, item: AckItem) {
        let bytes = item.message_id.as_str().len() + 1;
        self.outbox.push(now, item, bytes, 0);
    }

    /// Sends a summary to `done` once every ack that is pending now is settled.
    pub(crate) fn flush(&mut self, done: oneshot::Sender<AckSummary>) {
        self.outbox.flush();
        self.flushes.push_back((self.outbox.end(), done));
        self.answer_flushes();
    }

    /// Takes the next `ack` line.
    pub(crate) fn take_line(
        &mut self,
        now: Instant,
        max_line_bytes: usize,
    ) -> Option<(Vec<u64>, Command)> {
        let numbers = self
            .outbox
            .take_line(now, max_line_bytes.saturating_sub("ack".len()))?;
        let message_ids = numbers
            .iter()
            .filter_map(|&number| self.outbox.item(number))
            .map(|item| item.message_id.clone())
            .collect();
        Some((numbers, Command::Ack { message_ids }))
    }

    pub(crate) fn answered(&mut self, answer: ItemAnswer) -> Result<(), Violation> {
        let ItemAnswer {
            about,
            reply,
            is_last,
        } = answer;
        if is_last {
            self.outbox.line_answered();
        }
        match (about, reply) {
            (ReplyScope::One(number, id), reply) => {
                // A settled item was sent twice, and this is the second answer.
                if let Some(item) = self.outbox.item(number) {
                    if item.message_id != id {
                        return Err(Violation(format!(
                            "the answer to an ack of `{}` is about `{id}`",
                            item.message_id
                        )));
                    }
                    match reply {
                        Reply::AckConfirmed(_) => self.settle(number, Ok(())),
                        Reply::Error(error) => self.failed(number, error),
                        other => {
                            return Err(Violation(format!("an ack was answered with {other:?}")));
                        }
                    }
                }
            }
            (ReplyScope::All(numbers), Reply::AckConfirmedAll(_)) => {
                for number in numbers {
                    self.settle(number, Ok(()));
                }
            }
            (ReplyScope::All(_), reply @ Reply::AckAll(_)) => {
                return Err(Violation(format!("{reply:?} answers another command")));
            }
            (ReplyScope::All(numbers), Reply::Error(error)) => {
                for number in numbers {
                    self.failed(number, error.clone());
                }
            }
            (ReplyScope::All(numbers), other) => {
                for number in numbers {
                    let what = format!("The server refused an ack: {other:?}.");
                    self.settle(number, Err(AckError::new(AckErrorKind::Refused, what)));
                }
            }
        }
        self.answer_flushes();
        Ok(())
    }

    fn failed(&mut self, number: u64, error: ErrorReply) {
        let kind = AckErrorKind::of_code(error.code);
        if !error.is_definite() || kind == AckErrorKind::Unavailable {
            self.outbox.defer(number, error);
        } else {
            self.settle(
                number,
                Err(AckError::new(
                    kind,
                    format!("The server refused an ack: {error}."),
                )),
            );
        }
    }

    /// Ends the attempts whose time is over.
    pub(crate) fn expire(&mut self, now: Instant, loss: Option<&str>) {
        for Expired { item, last_error } in self.outbox.expire(now) {
            let error = match (last_error, loss) {
                (Some(last_error), _) => AckError::new(
                    AckErrorKind::of_code(last_error.code),
                    format!("The ack was not confirmed: {last_error}."),
                ),
                (None, Some(loss)) => AckError::new(
                    AckErrorKind::Disconnected,
                    format!("The ack was not confirmed, for there is no connection: {loss}"),
                ),
                (None, None) => AckError::new(
                    AckErrorKind::TimedOut,
                    "The ack was not confirmed in any of the tries.",
                ),
            };
            self.report(item, Err(error));
        }
        self.answer_flushes();
    }

    /// Fails every pending ack: the connection is closed for good.
    pub(crate) fn close(&mut self) {
        for item in self.outbox.drain() {
            self.report(
                item,
                Err(AckError::new(
                    AckErrorKind::Closed,
                    "The consumer was closed.",
                )),
            );
        }
        self.answer_flushes();
    }

    fn settle(&mut self, number: u64, result: Result<(), AckError>) {
        if let Some(item) = self.outbox.settle(number) {
            self.report(item, result);
        }
    }

    fn report(&mut self, item: AckItem, result: Result<(), AckError>) {
        match item.waiter {
            // Fails if the caller no longer waits.
            Waiter::Awaited(waiter) => drop(waiter.send(result)),
            Waiter::Counted => self.tally.count(item.message_id, result),
            Waiter::Nobody => {}
        }
    }

    fn answer_flushes(&mut self) {
        while let Some((_, done)) = self
            .flushes
            .pop_front_if(|(end, _)| *end <= self.outbox.settled_to())
        {
            drop(done.send(std::mem::take(&mut self.tally.0)));
        }
    }
}
