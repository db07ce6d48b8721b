//! The protocol logic of a connection, across reconnects: bytes and times in, bytes out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ciphermq_protocol::hello::{HelloReply, Packing};
use ciphermq_protocol::{Command, ErrorReply};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::acks::{AckItem, Acks};
use super::delivery_queue::DeliveryQueue;
use super::op::{Op, Request};
use super::pending_replies::{Answer, Expected, Line, OutboxId, PendingReplies, Violation, Wait};
use super::publications::{FlushWaiter, Publications};
use super::settings::DriverSettings;
use crate::error::ConnectError;

/// High-water mark of the output, in bytes: no command is written above it.
pub(crate) const HIGH_WATER: usize = 512 * 1024;

/// The most by which a reply exceeds the longest line that the server accepts, in bytes.
const REPLY_OVERHEAD: usize = 1024;

/// The state of a connection's protocol, which outlives the connection.
///
/// Bytes from the socket go in; bytes for the socket, answers to callers and deliveries come out.
/// After a loss it keeps what is unanswered, and writes it again on the next connection.
#[derive(Debug)]
pub(crate) struct Machine {
    max_reply_bytes: usize,
    ping_interval: Duration,
    /// The connection is lost after this long without a byte, unless a command waits for the
    /// server's store.
    silence_limit: Duration,
    /// Replaces `silence_limit` while an ack is unanswered: acks wait for the store indefinitely.
    stall_timeout: Duration,
    /// Time for a reply to travel, in addition to the server's `storage_wait`.
    answer_time: Duration,
    /// The current connection.
    link: Option<Link>,
    /// The reason why there is no connection.
    loss: Option<String>,
    /// Requests that were not sent on this connection yet.
    requests: VecDeque<Request>,
    publications: Publications,
    acks: Acks,
    queued: Option<Arc<DeliveryQueue>>,
    /// Callers that wait for the connection to end.
    closing: Vec<oneshot::Sender<()>>,
    is_closing: bool,
}

/// The state of the current connection.
#[derive(Debug)]
struct Link {
    pending: PendingReplies,
    max_line_bytes: usize,
    /// The form of batches that the server accepts.
    packing: Packing,
    storage_wait: Duration,
    last_sent: Instant,
    last_received: Instant,
}

/// Why a connection cannot continue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectionFault {
    #[error("the server broke the protocol: {0}")]
    Violation(#[from] Violation),
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
    #[error("the server ended it: {0}")]
    Ended(ErrorReply),
}

impl Machine {
    pub(crate) fn new(
        settings: &DriverSettings,
        queued: Option<Arc<DeliveryQueue>>,
        now: Instant,
    ) -> Self {
        Self {
            max_reply_bytes: settings.max_reply_bytes,
            ping_interval: settings.ping_interval,
            silence_limit: settings.ping_interval + settings.retry.timeout,
            stall_timeout: settings.stall_timeout,
            answer_time: settings.retry.timeout,
            link: None,
            loss: None,
            requests: VecDeque::new(),
            publications: Publications::new(settings.retry),
            acks: Acks::new(settings.retry, now),
            queued,
            closing: Vec::new(),
            is_closing: false,
        }
    }

    /// Applies an operation of a handle.
    pub(crate) fn apply(&mut self, now: Instant, op: Op) {
        match op {
            Op::Request(request) => {
                // Requests that were abandoned would pile up while there is no connection.
                self.requests.retain(|request| !request.answer.is_closed());
                self.requests.push_back(request);
            }
            Op::OpenPublisher(id, setup) => {
                self.publications.open(now, id, setup, self.link.is_some());
            }
            Op::Publish(id, item) => self.publications.push(now, id, item),
            Op::Flush(id, done) => self.publications.flush(id, FlushWaiter::Flush(done)),
            Op::Finish(id, done) => self.publications.flush(id, FlushWaiter::Finish(done)),
            Op::FlushAcks(done) => self.acks.flush(done),
            Op::Close(done) => {
                self.close_when_drained();
                self.closing.push(done);
            }
        }
        self.publications.settle();
    }

    pub(crate) fn push_acks(&mut self, now: Instant, items: impl IntoIterator<Item = AckItem>) {
        for item in items {
            self.acks.push(now, item);
        }
    }

    /// Sends everything at once, and ends the connection when everything is settled; no further
    /// operation is expected.
    pub(crate) fn close_when_drained(&mut self) {
        self.publications.flush_all();
        self.acks.outbox().flush();
        self.is_closing = true;
    }

    /// Whether the connection was asked to end and everything is settled.
    pub(crate) fn is_done(&mut self) -> bool {
        if !self.is_closing {
            return false;
        }
        self.requests.retain(|request| !request.answer.is_closed());
        let nothing_outstanding = self
            .link
            .as_ref()
            .is_none_or(|link| !link.pending.is_outstanding());
        self.requests.is_empty()
            && self.publications.is_empty()
            && self.acks.is_empty()
            && nothing_outstanding
    }

    /// Fails everything that is not settled: because of `reason`, or because the owner has closed
    /// the connection.
    pub(crate) fn close(&mut self, reason: Option<&ConnectError>) {
        self.publications.close(reason);
        self.acks.close(reason);
        self.requests.clear();
        self.link = None;
        if let Some(queued) = &self.queued {
            queued.close(reason.cloned());
        }
        for done in self.closing.drain(..) {
            // Fails if the caller no longer waits.
            let _ = done.send(());
        }
    }

