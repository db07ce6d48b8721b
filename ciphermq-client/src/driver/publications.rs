//! The publishers' outboxes, and the effect of replies on them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ciphermq_protocol::{Command, Envelope, ErrorReply, Reply};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::outbox::{Expired, Outbox};
use super::pending_replies::{ItemAnswer, ReplyScope, Violation};
use super::{Outgoing, PublisherId, PublisherSetup, Retry};
use crate::error::kinds::OperationKind as _;
use crate::error::{PublishError, PublishErrorKind};
use crate::publisher::{self, Outcome, Summary, Tally, line_overhead};

/// The publishers of a connection, served round-robin, one line at a time.
#[derive(Debug)]
pub(crate) struct Publications {
    retry: Retry,
    publishers: BTreeMap<PublisherId, Publication>,
    /// The publisher of the last line.
    last: Option<PublisherId>,
}

#[derive(Debug)]
struct Publication {
    setup: PublisherSetup,
    outbox: Outbox<Outgoing>,
    tally: Tally,
    flushes: VecDeque<(u64, FlushWaiter)>,
}

/// A caller that waits until everything is settled.
#[derive(Debug)]
enum FlushWaiter {
    Flush(oneshot::Sender<Result<(), PublishError>>),
    Finish(oneshot::Sender<Summary>),
}

impl Publications {
    pub(crate) fn new(retry: Retry) -> Self {
        Self {
            retry,
            publishers: BTreeMap::new(),
            last: None,
        }
    }

    pub(crate) fn open(
        &mut self,
        now: Instant,
        id: PublisherId,
        setup: PublisherSetup,
        is_online: bool,
    ) {
        // Dropped publishers without pending messages are removed when a new one opens.
        self.publishers
            .retain(|_, publication| !publication.is_abandoned());
        let mut outbox = Outbox::new(setup.limits, self.retry, now);
        if is_online {
            outbox.connected();
        }
        let publication = Publication {
            setup,
            outbox,
            tally: Tally::default(),
            flushes: VecDeque::new(),
        };
        self.publishers.insert(id, publication);
    }

    pub(crate) fn push(&mut self, now: Instant, id: PublisherId, item: Outgoing) {
        if let Some(publication) = self.publishers.get_mut(&id) {
            // A comma or a bracket comes with it.
            let bytes = item.envelope.raw().len() + 1;
            let weight = item.weight;
            publication.outbox.push(now, item, bytes, weight);
        }
    }

    pub(crate) fn flush(
        &mut self,
        id: PublisherId,
        done: oneshot::Sender<Result<(), PublishError>>,
    ) {
        self.wait(id, FlushWaiter::Flush(done));
    }

    pub(crate) fn finish(&mut self, id: PublisherId, done: oneshot::Sender<Summary>) {
        self.wait(id, FlushWaiter::Finish(done));
    }

