//! The unsettled acknowledgements of a connection.

use std::time::Duration;

use ciphermq_protocol::{Command, MessageId, Reply};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::outbox::Outbox;
use super::outcome::{AckSummary, AckTally};
use super::pending_replies::{ItemAnswer, Violation};
use super::settings::{BatchLimits, Retry};
use super::unsettled::{Settle, Unsettled};
use crate::error::{AckError, AckErrorKind, ConnectError};

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
pub(crate) struct Acks(Unsettled<AckTally>);

impl Settle for AckTally {
    type Item = AckItem;
    type Kind = AckErrorKind;
    type Waiter = oneshot::Sender<AckSummary>;

    const NAME: &'static str = "ack";
    const CONFIRMED: &'static str = "confirmed";
    const CLOSED: &'static str = "The consumer was closed.";

    fn message_id(item: &AckItem) -> &MessageId {
        &item.message_id
    }

    fn confirms_one(reply: &Reply) -> bool {
        matches!(reply, Reply::AckConfirmed(_))
    }

    fn confirms_line(reply: &Reply) -> bool {
        matches!(reply, Reply::AckConfirmedAll(_))
    }

    fn settle(&mut self, item: AckItem, result: Result<(), AckError>) {
        match item.waiter {
            // Fails if the caller no longer waits.
            Waiter::Awaited(waiter) => drop(waiter.send(result)),
            Waiter::Counted => self.count(item.message_id, result),
            Waiter::Nobody => {}
        }
    }

    fn answer(&mut self, done: oneshot::Sender<AckSummary>) -> bool {
        drop(done.send(std::mem::take(&mut self.0)));
        false
    }
}

impl Acks {
    pub(crate) fn new(retry: Retry, now: Instant) -> Self {
        Self(Unsettled::new(AckTally::default(), LIMITS, retry, now))
    }

    pub(crate) fn outbox(&mut self) -> &mut Outbox<AckItem> {
        &mut self.0.outbox
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.outbox.is_empty()
    }

    pub(crate) fn push(&mut self, now: Instant, item: AckItem) {
        let bytes = item.message_id.as_str().len() + 1;
        self.0.outbox.push(now, item, bytes, 0);
    }

    /// Sends a summary to `done` once every ack that is pending now is settled.
    pub(crate) fn flush(&mut self, done: oneshot::Sender<AckSummary>) {
        self.0.flush(done);
        self.0.answer_waiters();
    }

    /// Takes the next `ack` line.
    pub(crate) fn take_line(
        &mut self,
        now: Instant,
        max_line_bytes: usize,
    ) -> Option<(Vec<u64>, Command)> {
        let outbox = &mut self.0.outbox;
        let numbers = outbox.take_line(now, max_line_bytes.saturating_sub("ack".len()))?;
        let message_ids = numbers
            .iter()
            .filter_map(|&number| outbox.item(number))
            .map(|item| item.message_id.clone())
            .collect();
        Some((numbers, Command::Ack { message_ids }))
    }

    pub(crate) fn answered(&mut self, now: Instant, answer: ItemAnswer) -> Result<(), Violation> {
        self.0.answered(now, answer)?;
        self.0.answer_waiters();
        Ok(())
    }

    /// Ends the attempts whose time is over.
    pub(crate) fn expire(&mut self, now: Instant, loss: Option<&str>) {
        self.0.expire(now, loss);
        self.0.answer_waiters();
    }

    /// Fails every pending ack: the connection is closed for good.
    pub(crate) fn close(&mut self, reason: Option<&ConnectError>) {
        self.0.close(reason);
    }
}
