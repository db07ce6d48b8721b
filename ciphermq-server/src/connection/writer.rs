//! The writing half of a connection: replies in the order of their commands, deliveries between
//! them.

use std::time::Duration;

use bytes::BytesMut;
use ciphermq_protocol::hello::Packing;
use ciphermq_protocol::{Delivery, PackedLines, Reply};
use futures_util::FutureExt as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::QueuedAnswer;
use super::memory::{ConnectionReplies, FREE_REPLY_BYTES, LinePermit, ReplyPermit};
use super::reader::Ended;
use crate::broker::{AfterWrite, Mailbox, OutputObserver};
use crate::shared_budget::Taken;

/// The number of bytes that are collected before they are written.
const WRITE_BYTES: usize = 64 * 1024;
/// How long the last bytes may take.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// How long a write may take before its connection is one that does not read.
const PROMPT: Duration = Duration::from_secs(1);

/// Writes until no more answers come, the connection is lost, or it has to be ended. Returns the
/// reason if the connection is at fault.
pub(super) async fn run<O: AsyncWrite + Unpin>(
    output: O,
    answers: mpsc::Receiver<QueuedAnswer>,
    mailbox: Mailbox,
    output_observer: OutputObserver,
    replies: ConnectionReplies,
    max_line_bytes: usize,
) -> Ended {
    let mut writer = Writer {
        output,
        answers,
        mailbox,
        output_observer,
        current: None,
        out: BytesMut::new(),
        unsent: 0,
        replies,
        room: FREE_REPLY_BYTES,
        taken: None,
        permits: Vec::new(),
        packing: Packing::None,
        max_line_bytes,
    };
    let ended = loop {
        if let Err(ended) = writer.step().await {
            break ended;
        }
    };
    if matches!(ended, Ended::Unread) {
        return ended;
    }
    // The client distinguishes an orderly end from a loss by it. It may be gone already.
    let _ = tokio::time::timeout(SHUTDOWN, writer.output.shutdown()).await;
    ended
}

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
    replies: ConnectionReplies,
    /// The bytes for which `out` has memory: a little for each connection, and `taken`.
    room: usize,
    taken: Option<Taken>,
    /// The memory of the answers in `out`, as far as it must be held until they are written.
    permits: Vec<(Option<LinePermit>, Option<ReplyPermit>)>,
    /// The form of lines that the client takes.
    packing: Packing,
    max_line_bytes: usize,
}

impl<O: AsyncWrite + Unpin> Writer<O> {
    async fn step(&mut self) -> Result<(), Ended> {
        self.collect_ready();
        if !self.out.is_empty() {
            return self.write().await;
        }
        // Idle connections hold no buffer.
        self.out = BytesMut::new();
        let packs = self.packs();
        match &mut self.current {
            Some(current) => tokio::select! {
                (replies, then) = current.answer.replies(packs) => {
                    self.emit(&replies, then);
                }
                Some(deliveries) = self.mailbox.recv() => self.deliver(&deliveries),
            },
            None => tokio::select! {
                answer = self.answers.recv() => match answer {
                    Some(answer) => self.current = Some(answer),
                    None => return Err(Ended::Closed),
                },
                Some(deliveries) = self.mailbox.recv() => self.deliver(&deliveries),
            },
        }
        Ok(())
    }

    /// Takes everything that is ready, answers first.
    fn collect_ready(&mut self) {
        while self.has_room() {
            let packs = self.packs();
            if self.current.is_none() {
                self.current = self.answers.try_recv().ok();
            }
            if let Some((replies, then)) = self
                .current
                .as_mut()
                .and_then(|current| current.answer.replies(packs).now_or_never())
            {
                self.emit(&replies, then);
            } else if let Ok(deliveries) = self.mailbox.try_recv() {
                self.deliver(&deliveries);
            } else {
                return;
            }
        }
    }

    /// Whether more may be collected. Takes memory for it if there is some.
    fn has_room(&mut self) -> bool {
        if self.out.len() >= self.room && self.taken.is_none() && self.out.len() < WRITE_BYTES {
            self.taken = self.replies.try_take(WRITE_BYTES);
            if self.taken.is_some() {
                self.room = WRITE_BYTES;
            }
        }
        self.out.len() < self.room
    }

