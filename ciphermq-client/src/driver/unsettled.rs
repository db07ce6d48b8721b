//! Items that are sent until they are settled, and the callers that wait for that.
//!
//! Messages and acknowledgements share the outbox, the effect of replies and expired attempts, and
//! the flushes. [`Settle`] is what differs.

use std::collections::VecDeque;
use std::time::Duration;

use ciphermq_protocol::{ErrorCode, ErrorReply, MessageId, Reply};
use tokio::time::Instant;

use super::ending;
use super::outbox::{Expired, Outbox};
use super::pending_replies::{ItemAnswer, ReplyScope, Violation};
use super::settings::{BatchLimits, Retry};
use crate::error::kinds::OperationKind;
use crate::error::{ConnectError, Error};

/// The difference between messages and acknowledgements.
pub(super) trait Settle {
    type Item;
    type Kind: OperationKind;
    /// A caller that waits until every earlier item is settled.
    type Waiter;

    /// The item in errors, such as `message`.
    const NAME: &'static str;
    /// The participle for an item that the server has confirmed, such as `acknowledged`.
    const CONFIRMED: &'static str;
    /// The error of an item whose connection was closed for good.
    const CLOSED: &'static str;
    /// The longest time that an item waits for a full line while answers are late.
    const LATE_WAIT: Duration = Duration::ZERO;

    fn message_id(item: &Self::Item) -> &MessageId;
    /// Whether a reply confirms one item.
    fn confirms_one(reply: &Reply) -> bool;
    /// Whether a reply confirms all items of a line.
    fn confirms_line(reply: &Reply) -> bool;
    /// Returns what to do about an item that was refused.
    fn refusal_advice(_code: Option<ErrorCode>) -> Option<&'static str> {
        None
    }
    /// Returns what to do about an item without an answer.
    fn expiry_advice(_is_connected: bool) -> Option<&'static str> {
        None
    }
    /// Reports the outcome of an item.
    fn settle(&mut self, item: Self::Item, result: Result<(), Error<Self::Kind>>);
    /// Answers a caller; returns whether it was the last one.
    fn answer(&mut self, waiter: Self::Waiter) -> bool;
}

/// The unsettled items of one sender, and the callers that wait for them.
#[derive(Debug)]
pub(super) struct Unsettled<S: Settle> {
    pub(super) outbox: Outbox<S::Item>,
    pub(super) sender: S,
    /// Callers, each with the number of the first item that it does not wait for.
    waiters: VecDeque<(u64, S::Waiter)>,
}

impl<S: Settle> Unsettled<S> {
    pub(super) fn new(sender: S, limits: BatchLimits, retry: Retry, now: Instant) -> Self {
        Self {
            outbox: Outbox::new(limits, S::LATE_WAIT, retry, now),
            sender,
            waiters: VecDeque::new(),
        }
    }

    /// Whether nothing is unsettled and nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        self.outbox.is_empty() && self.waiters.is_empty()
    }

    /// Sends everything at once, and registers a caller that waits for it.
    pub(super) fn flush(&mut self, waiter: S::Waiter) {
        self.outbox.flush();
        self.waiters.push_back((self.outbox.end(), waiter));
    }

    /// Settles items according to a reply.
    pub(super) fn answered(&mut self, now: Instant, answer: ItemAnswer) -> Result<(), Violation> {
        let ItemAnswer {
            about,
            reply,
            is_last,
        } = answer;
        if is_last {
            self.outbox.line_answered(now);
        }
        match about {
            ReplyScope::One(number, id) => {
                // A settled item was sent twice, and this is the second answer.
                let Some(item) = self.outbox.item(number) else {
                    return Ok(());
                };
                let ours = S::message_id(item);
                if *ours != id {
                    return Err(Violation(format!(
                        "the answer to the {} `{ours}` is about `{id}`",
                        S::NAME
                    )));
                }
                match reply {
                    reply if S::confirms_one(&reply) => self.settle(number, Ok(())),
                    Reply::Error(error) => self.failed(now, number, error),
                    other => {
                        let name = S::NAME;
                        return Err(Violation(format!("the {name} was answered with {other:?}")));
                    }
                }
            }
            ReplyScope::All(numbers) => match reply {
                reply if S::confirms_line(&reply) => {
                    for number in numbers {
                        self.settle(number, Ok(()));
                    }
                }
                reply @ (Reply::AckAll(_) | Reply::AckConfirmedAll(_)) => {
                    return Err(Violation(format!("{reply:?} answers another command")));
                }
                Reply::Error(error) => {
                    for number in numbers {
                        self.failed(now, number, error.clone());
                    }
                }
                other => {
                    for number in numbers {
                        let what =
                            format!("The server refused the line of the {}: {other:?}.", S::NAME);
                        self.settle(number, Err(Error::new(S::Kind::REFUSED, what)));
                    }
                }
            },
        }
        Ok(())
    }

    fn failed(&mut self, now: Instant, number: u64, error: ErrorReply) {
        if let Some(pause) = error.retry_after() {
            self.outbox.slow_down(now, number, pause);
            return;
        }
        let kind = S::Kind::of_code(error.code);
        // The outcome is unknown, or the server will be less busy soon: the item keeps its
        // attempts.
        if !error.is_definite() || kind == S::Kind::UNAVAILABLE {
            self.outbox.defer(number, error);
        } else {
            let what = format!("The server refused the {}: {error}.", S::NAME);
            let refused = Error::new(kind, what).advise_if(S::refusal_advice(error.code));
            self.settle(number, Err(refused));
        }
    }

    /// Ends the attempts whose time is over. `loss`: why there is no connection.
    pub(super) fn expire(&mut self, now: Instant, loss: Option<&str>) {
        let unconfirmed = format!("The {} was not {}", S::NAME, S::CONFIRMED);
        for Expired { item, last_error } in self.outbox.expire(now) {
            let (kind, what, is_connected) = match (last_error, loss) {
                (Some(error), _) => (
                    S::Kind::of_code(error.code),
                    format!("{unconfirmed} in any of the attempts: {error}."),
                    true,
                ),
                (None, Some(loss)) => (
                    S::Kind::DISCONNECTED,
                    format!("{unconfirmed}, for there is no connection: {loss}"),
                    false,
                ),
                (None, None) => (
                    S::Kind::TIMED_OUT,
                    format!("{unconfirmed} in any of the attempts."),
                    true,
                ),
            };
            let error = Error::new(kind, what).advise_if(S::expiry_advice(is_connected));
            self.sender.settle(item, Err(error));
        }
    }

    /// Fails every item and answers every caller: the connection is closed for good.
    pub(super) fn close(&mut self, reason: Option<&ConnectError>) {
        for item in self.outbox.drain() {
            let error = ending::error(reason, S::CLOSED);
            self.sender.settle(item, Err(error));
        }
        self.answer_waiters();
    }

    pub(super) fn settle(&mut self, number: u64, result: Result<(), Error<S::Kind>>) {
        if let Some(item) = self.outbox.settle(number) {
            self.sender.settle(item, result);
        }
    }

    /// Answers the callers whose items are all settled; returns whether the last one was among
    /// them.
    pub(super) fn answer_waiters(&mut self) -> bool {
        while let Some((_, waiter)) = self
            .waiters
            .pop_front_if(|(end, _)| *end <= self.outbox.settled_to())
        {
            if self.sender.answer(waiter) {
                return true;
            }
        }
        false
    }
}