    /// Starts using a new connection, whose set-up is complete.
    pub(crate) fn connected(&mut self, now: Instant, hello: &HelloReply) {
        let max_line_bytes = hello.limits.max_line_bytes;
        let max_reply_bytes = max_line_bytes
            .saturating_add(REPLY_OVERHEAD)
            .min(self.max_reply_bytes);
        let pending = PendingReplies::new(max_reply_bytes, self.queued.is_some());
        self.link = Some(Link {
            pending,
            max_line_bytes,
            packing: hello.packing(),
            storage_wait: Duration::from_millis(hello.limits.storage_wait_ms),
            last_sent: now,
            last_received: now,
        });
        self.loss = None;
        self.publications.connected();
        self.acks.outbox().connected();
    }

    /// Records the loss of the connection. Unanswered commands are sent again on the next one.
    pub(crate) fn disconnected(&mut self, now: Instant, reason: String) {
        self.loss = Some(reason);
        if let Some(link) = self.link.take() {
            for request in link.pending.into_requests().rev() {
                self.requests.push_front(request);
            }
        }
        self.publications.disconnected(now);
        self.acks.outbox().disconnected(now);
        if let Some(queued) = &self.queued {
            queued.purge();
        }
    }

    /// Reads whole lines from the front of `buffer`.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        buffer: &mut BytesMut,
    ) -> Result<(), ConnectionFault> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        link.last_received = now;
        while let Some(answer) = link.pending.next(buffer)? {
            match answer {
                Answer::Deliveries(deliveries) => {
                    let Some(queued) = &self.queued else { continue };
                    queued.deliver(deliveries).map_err(|_| {
                        Violation("it delivers more messages than the prefetch allows".to_owned())
                    })?;
                }
                // Fails if the caller no longer waits.
                Answer::Request(request, reply) => drop(request.answer.send(reply)),
                Answer::Items(OutboxId::Publisher(id), answer) => {
                    self.publications.answered(now, id, answer)?;
                }
                Answer::Items(OutboxId::Acks, answer) => self.acks.answered(now, answer)?,
                Answer::Pong => {}
                Answer::Ended(error) => return Err(ConnectionFault::Ended(error)),
            }
        }
        self.publications.settle();
        Ok(())
    }

    /// Takes the pause that the server has asked for, if it is the first one for a while.
    pub(crate) fn take_slowed(&mut self) -> Option<Duration> {
        self.publications.take_slowed()
    }

    /// Appends the lines that are to be sent now to `out`, up to [`HIGH_WATER`].
    pub(crate) fn produce(&mut self, now: Instant, out: &mut BytesMut) {
        let Some(link) = &mut self.link else { return };
        let before = out.len();
        while out.len() < HIGH_WATER {
            if let Some(request) = self.requests.pop_front() {
                if !request.answer.is_closed() {
                    request.command.encode(out);
                    link.pending.expect(Expected::Request(request));
                }
            } else if let Some((numbers, command)) = self.acks.take_line(now, link.max_line_bytes) {
                command.encode(out);
                let line = Line::new(numbers);
                link.pending.expect(Expected::Items(OutboxId::Acks, line));
            } else if let Some((id, numbers, command)) =
                self.publications
                    .take_line(now, link.max_line_bytes, link.packing)
            {
                command.encode(out);
                let expected = Expected::Items(OutboxId::Publisher(id), Line::new(numbers));
                link.pending.expect(expected);
            } else {
                break;
            }
        }
        if out.len() == before && before == 0 && now >= link.last_sent + self.ping_interval {
            Command::Ping.encode(out);
            link.pending.expect(Expected::Pong);
        }
        if out.len() > before {
            link.last_sent = now;
        }
        self.publications.settle();
    }

    /// Ends attempts whose time is over, and detects a dead connection.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), ConnectionFault> {
        let loss = self.loss.as_deref();
        self.publications.expire(now, loss);
        self.acks.expire(now, loss);
        self.publications.settle();
        match &self.link {
            Some(link) if now >= link.last_received + self.max_silence(link) => {
                Err(ConnectionFault::Silent(self.max_silence(link)))
            }
            _ => Ok(()),
        }
    }

    /// Returns how long the connection may stay silent.
    ///
    /// Replies come in order, so nothing follows a command that waits for the server's store, not
    /// even the reply to a ping: silence is then no sign of a dead connection.
    fn max_silence(&self, link: &Link) -> Duration {
        match link.pending.oldest_wait() {
            Some(Wait::Store) => self.silence_limit.max(self.stall_timeout),
            Some(Wait::Answer) => self.silence_limit.max(link.storage_wait + self.answer_time),
            None => self.silence_limit,
        }
    }

    /// Returns when [`Machine::tick`] or [`Machine::produce`] next has work if nothing happens
    /// before. Nothing is produced while `waiting` bytes are on their way to the socket.
    pub(crate) fn deadline(&mut self, waiting: usize) -> Option<Instant> {
        let can_be_sent = waiting < HIGH_WATER;
        let link = self.link.as_ref().map(|link| {
            let silent = link.last_received + self.max_silence(link);
            if waiting == 0 {
                silent.min(link.last_sent + self.ping_interval)
            } else {
                silent
            }
        });
        let acks = self.acks.outbox().deadline(can_be_sent);
        let publications = self.publications.deadline(can_be_sent);
        [link, acks, publications].into_iter().flatten().min()
    }
}
