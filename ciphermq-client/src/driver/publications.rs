//! The unsettled messages of a connection's publishers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ciphermq_protocol::hello::Packing;
use ciphermq_protocol::{Command, Envelope, ErrorCode, ExchangeName, MessageId, Reply, RoutingKey};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::op::{Outgoing, PublisherId, PublisherSetup};
use super::outcome::{Outcome, Summary, Tally};
use super::pending_replies::{ItemAnswer, Violation};
use super::settings::Retry;
use super::unsettled::{Settle, Unsettled};
use crate::error::{ConnectError, PublishError, PublishErrorKind};

/// The publishers of a connection, served round-robin, one line at a time.
#[derive(Debug)]
pub(crate) struct Publications {
    retry: Retry,
    publishers: BTreeMap<PublisherId, Publication>,
    /// The publisher of the last line.
    last: Option<PublisherId>,
    /// Publishers send slowly before, because the server has asked for a pause.
    slow_until: Option<Instant>,
    /// The pause of which nobody was told yet.
    slowed: Option<Duration>,
}

type Publication = Unsettled<Messages>;

/// The route of a publisher, and the outcomes of its messages.
#[derive(Debug)]
struct Messages {
    setup: PublisherSetup,
    tally: Tally,
}

/// A caller that waits until everything is settled.
#[derive(Debug)]
pub(crate) enum FlushWaiter {
    Flush(oneshot::Sender<Result<(), PublishError>>),
    Finish(oneshot::Sender<Summary>),
}

impl Settle for Messages {
    type Item = Outgoing;
    type Kind = PublishErrorKind;
    type Waiter = FlushWaiter;

    const NAME: &'static str = "message";
    const CONFIRMED: &'static str = "acknowledged";
    const CLOSED: &'static str = "The client was closed.";
    const LATE_WAIT: Duration = Duration::from_secs(1);

    fn message_id(item: &Outgoing) -> &MessageId {
        &item.envelope.message_id
    }

    fn confirms_one(reply: &Reply) -> bool {
        matches!(reply, Reply::Ack(_))
    }

    fn confirms_line(reply: &Reply) -> bool {
        matches!(reply, Reply::AckAll(_))
    }

    fn refusal_advice(code: Option<ErrorCode>) -> Option<&'static str> {
        advice(code)
    }

    fn expiry_advice(is_connected: bool) -> Option<&'static str> {
        Some(if is_connected {
            "It may be stored all the same: send it again with the same stream and position."
        } else {
            "Make sure that the server runs; then send it again, with the same stream and position."
        })
    }

    fn settle(&mut self, item: Outgoing, result: Result<(), PublishError>) {
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

    fn answer(&mut self, waiter: FlushWaiter) -> bool {
        match waiter {
            FlushWaiter::Flush(done) => {
                drop(done.send(self.tally.first_failure.take().map_or(Ok(()), Err)));
                false
            }
            FlushWaiter::Finish(done) => {
                drop(done.send(std::mem::take(&mut self.tally.summary)));
                true
            }
        }
    }
}

impl Publications {
    pub(crate) fn new(retry: Retry) -> Self {
        Self {
            retry,
            publishers: BTreeMap::new(),
            last: None,
            slow_until: None,
            slowed: None,
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
        let limits = setup.limits;
        let tally = Tally::default();
        let mut messages = Unsettled::new(Messages { setup, tally }, limits, self.retry, now);
        if is_online {
            messages.outbox.connected();
        }
        self.publishers.insert(id, messages);
    }

    pub(crate) fn push(&mut self, now: Instant, id: PublisherId, item: Outgoing) {
        if let Some(publication) = self.publishers.get_mut(&id) {
            // A comma or a bracket comes with it.
            let bytes = item.envelope.raw().len() + 1;
            let weight = item.weight;
            publication.outbox.push(now, item, bytes, weight);
        }
    }

    /// Sends a publisher's messages at once; [`Publications::settle`] answers the caller.
    pub(crate) fn flush(&mut self, id: PublisherId, waiter: FlushWaiter) {
        if let Some(publication) = self.publishers.get_mut(&id) {
            publication.flush(waiter);
        }
    }

    /// Sends all messages at once.
    pub(crate) fn flush_all(&mut self) {
        let publishers = self.publishers.values_mut();
        publishers.for_each(|publication| publication.outbox.flush());
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
        packing: Packing,
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
            if let Some((numbers, command)) = publication.take_line(now, max_line_bytes, packing) {
                self.last = Some(id);
                return Some((id, numbers, command));
            }
        }
        None
    }

