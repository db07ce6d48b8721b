//! The reading half: lines to operations.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ciphermq_protocol::{Command, Envelope, ErrorCode, ErrorReply, LineDecoder, Reply};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::answer::{Answer, Queued};
use super::buffers::{BufferBudget, BufferPermit};
use crate::broker::ClientSession;
use crate::stop::Stop;

/// The smallest and the largest read. An idle connection holds the smallest.
const CHUNK: std::ops::RangeInclusive<usize> = 2 * 1024..=64 * 1024;
/// How many bytes of long replies of one connection may wait to be written.
const REPLY_BYTES: usize = 1 << 20;
/// How long a long line may pause before it gives its memory back.
const LINE_PAUSE: Duration = Duration::from_secs(30);

/// Why a connection has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client closed it.
    Closed,
    /// It broke.
    Lost,
    /// The client sent what cannot be read on from.
    Unreadable(ErrorCode),
    /// The server stops.
    Stopped,
    /// Another connection of the same consumer took over.
    TakenOver,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the client closed it"),
            Self::Lost => f.write_str("it was lost"),
            Self::Unreadable(code) => write!(f, "what the client sent cannot be taken, {code}"),
            Self::Stopped => f.write_str("the server stops"),
            Self::TakenOver => f.write_str("the consumer has a newer one"),
        }
    }
}

/// Reads until the connection ends, and hands an answer for each line to the writer.
pub(super) async fn run<I: AsyncRead + Unpin>(
    input: I,
    session: ClientSession,
    answers: mpsc::Sender<Queued>,
    buffers: &Arc<BufferBudget>,
    stop: Stop,
) -> Ended {
    let decoder = LineDecoder::new(session.broker().limits().max_line_bytes);
    let buffer_permit = buffers.permit();
    let mut reader = Reader {
        input,
        session,
        answers,
        decoder,
        buffer_permit,
        replies: Arc::new(Semaphore::new(REPLY_BYTES)),
        stop,
        buffer: BytesMut::new(),
        chunk: *CHUNK.start(),
    };
    loop {
        match reader.step().await {
            Ok(()) => {}
            Err(Ended::Unreadable(code)) => {
                let text = match code {
                    ErrorCode::LineTooLong => {
                        format!(
                            "a line has at most {} bytes",
                            reader.session.broker().limits().max_line_bytes
                        )
                    }
                    _ => "too many long lines are under way; connect again and retry".to_owned(),
                };
                let _ = reader
                    .answers
                    .send(Queued {
                        answer: Answer::Ready(ErrorReply::new(code, text).into()),
                        _line: None,
                        reply: None,
                    })
                    .await;
                return Ended::Unreadable(code);
            }
            Err(ended) => return ended,
        }
    }
}

struct Reader<I> {
    input: I,
    session: ClientSession,
    answers: mpsc::Sender<Queued>,
    decoder: LineDecoder,
    buffer_permit: BufferPermit,
    /// What long replies that wait may take, in bytes.
    replies: Arc<Semaphore>,
    stop: Stop,
    buffer: BytesMut,
    chunk: usize,
}

impl<I: AsyncRead + Unpin> Reader<I> {
    /// Reads once and carries out the lines that are whole.
    async fn step(&mut self) -> Result<(), Ended> {
        self.fill().await?;
        if !is_heartbeat(&self.buffer) {
            self.session.touch();
        }
        loop {
            let line = self
                .decoder
                .decode(&mut self.buffer)
                .map_err(|_| Ended::Unreadable(ErrorCode::LineTooLong))?;
            let Some(line) = line else { break };
            let overloaded = |_| Ended::Unreadable(ErrorCode::Overloaded);
            // What the line took while it was unfinished is free before it takes the same again.
            self.buffer_permit
                .reserve_for_buffer(self.buffer.len())
                .await
                .map_err(overloaded)?;
            let room = self
                .buffer_permit
                .reserve_for_answer(line.len())
                .await
                .map_err(overloaded)?;
            let answer = execute(&mut self.session, &line)
                .await
                .map_err(Ended::Unreadable)?;
            let held = hold_reply(&self.replies, &answer).await;
            self.answers
                .send(Queued {
                    answer,
                    _line: room,
                    reply: held,
                })
                .await
                .map_err(|_| Ended::Lost)?;
        }
        self.buffer_permit
            .reserve_for_buffer(self.buffer.len())
            .await
            .map_err(|_| Ended::Unreadable(ErrorCode::Overloaded))
    }

    async fn fill(&mut self) -> Result<(), Ended> {
        if self.buffer.is_empty() {
            // Lines may still be held elsewhere; an idle connection must not keep their memory.
            self.buffer = BytesMut::new();
        }
        // A long line grows by doubling, so that each of its bytes is moved a few times only.
        self.buffer
            .reserve(self.chunk.max(self.buffer.len().min(1 << 20)));
        let room = self.buffer.capacity() - self.buffer.len();
        let pause = if self.buffer_permit.is_held() {
            LINE_PAUSE
        } else {
            Duration::MAX
        };
        let read = tokio::time::timeout(pause, self.input.read_buf(&mut self.buffer));
        let count = tokio::select! {
            read = read => match read {
                Ok(Ok(0)) => return Err(Ended::Closed),
                Ok(Ok(count)) => count,
                // A client that goes without TLS's farewell is gone all the same.
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(Ended::Closed),
                Ok(Err(_)) => return Err(Ended::Lost),
                Err(_) => return Err(Ended::Unreadable(ErrorCode::Overloaded)),
            },
            () = self.stop.requested() => return Err(Ended::Stopped),
        };
        self.chunk = if count >= room.min(self.chunk) {
            self.chunk * 4
        } else {
            self.chunk / 2
        };
        self.chunk = self.chunk.clamp(*CHUNK.start(), *CHUNK.end());
        Ok(())
    }
}