    fn wait(&mut self, id: PublisherId, done: FlushWaiter) {
        if let Some(publication) = self.publishers.get_mut(&id) {
            publication.outbox.flush();
            publication
                .flushes
                .push_back((publication.outbox.end(), done));
            publication.answer_flushes();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.publishers
            .values()
            .all(|publication| publication.outbox.is_empty())
    }

    pub(crate) fn connected(&mut self) {
        self.publishers
            .values_mut()
            .for_each(|publication| publication.outbox.connected());
    }

    pub(crate) fn disconnected(&mut self, now: Instant) {
        self.publishers
            .values_mut()
            .for_each(|publication| publication.outbox.disconnected(now));
    }

    pub(crate) fn deadline(&self, can_be_sent: bool) -> Option<Instant> {
        self.publishers
            .values()
            .filter_map(|publication| publication.outbox.deadline(can_be_sent))
            .min()
    }

    /// Takes the next `publish_packed` or `publish_batch` line, from the next publisher in turn
    /// that has something to send.
    pub(crate) fn take_line(
        &mut self,
        now: Instant,
        max_line_bytes: usize,
        packs: bool,
    ) -> Option<(PublisherId, Vec<u64>, Command)> {
        let turns: Vec<PublisherId> = match self.last {
            Some(last) => {
                let after = self
                    .publishers
                    .range((std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded));
                after
                    .chain(self.publishers.range(..=last))
                    .map(|(&id, _)| id)
                    .collect()
            }
            None => self.publishers.keys().copied().collect(),
        };
        for id in turns {
            let Some(publication) = self.publishers.get_mut(&id) else {
                continue;
            };
            if let Some((numbers, command)) = publication.take_line(now, max_line_bytes, packs) {
                self.last = Some(id);
                return Some((id, numbers, command));
            }
        }
        None
    }

    pub(crate) fn answered(
        &mut self,
        id: PublisherId,
        answer: ItemAnswer,
    ) -> Result<(), Violation> {
        // A finished publisher is gone; answers to messages that were sent twice may follow it.
        let Some(publication) = self.publishers.get_mut(&id) else {
            return Ok(());
        };
        publication.answered(answer)
    }

    /// Ends the attempts whose time is over.
    pub(crate) fn expire(&mut self, now: Instant, loss: Option<&str>) {
        for publication in self.publishers.values_mut() {
            publication.expire(now, loss);
        }
    }

    /// Releases window space, answers waiting callers and removes finished publishers.
    pub(crate) fn settle(&mut self) {
        self.publishers.retain(|_, publication| {
            let released = publication.outbox.take_released();
            if released.items > 0 {
                publication
                    .setup
                    .window
                    .release(released.items, released.weight);
            }
            !publication.answer_flushes()
        });
    }

    /// Fails every pending message: the connection is closed for good.
    pub(crate) fn close(&mut self) {
        for publication in self.publishers.values_mut() {
            publication.setup.window.close();
            for item in publication.outbox.drain() {
                publication.report(item, Err(publisher::closed()));
            }
            publication.answer_flushes();
        }
        self.publishers.clear();
    }
}

impl Publication {
    /// Whether the publisher was dropped and nothing is in flight.
    fn is_abandoned(&self) -> bool {
        self.outbox.is_empty()
            && self.flushes.is_empty()
            && Arc::strong_count(&self.setup.window) == 1
    }

    fn take_line(
        &mut self,
        now: Instant,
        max_line_bytes: usize,
        packs: bool,
    ) -> Option<(Vec<u64>, Command)> {
        let PublisherSetup {
            exchange,
            routing_key,
            ..
        } = &self.setup;
        let room = max_line_bytes.saturating_sub(line_overhead(exchange, routing_key));
        loop {
            let numbers = self.outbox.take_line(now, room)?;
            // This connection's limit may be lower than that of the connection for which the
            // message was sealed.
            if let [number] = numbers[..]
                && self.outbox.bytes(number) > room.saturating_add(1)
            {
                self.outbox.line_answered();
                let what = format!(
                    "The message is too large: the server takes lines of {max_line_bytes} bytes \
                     now."
                );
                self.settle(
                    number,
                    Err(PublishError::new(PublishErrorKind::TooLarge, what)),
                );
                continue;
            }
            let envelopes: Vec<Envelope> = numbers
                .iter()
                .filter_map(|&number| self.outbox.item(number))
                .map(|item| item.envelope.clone())
                .collect();
            let (exchange, routing_key) =
                (self.setup.exchange.clone(), self.setup.routing_key.clone());
            let command = if packs && share_buffer(&envelopes) {
                Command::PublishPacked {
                    exchange,
                    routing_key,
                    envelopes,
                }
            } else {
                Command::PublishBatch {
                    exchange,
                    routing_key,
                    envelopes,
                }
            };
            return Some((numbers, command));
        }
    }