    /// Whether the client takes packed deliveries and replies.
    fn packs(&self) -> bool {
        self.packing != Packing::None
    }

    /// Adds the replies of the current answer to the output.
    fn emit(&mut self, replies: &[Reply], then: AfterWrite) {
        let settles = matches!(then, AfterWrite::Settle(_) | AfterWrite::Reject { .. });
        if settles && !self.packs() {
            // The oldest clients discard what comes before a confirmation. The inbox assumes that
            // these are all the deliveries that it has made so far.
            while let Ok(deliveries) = self.mailbox.try_recv() {
                self.deliver(&deliveries);
            }
        }
        for reply in replies {
            reply.encode(&mut self.out);
        }
        if let Some(QueuedAnswer { line, reply, .. }) = self.current.take() {
            // The replies to a long line may take as much as the line.
            let line = line.filter(|_| self.out.len() > WRITE_BYTES);
            if line.is_some() || reply.is_some() {
                self.permits.push((line, reply));
            }
        }
        // Deliveries that the replies permit may be made now: they come after them in the output.
        match then {
            AfterWrite::Nothing => {}
            AfterWrite::Pack(packing) => self.packing = packing,
            AfterWrite::Subscribe(subscription) => {
                self.output_observer.subscribed(subscription, self.packs());
            }
            AfterWrite::Settle(message_ids) => self.output_observer.settled(&message_ids),
            AfterWrite::Reject { message_id, reason } => {
                self.output_observer.rejected(message_id, reason.as_deref());
            }
        }
    }

    fn deliver(&mut self, deliveries: &[Delivery]) {
        match self.packing {
            Packing::None => deliveries
                .iter()
                .for_each(|delivery| delivery.encode(&mut self.out)),
            packing @ (Packing::Text | Packing::Binary) => {
                let taken = PackedLines {
                    binary: packing == Packing::Binary,
                    max_line_bytes: self.max_line_bytes,
                };
                Delivery::encode_packed(deliveries, taken, &mut self.out);
            }
        }
        let bytes: usize = deliveries
            .iter()
            .map(|delivery| delivery.envelope.len())
            .sum();
        self.unsent += bytes;
    }

    /// Writes everything that was collected.
    async fn write(&mut self) -> Result<(), Ended> {
        let mut unwritten = &self.out[..];
        let written = write(&mut self.output, &mut unwritten);
        match tokio::time::timeout(PROMPT, written).await {
            Ok(written) => written.map_err(|_| Ended::Lost)?,
            Err(_elapsed) => write_slowly(&mut self.output, unwritten, &self.replies).await?,
        }
        if self.out.capacity() > 2 * WRITE_BYTES {
            // What long replies took is not kept: it is in no budget from here on.
            self.out = BytesMut::new();
        } else {
            self.out.clear();
        }
        self.permits.clear();
        self.room = FREE_REPLY_BYTES;
        self.taken = None;
        let sent = std::mem::take(&mut self.unsent);
        if sent > 0 {
            self.output_observer.sent(sent);
        }
        Ok(())
    }
}

/// Writes bytes, and removes those that are written. It is cancel safe.
async fn write(output: &mut (impl AsyncWrite + Unpin), bytes: &mut &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        if output.write_buf(bytes).await? == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
    }
    output.flush().await
}

/// Writes to a client that does not read promptly: it has to if others need the memory.
async fn write_slowly(
    output: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    replies: &ConnectionReplies,
) -> Result<(), Ended> {
    let transfer = replies.unread(bytes.len());
    while !bytes.is_empty() {
        let written = tokio::select! {
            written = output.write_buf(&mut bytes) => written,
            _ = transfer.is_too_slow() => return Err(Ended::Unread),
        };
        match written {
            Ok(count @ 1..) => transfer.written(count),
            Ok(0) | Err(_) => return Err(Ended::Lost),
        }
    }
    tokio::select! {
        flushed = output.flush() => flushed.map_err(|_| Ended::Lost),
        _ = transfer.is_too_slow() => Err(Ended::Unread),
    }
}
