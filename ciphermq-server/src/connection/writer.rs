//! The writing half of a connection: replies in the order of their commands, deliveries between
//! them.

use bytes::BytesMut;
use ciphermq_protocol::{Delivery, Reply};
use futures_util::FutureExt as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::QueuedAnswer;
use crate::broker::{AfterWrite, Mailbox, OutputObserver};

/// The number of bytes that are collected before they are written.
const WRITE_BYTES: usize = 64 * 1024;

/// Writes until no more answers come, or the connection is lost.
pub(super) async fn run<O: AsyncWrite + Unpin>(
    output: O,
    answers: mpsc::Receiver<QueuedAnswer>,
    mailbox: Mailbox,
    output_observer: OutputObserver,
) {
    let mut writer = Writer {
        output,
        answers,
        mailbox,
        output_observer,
        current: None,
        out: BytesMut::new(),
        unsent: 0,
        reservations: Vec::new(),
        packs: false,
    };
    while writer.step().await.is_ok() {}
    // The client distinguishes an orderly end from a loss by it. It may be gone already.
    let _ = writer.output.shutdown().await;
}

/// The end of the output: there is nothing more to write, or nothing can be written.
struct Done;

struct Writer<O> {
    output: O,
    answers: mpsc::Receiver<QueuedAnswer>,
    mailbox: Mailbox,
    output_observer: OutputObserver,
    /// The answer whose turn it is.
    current: Option<QueuedAnswer>,
    out: BytesMut,
    /// The bytes of envelopes in `out`.
    unsent: usize,
    /// The reservations of long replies in `out`.
    reservations: Vec<OwnedSemaphorePermit>,
    /// Whether the client takes packed deliveries and replies.
    packs: bool,
}

impl<O: AsyncWrite + Unpin> Writer<O> {
    async fn step(&mut self) -> Result<(), Done> {
        self.collect_ready();
        if !self.out.is_empty() {
            return self.write().await;
        }
        // Idle connections hold no buffer.
        self.out = BytesMut::new();
        match &mut self.current {
            Some(current) => tokio::select! {
                (replies, then) = current.answer.replies(self.packs) => {
                    self.keep_reservation();
                    self.emit(&replies, then);
                }
                Some(deliveries) = self.mailbox.recv() => self.deliver(&deliveries),
            },
            None => tokio::select! {
                answer = self.answers.recv() => match answer {
                    Some(answer) => self.current = Some(answer),
                    None => return Err(Done),
                },
                Some(deliveries) = self.mailbox.recv() => self.deliver(&deliveries),
            },
        }
        Ok(())
    }

    /// Takes everything that is ready, answers first.
    fn collect_ready(&mut self) {
        while self.out.len() < WRITE_BYTES {
            if self.current.is_none() {
                self.current = self.answers.try_recv().ok();
            }
            if let Some((replies, then)) = self
                .current
                .as_mut()
                .and_then(|current| current.answer.replies(self.packs).now_or_never())
            {
                self.keep_reservation();
                self.emit(&replies, then);
            } else if let Ok(deliveries) = self.mailbox.try_recv() {
                self.deliver(&deliveries);
            } else {
                return;
            }
        }
    }

    /// Keeps the reservation of the current answer, whose replies go to the output next.
    fn keep_reservation(&mut self) {
        let reservations = self.current.take().and_then(|current| current.reply);
        self.reservations.extend(reservations);
    }

    fn emit(&mut self, replies: &[Reply], then: AfterWrite) {
        if matches!(then, AfterWrite::Settle(_)) && !self.packs {
            // The oldest clients discard what comes before a confirmation. The inbox assumes that
            // these are all the deliveries that it has made so far.
            while let Ok(deliveries) = self.mailbox.try_recv() {
                self.deliver(&deliveries);
            }
        }
        for reply in replies {
            reply.encode(&mut self.out);
        }
        // Deliveries that the replies permit may be made now: they come after them in the output.
        match then {
            AfterWrite::Nothing => {}
            AfterWrite::Pack(packs) => self.packs = packs,
            AfterWrite::Subscribe(subscription) => {
                self.output_observer.subscribed(subscription, self.packs);
            }
            AfterWrite::Settle(message_ids) => self.output_observer.settled(&message_ids),
        }
    }

    fn deliver(&mut self, deliveries: &[Delivery]) {
        if self.packs {
            Delivery::encode_packed(deliveries, &mut self.out);
        } else {
            for delivery in deliveries {
                delivery.encode(&mut self.out);
            }
        }
        let bytes: usize = deliveries
            .iter()
            .map(|delivery| delivery.envelope.len())
            .sum();
        self.unsent += bytes;
    }

    async fn write(&mut self) -> Result<(), Done> {
        self.output.write_all(&self.out).await.map_err(|_| Done)?;
        self.output.flush().await.map_err(|_| Done)?;
        self.out.clear();
        self.reservations.clear();
        let sent = std::mem::take(&mut self.unsent);
        if sent > 0 {
            self.output_observer.sent(sent);
        }
        Ok(())
    }
}
