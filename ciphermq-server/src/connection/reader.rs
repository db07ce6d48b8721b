//! The reading half of a connection: from lines to commands.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ciphermq_protocol::{Command, ErrorCode, ErrorReply, LineDecoder};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::QueuedAnswer;
use super::buffers::{BufferBudget, BufferPermit};
use crate::broker::{Answer, ClientSession};
use crate::stop::Stop;

/// The smallest and the largest read. An idle connection holds the smallest.
const CHUNK: std::ops::RangeInclusive<usize> = 2 * 1024..=64 * 1024;
/// The most bytes of long replies of one connection that may wait to be written.
const REPLY_BYTES: usize = 1 << 20;
/// How long a long line may pause before it gives its memory back.
const LINE_PAUSE: Duration = Duration::from_secs(30);

/// The reason why a connection has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client closed it.
    Closed,
    /// It broke.
    Lost,
    /// The client sent a line after which the connection cannot go on.
    Unreadable(ErrorCode),
    /// The server stops.
    Stopped,
    /// The broker ends it, with this as the last line.
    Dismissed(ErrorReply),
    /// Another connection of the same consumer took over.
    TakenOver,
}

impl Ended {
    /// Whether the client has been sent a last line, or all replies.
    pub(super) fn is_said(&self) -> bool {
        matches!(
            self,
            Self::Stopped | Self::Unreadable(_) | Self::Dismissed(_)
        )
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the client closed it"),
            Self::Lost => f.write_str("it was lost"),
            Self::Unreadable(code) => write!(f, "what the client sent cannot be taken, {code}"),
            Self::Stopped => f.write_str("the server stops"),
            Self::Dismissed(error) => write!(f, "the broker ended it: {error}"),
            Self::TakenOver => f.write_str("the consumer has a newer one"),
        }
    }
}

/// Reads until the connection ends, and sends an answer for each line to the writer.
pub(super) async fn run<I: AsyncRead + Unpin>(
    input: I,
    session: ClientSession,
    answers: mpsc::Sender<QueuedAnswer>,
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
            Err(Ended::Dismissed(error)) => {
                reader.send_last(error.clone()).await;
                return Ended::Dismissed(error);
            }
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
                reader.send_last(ErrorReply::new(code, text)).await;
                return Ended::Unreadable(code);
            }
            Err(ended) => return ended,
        }
    }
}

struct Reader<I> {
    input: I,
    session: ClientSession,
    answers: mpsc::Sender<QueuedAnswer>,
    decoder: LineDecoder,
    buffer_permit: BufferPermit,
    /// The room for long replies that wait, in bytes.
    replies: Arc<Semaphore>,
    stop: Stop,
    buffer: BytesMut,
    chunk: usize,
}

impl<I: AsyncRead + Unpin> Reader<I> {
    /// Sends the connection's last line to the writer.
    async fn send_last(&self, error: ErrorReply) {
        let last = QueuedAnswer {
            answer: Answer::Ready(error.into()),
            _line: None,
            reply: None,
        };
        // The writer may be gone.
        let _ = self.answers.send(last).await;
    }

    /// Reads once and executes the lines that are complete.
    async fn step(&mut self) -> Result<(), Ended> {
        self.receive().await?;
        if !is_heartbeat(&self.buffer) {
            self.session.touch();
        }
        loop {
            let line = self
                .decoder
                .decode(&mut self.buffer)
                .map_err(|_| Ended::Unreadable(ErrorCode::LineTooLong))?;
            let Some(line) = line else { break };
            if let Some(error) = self.session.closing.last_line_now() {
                return Err(Ended::Dismissed(error));
            }
            let overloaded = |_| Ended::Unreadable(ErrorCode::Overloaded);
            // The unfinished line's reservation is released before the finished one takes the same
            // again.
            self.buffer_permit
                .reserve_for_buffer(self.buffer.len())
                .await
                .map_err(overloaded)?;
            let room = self
                .buffer_permit
                .reserve_for_answer(line.len())
                .await
                .map_err(overloaded)?;
            let answer = match Command::parse(&line) {
                Ok(command) => self
                    .session
                    .execute(command)
                    .await
                    .map_err(Ended::Unreadable)?,
                Err(error) => Answer::Refused(error.replies()),
            };
            let held = reserve_for_reply(&self.replies, &answer).await;
            self.answers
                .send(QueuedAnswer {
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

    async fn receive(&mut self) -> Result<(), Ended> {
        if self.buffer.is_empty() {
            // Lines may still be held elsewhere; an idle connection must not keep their memory.
            self.buffer = BytesMut::new();
        }
        // The buffer of a long line doubles, so that each of its bytes is moved a few times only.
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
                // A client that closes without TLS's `close_notify` has closed nevertheless.
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(Ended::Closed),
                Ok(Err(_)) => return Err(Ended::Lost),
                Err(_) => return Err(Ended::Unreadable(ErrorCode::Overloaded)),
            },
            error = self.session.closing.last_line() => return Err(Ended::Dismissed(error)),
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

/// Whether nothing but heartbeats was received. Older clients send them from a task of their own:
/// they show that the connection lives, but not that its messages are being processed.
fn is_heartbeat(received: &[u8]) -> bool {
    let mut lines = received.split(|byte| *byte == b'\n');
    received.starts_with(b"heartbeat")
        && lines.all(|line| matches!(line.trim_ascii_end(), b"" | b"heartbeat"))
}

/// Waits until there is room for this reply beside the long ones that wait to be written. A reply
/// longer than the whole room waits for all of it.
async fn reserve_for_reply(
    replies: &Arc<Semaphore>,
    answer: &Answer,
) -> Option<OwnedSemaphorePermit> {
    let bytes = answer.bytes().min(REPLY_BYTES);
    let permits = u32::try_from(bytes).ok().filter(|&permits| permits > 0)?;
    // It is never closed.
    Arc::clone(replies).acquire_many_owned(permits).await.ok()
}
