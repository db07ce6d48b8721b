//! A connection's protocol logic, over any number of connections: bytes and times in, bytes out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ciphermq_protocol::Command;
use ciphermq_protocol::hello::HelloReply;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::acks::{AckItem, Acks};
use super::pending_replies::{Answer, Expected, Line, PendingReplies, Violation, Wait};
use super::publications::Publications;
use super::{DriverSettings, Op, Request};
use crate::consumer::DeliveryQueue;

/// No more commands are written while so many bytes wait for the socket.
pub(crate) const HIGH_WATER: usize = 512 * 1024;

/// A reply is at most so much longer than the longest line that the server takes.
const REPLY_OVERHEAD: usize = 1024;

#[derive(Debug)]
pub(crate) struct Machine {
    max_reply_bytes: usize,
    ping_interval: Duration,
    /// Without a byte for so long, the connection is lost, unless something waits for the server's
    /// store.
    silence_limit: Duration,
    /// The same while an ack has no answer: acks wait for the store as long as it takes.
    stall_timeout: Duration,
    /// How much longer than the server's store may take its answer may be under way.
    answer_time: Duration,
    link: Option<Link>,
    /// Why there is no connection.
    loss: Option<String>,
    /// Requests that are not on this connection yet.
    requests: VecDeque<Request>,
    publications: Publications,
    acks: Acks,
    queued: Option<Arc<DeliveryQueue>>,
    /// Who waits for the end; there are some once the end was asked for.
    closing: Vec<oneshot::Sender<()>>,
    is_closing: bool,
}

/// The connection that stands.
#[derive(Debug)]
struct Link {
    pending: PendingReplies,
    max_line_bytes: usize,
    /// The server takes packed batches.
    packs: bool,
    storage_wait: Duration,
    last_sent: Instant,
    last_received: Instant,
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the server broke the protocol: {0}")]
    Violation(#[from] Violation),
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
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

    /// Takes what a handle asks for.
    pub(crate) fn apply(&mut self, now: Instant, op: Op) {
        match op {
            Op::Request(request) => {
                // Nobody waits for some of them any more; without a connection they would pile up.
                self.requests.retain(|request| !request.answer.is_closed());
                self.requests.push_back(request);
            }
            Op::OpenPublisher(id, setup) => {
                self.publications.open(now, id, setup, self.link.is_some())
            }
            Op::Publish(id, item) => self.publications.push(now, id, item),
            Op::Flush(id, done) => self.publications.flush(id, done),
            Op::Finish(id, done) => self.publications.finish(id, done),
            Op::FlushAcks(done) => self.acks.flush(done),
            Op::Close(done) => {
                self.is_closing = true;
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

    /// Nothing new comes: the connection ends when everything is settled.
    pub(crate) fn close_when_drained(&mut self) {
        self.is_closing = true;
    }

    /// Whether the end was asked for and everything is settled.
    pub(crate) fn is_done(&mut self) -> bool {
        if !self.is_closing {
            return false;
        }
        self.requests.retain(|request| !request.answer.is_closed());
        let nothing_owed = self.link.as_ref().is_none_or(|link| !link.pending.owes());
        self.requests.is_empty()
            && self.publications.is_empty()
            && self.acks.is_empty()
            && nothing_owed
    }

    /// The end: whatever is not settled has failed.
    pub(crate) fn close(&mut self) {
        self.publications.close();
        self.acks.close();
        self.requests.clear();
        self.link = None;
        if let Some(queued) = &self.queued {
            queued.close();
        }
        for done in self.closing.drain(..) {
            // Who no longer waits for the end does not mind it.
            let _ = done.send(());
        }
    }

    /// A connection stands and is set up.
    pub(crate) fn connected(&mut self, now: Instant, hello: &HelloReply) {
        let max_line_bytes = hello.limits.max_line_bytes;
        let max_reply_bytes = max_line_bytes
            .saturating_add(REPLY_OVERHEAD)
            .min(self.max_reply_bytes);
        let pending = PendingReplies::new(max_reply_bytes, self.queued.is_some());
        self.link = Some(Link {
            pending,
            max_line_bytes,
            packs: hello.packed,
            storage_wait: Duration::from_millis(hello.limits.storage_wait_ms),
            last_sent: now,
            last_received: now,
        });
        self.loss = None;
        self.publications.connected();
        self.acks.outbox().connected();
    }

    /// The connection is lost. What has no answer goes out on the next one.
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

    /// Bytes came: reads whole lines off the front of `buffer`.
    pub(crate) fn receive(&mut self, now: Instant, buffer: &mut BytesMut) -> Result<(), Broken> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        link.last_received = now;
        while let Some(answer) = link.pending.next(buffer)? {
            match answer {
                Answer::Deliveries(deliveries) => {
                    let Some(queued) = &self.queued else { continue };
                    queued.deliver(deliveries).map_err(|_| {
                        Violation("it delivers more messages than were asked for".to_owned())
                    })?;
                }
                // Who has stopped waiting does not want to know.
                Answer::Request(request, reply) => drop(request.answer.send(reply)),
                Answer::Published(id, answer) => self.publications.answered(id, answer)?,
                Answer::Acked(answer) => self.acks.answered(answer)?,
                Answer::Pong => {}
            }
        }
        self.publications.settle();
        Ok(())
    }

    /// Writes what is to be sent now to the end of `out`, unless much is waiting there.
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
                link.pending.expect(Expected::Acked(Line::new(numbers)));
            } else if let Some((id, numbers, command)) =
                self.publications
                    .take_line(now, link.max_line_bytes, link.packs)
            {
                command.encode(out);
                link.pending
                    .expect(Expected::Published(id, Line::new(numbers)));
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

    /// Time has passed: ends tries, and finds out whether the connection is dead.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), Broken> {
        let loss = self.loss.as_deref();
        self.publications.expire(now, loss);
        self.acks.expire(now, loss);
        self.publications.settle();
        match &self.link {
            Some(link) if now >= link.last_received + self.patience(link) => {
                Err(Broken::Silent(self.patience(link)))
            }
            _ => Ok(()),
        }
    }

    /// How long the connection may be silent. Replies come in order, so behind a command that waits
    /// for the server's store nothing comes, not even the answer to a ping: then silence is no sign
    /// of death.
    fn patience(&self, link: &Link) -> Duration {
        match link.pending.oldest_wait() {
            Some(Wait::Store) => self.silence_limit.max(self.stall_timeout),
            Some(Wait::Answer) => self.silence_limit.max(link.storage_wait + self.answer_time),
            None => self.silence_limit,
        }
    }

    /// When [`Machine::tick`] or [`Machine::produce`] has something to do if nothing happens
    /// before. With `waiting` bytes on their way to the socket nothing more is produced.
    pub(crate) fn deadline(&mut self, waiting: usize) -> Option<Instant> {
        let can_be_sent = waiting < HIGH_WATER;
        let link = self.link.as_ref().map(|link| {
            let silent = link.last_received + self.patience(link);
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