/// Whether nothing but heartbeats has come. Older clients send them from a task of its own: they
/// show that the connection lives, and nothing of what becomes of the messages that were delivered
/// on it.
fn is_heartbeat(received: &[u8]) -> bool {
    let mut lines = received.split(|byte| *byte == b'\n');
    received.starts_with(b"heartbeat")
        && lines.all(|line| matches!(line.trim_ascii_end(), b"" | b"heartbeat"))
}

/// Waits until the long replies before it are written, so far as there is room for this one; it may
/// be longer than all the room.
async fn hold_reply(replies: &Arc<Semaphore>, answer: &Answer) -> Option<OwnedSemaphorePermit> {
    let bytes = answer.bytes().min(REPLY_BYTES);
    let permits = u32::try_from(bytes).ok().filter(|&permits| permits > 0)?;
    // It is never closed.
    Arc::clone(replies).acquire_many_owned(permits).await.ok()
}

/// Whether the messages of a packed line would be too long for a line if each were said with what
/// they share. Whatever is bounded by the length of a line would not be bounded otherwise.
fn is_too_long(session: &ClientSession, envelopes: &[Envelope]) -> bool {
    let bytes: usize = envelopes.iter().map(|envelope| envelope.raw().len()).sum();
    bytes > session.broker().limits().max_line_bytes
}

/// Carries out one command, or hands it to the store. What may change later commands' meaning has
/// happened when this returns; publishes and acks are only on their way.
///
/// # Errors
///
/// Why the connection is to be closed.
async fn execute(session: &mut ClientSession, line: &Bytes) -> Result<Answer, ErrorCode> {
    let command = match Command::parse(line) {
        Ok(command) => command,
        Err(error) => return Ok(Answer::Refused(error.replies())),
    };
    let reply = match command {
        Command::Publish {
            exchange,
            routing_key,
            envelope,
        } => {
            return Ok(Answer::Publishing(
                session
                    .publish(&exchange, &routing_key, vec![envelope], false)
                    .await,
            ));
        }
        Command::PublishPacked { envelopes, .. } if is_too_long(session, &envelopes) => {
            return Err(ErrorCode::LineTooLong);
        }
        Command::PublishBatch {
            exchange,
            routing_key,
            envelopes,
        }
        | Command::PublishPacked {
            exchange,
            routing_key,
            envelopes,
        } => {
            return Ok(Answer::Publishing(
                session
                    .publish(&exchange, &routing_key, envelopes, true)
                    .await,
            ));
        }
        Command::Ack { message_ids } => {
            let outcomes = session.ack(&message_ids).await;
            return Ok(Answer::Acks(message_ids, outcomes, session.packs()));
        }
        Command::Reject { message_id, reason } => {
            let outcomes = session.reject(&message_id, reason).await;
            return Ok(Answer::Rejection(message_id, outcomes));
        }
        Command::Consume { queue, prefetch } => {
            match session.consume(&queue, prefetch.map(NonZeroU32::get)).await {
                Ok(subscription) => return Ok(Answer::Subscribed(subscription)),
                Err(error) => Err(error),
            }
        }
        Command::Hello(request) => match session.hello(request) {
            Ok(reply) => return Ok(Answer::Hello(reply, session.packs())),
            Err(error) => Err(error),
        },
        Command::DeclareQueue { queue } => session.declare_queue(&queue).await,
        Command::DeclareExchange { exchange } => session.declare_exchange(exchange).await,
        Command::Bind {
            queue,
            exchange,
            routing_key,
        } => session.bind(&queue, exchange, routing_key).await,
        Command::Fetch { queue } => session.fetch(&queue).await,
        Command::Resend { message_id } => session.resend(&message_id).await,
        Command::RegisterPublicKey { client_id, key } => {
            session.register_public_key(client_id.as_ref(), &key).await
        }
        Command::GetPublicKey { client_id } => session.public_key(&client_id).await,
        Command::RegisterSignedKey { signed_key } => session.register_signed_key(&signed_key).await,
        Command::GetSignedKey { client_id } => session.signed_key(&client_id).await,
        Command::GetCertificate {
            client_id,
            fingerprint,
        } => session.certificate(&client_id, fingerprint.as_ref()).await,
        Command::ListRejected(request) => session.rejected(request).await,
        Command::ListWaitingKeys(request) => session.waiting_keys(request).await,
        Command::Ping => Ok(session.ping()),
        Command::Heartbeat => Ok(Reply::HeartbeatReceived),
    };
    Ok(Answer::Ready(reply.unwrap_or_else(Reply::Error)))
}