    fn answered(&mut self, answer: ItemAnswer) -> Result<(), Violation> {
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
                let Some(item) = self.outbox.item(number) else {
                    return Ok(());
                };
                if item.envelope.message_id != id {
                    let ours = &item.envelope.message_id;
                    return Err(Violation(format!(
                        "the answer to the message `{ours}` is about `{id}`"
                    )));
                }
                match reply {
                    Reply::Ack(_) => self.settle(number, Ok(())),
                    Reply::Error(error) => self.failed(number, error),
                    other => {
                        return Err(Violation(format!("a message was answered with {other:?}")));
                    }
                }
            }
            (ReplyScope::All(numbers), Reply::AckAll(_)) => {
                for number in numbers {
                    self.settle(number, Ok(()));
                }
            }
            (ReplyScope::All(_), reply @ Reply::AckConfirmedAll(_)) => {
                return Err(Violation(format!("{reply:?} answers another command")));
            }
            (ReplyScope::All(numbers), Reply::Error(error)) => {
                for number in numbers {
                    self.failed(number, error.clone());
                }
            }
            (ReplyScope::All(numbers), other) => {
                for number in numbers {
                    let what =
                        format!("The server refused the batch that the message was in: {other:?}.");
                    self.settle(
                        number,
                        Err(PublishError::new(PublishErrorKind::Refused, what)),
                    );
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, number: u64, error: ErrorReply) {
        let kind = PublishErrorKind::of_code(error.code);
        // The outcome is unknown, or the server will be less busy soon: the message keeps its
        // attempts.
        if !error.is_definite() || kind == PublishErrorKind::Unavailable {
            self.outbox.defer(number, error);
        } else {
            self.settle(number, Err(refused(kind, &error)));
        }
    }

    fn expire(&mut self, now: Instant, loss: Option<&str>) {
        for Expired { item, last_error } in self.outbox.expire(now) {
            let error = match (last_error, loss) {
                (Some(last_error), _) => {
                    let kind = PublishErrorKind::of_code(last_error.code);
                    PublishError::new(
                        kind,
                        format!(
                            "The message was not acknowledged in any of the attempts: {last_error}."
                        ),
                    )
                    .advise(
                        "It may be stored all the same: send it again with the same stream and \
                             position.",
                    )
                }
                (None, Some(loss)) => PublishError::new(
                    PublishErrorKind::Disconnected,
                    format!("The message was not acknowledged, for there is no connection: {loss}"),
                )
                .advise(
                    "See that the server runs; then send it again, with the same stream and \
                         position.",
                ),
                (None, None) => PublishError::new(
                    PublishErrorKind::TimedOut,
                    "The message was not acknowledged in any of the tries.",
                )
                .advise(
                    "It may be stored all the same: send it again with the same stream and \
                         position.",
                ),
            };
            self.report(item, Err(error));
        }
    }

    fn settle(&mut self, number: u64, result: Result<(), PublishError>) {
        if let Some(item) = self.outbox.settle(number) {
            self.report(item, result);
        }
    }

    fn report(&mut self, item: Outgoing, result: Result<(), PublishError>) {
        let message_id = &item.envelope.message_id;
        self.tally.count(message_id, result.as_ref().copied());
        if let Some(observer) = &self.setup.observer.0 {
            observer(Outcome {
                message_id,
                result: result.as_ref().copied(),
            });
        }
        if let Some(receipt) = item.receipt {
            // Fails if the receipt was dropped.
            drop(receipt.send(result));
        }
    }

    /// Answers the callers whose messages are all settled; returns whether the publisher has
    /// finished.
    fn answer_flushes(&mut self) -> bool {
        while let Some((_, done)) = self
            .flushes
            .pop_front_if(|(end, _)| *end <= self.outbox.settled_to())
        {
            match done {
                FlushWaiter::Flush(done) => {
                    drop(done.send(self.tally.first_failure.take().map_or(Ok(()), Err)))
                }
                FlushWaiter::Finish(done) => {
                    drop(done.send(std::mem::take(&mut self.tally.summary)));
                    return true;
                }
            }
        }
        false
    }
}

/// Whether all envelopes share_buffer one buffer. Envelopes of different sessions do not.
fn share_buffer(envelopes: &[Envelope]) -> bool {
    envelopes.first().is_some_and(|first| {
        envelopes
            .iter()
            .all(|envelope| envelope.raw().shares_with(first.raw()))
    })
}

fn refused(kind: PublishErrorKind, error: &ErrorReply) -> PublishError {
    PublishError::new(kind, format!("The server refused the message: {error}."))
        .advise_if(publisher::advice(error.code))
}