    pub(crate) fn answered(
        &mut self,
        now: Instant,
        id: PublisherId,
        answer: ItemAnswer,
    ) -> Result<(), Violation> {
        // A finished publisher is gone; answers to messages that were sent twice may follow it.
        let Some(publication) = self.publishers.get_mut(&id) else {
            return Ok(());
        };
        publication.answered(now, answer)?;
        if let Some((paused_until, slow_until)) = publication.outbox.pause() {
            // Told once until the server has asked for no pause for a while.
            if self.slow_until.is_none_or(|until| until < now) {
                self.slowed = Some(paused_until.saturating_duration_since(now));
            }
            self.slow_until = self.slow_until.max(Some(slow_until));
        }
        Ok(())
    }

    /// Takes the pause that the server has asked for, if it is the first one for a while.
    pub(crate) fn take_slowed(&mut self) -> Option<Duration> {
        self.slowed.take()
    }

    /// Ends the attempts whose time is over.
    pub(crate) fn expire(&mut self, now: Instant, loss: Option<&str>) {
        for publication in self.publishers.values_mut() {
            publication.expire(now, loss);
        }
    }

    /// Releases window space, answers waiting callers and removes finished publishers.
    pub(crate) fn settle(&mut self) {
        self.publishers.retain(|_, messages| {
            let released = messages.outbox.take_released();
            if released.items > 0 {
                let window = &messages.sender.setup.window;
                window.release(released.items, released.weight);
            }
            !messages.answer_waiters()
        });
    }

    /// Fails every pending message: the connection is closed for good.
    pub(crate) fn close(&mut self, reason: Option<&ConnectError>) {
        for messages in self.publishers.values_mut() {
            messages.sender.setup.window.close();
            messages.close(reason);
        }
        self.publishers.clear();
    }
}

impl Publication {
    /// Whether the publisher was dropped and nothing is in flight.
    fn is_abandoned(&self) -> bool {
        self.is_idle() && Arc::strong_count(&self.sender.setup.window) == 1
    }

    fn take_line(
        &mut self,
        now: Instant,
        max_line_bytes: usize,
        packing: Packing,
    ) -> Option<(Vec<u64>, Command)> {
        let PublisherSetup {
            exchange,
            routing_key,
            ..
        } = &self.sender.setup;
        let room = max_line_bytes.saturating_sub(line_overhead(exchange, routing_key));
        loop {
            let numbers = self.outbox.take_line(now, room)?;
            // This connection's limit may be lower than that of the connection for which the
            // message was sealed.
            if let [number] = numbers[..]
                && self.outbox.bytes(number) > room.saturating_add(1)
            {
                self.outbox.line_dropped();
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
            let setup = &self.sender.setup;
            let (exchange, routing_key) = (setup.exchange.clone(), setup.routing_key.clone());
            let command = if packing != Packing::None && share_buffer(&envelopes) {
                let envelopes = match packing {
                    Packing::Binary => envelopes,
                    _ => envelopes.iter().map(Envelope::with_text).collect(),
                };
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
}

/// Whether all envelopes share one buffer. Envelopes of different sessions do not.
fn share_buffer(envelopes: &[Envelope]) -> bool {
    envelopes.first().is_some_and(|first| {
        envelopes
            .iter()
            .all(|envelope| envelope.raw().shares_with(first.raw()))
    })
}

/// Returns the maximum length of a `publish_packed` or `publish_batch` line without its envelopes
/// and their separators.
pub(crate) fn line_overhead(exchange: &ExchangeName, routing_key: &RoutingKey) -> usize {
    "publish_packed  65536 {} ".len() + exchange.as_str().len() + routing_key.as_str().len()
}

/// Returns what the caller should do about an error code.
fn advice(code: Option<ErrorCode>) -> Option<&'static str> {
    Some(match code? {
        ErrorCode::NoRoute => {
            "Start the receiver once, or bind a queue to the exchange by this routing key: \
             `ciphermq-cli receive` does."
        }
        ErrorCode::NotFound => {
            "Declare the exchange first, and bind a queue to it: `ciphermq-cli receive` does."
        }
        ErrorCode::IdInUse => "Start a new stream: another message was sent with this id.",
        ErrorCode::TooLarge | ErrorCode::LineTooLong => "Send it in smaller parts.",
        ErrorCode::StorageFull => {
            "Make room on the server's disk, or let receivers acknowledge waiting messages; then \
             send again."
        }
        ErrorCode::QuotaExceeded => {
            "Do what the server says, or ask its operator for a higher limit; then send again."
        }
        ErrorCode::StorageUnavailable => {
            "See the server's log; then send again, with the same stream."
        }
        _ => return None,
    })
}
