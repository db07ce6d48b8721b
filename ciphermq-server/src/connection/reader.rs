//! The reading half of a connection: from lines to commands.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use ciphermq_protocol::{Command, ErrorCode, ErrorReply, LineDecoder};
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::QueuedAnswer;
use super::memory::{ConnectionLines, ConnectionReplies, Exhausted, LinePermit, TooSlow};
use crate::broker::{Answer, ClientSession};
use crate::stop::Stop;

/// The smallest and the largest read. An idle connection holds the smallest.
const CHUNK: std::ops::RangeInclusive<usize> = 2 * 1024..=64 * 1024;

/// How long a line waits for memory until it is worth a look whether its client is still there.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// The reason why a connection has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client closed it.
    Closed,
    /// It broke.
    Lost,
    /// The client sent a line after which the connection cannot go on.
    Unreadable(ErrorCode),
    /// A long line arrived too slowly.
    TooSlow(TooSlow),
    /// The client did not read, and others needed the memory of its replies.
    Unread,
    /// The server stops.
    Stopped,
    /// The broker ends it, with this as the last line.
    Dismissed(ErrorReply),
    /// Another connection of the same consumer took over.
    TakenOver,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the client closed it"),
            Self::Lost => f.write_str("it was lost"),
            Self::Unreadable(code) => write!(f, "what the client sent cannot be taken, {code}"),
            Self::TooSlow(reason) => write!(f, "{reason}"),
            Self::Unread => {
                f.write_str("the client did not read its replies while others needed their memory")
            }
            Self::Stopped => f.write_str("the server stops"),
            Self::Dismissed(error) => write!(f, "the broker ended it: {error}"),
            Self::TakenOver => f.write_str("the consumer has a newer one"),
        }
    }
}

impl From<Exhausted> for Ended {
    fn from(_: Exhausted) -> Self {
        Self::Unreadable(ErrorCode::Overloaded)
    }
}

impl Ended {
    /// Whether the client has been sent a last line, or all replies.
    pub(super) fn is_said(&self) -> bool {
        matches!(
            self,
            Self::Stopped | Self::Unreadable(_) | Self::TooSlow(_) | Self::Dismissed(_)
        )
    }

    /// Whether a limit has ended the connection, so that an operator should know.
    pub(super) fn is_limit(&self) -> bool {
        matches!(self, Self::Unreadable(_) | Self::TooSlow(_) | Self::Unread)
    }

    /// Returns the error that tells the client why the connection ends.
    fn last_error(&self, max_line_bytes: usize) -> Option<ErrorReply> {
        let (code, text) = match self {
            Self::Unreadable(code @ ErrorCode::LineTooLong) => {
                (*code, format!("a line has at most {max_line_bytes} bytes"))
            }
            Self::Unreadable(code) => {
                let text = "too many long lines are under way; connect again and retry";
                (*code, text.to_owned())
            }
            Self::TooSlow(reason) => (ErrorCode::Overloaded, reason.to_string()),
            Self::Dismissed(error) => return Some(error.clone()),
            _ => return None,
        };
        Some(ErrorReply::new(code, text))
    }
}

/// Reads until the connection ends, and sends an answer for each line to the writer.
pub(super) async fn run<I: AsyncRead + Unpin>(
    input: I,
    session: ClientSession,
    answers: mpsc::Sender<QueuedAnswer>,
    lines: ConnectionLines,
    replies: ConnectionReplies,
    stop: Stop,
) -> Ended {
    let max_line_bytes = session.broker().limits().max_line_bytes;
    let mut reader = Reader {
        input,
        session,
        answers,
        decoder: LineDecoder::new(max_line_bytes),
        lines,
        replies,
        stop,
        buffer: BytesMut::new(),
        chunk: *CHUNK.start(),
    };
    loop {
        if let Err(ended) = reader.step().await {
            if let Some(error) = ended.last_error(max_line_bytes) {
                reader.send_last(error).await;
            }
            return ended;
        }
    }
}

struct Reader<I> {
    input: I,
    session: ClientSession,
    answers: mpsc::Sender<QueuedAnswer>,
    decoder: LineDecoder,
    lines: ConnectionLines,
    replies: ConnectionReplies,
    stop: Stop,
    buffer: BytesMut,
    chunk: usize,
}

impl<I: AsyncRead + Unpin> Reader<I> {
    /// Sends the connection's last line to the writer.
    async fn send_last(&self, error: ErrorReply) {
        let last = QueuedAnswer {
            answer: Answer::Ready(error.into()),
            line: None,
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
            let received = Instant::now();
            let permit = self.lines.reserve_for_answer(&line).await?;
            if received.elapsed() >= LONG_WAIT && self.is_client_gone() {
                return Err(Ended::Lost);
            }
            let queued = match Command::parse(&line) {
                Ok(command) => self.execute(command, permit).await?,
                Err(error) => QueuedAnswer {
                    answer: Answer::Refused(error.replies()),
                    line: Some(permit),
                    reply: None,
                },
            };
            self.answers.send(queued).await.map_err(|_| Ended::Lost)?;
        }
        Ok(self.lines.reserve_for_buffer(self.buffer.len()).await?)
    }

    /// Whether the client has gone without ending its connection, as far as this can be read
    /// without waiting: then nobody waits for the answers to its lines, and nothing was promised.
    ///
    /// A client that has ended only its sending side reads its answers.
    fn is_client_gone(&mut self) -> bool {
        let mut room = *CHUNK.end();
        while room > 0 {
            self.buffer.reserve(*CHUNK.start());
            let mut buffer = (&mut self.buffer).limit(room);
            match self.input.read_buf(&mut buffer).now_or_never() {
                None | Some(Ok(0)) => return false,
                Some(Ok(count)) => {
                    self.session.touch();
                    room -= count;
                }
                Some(Err(_)) => return true,
            }
        }
        false
    }

    async fn execute(&mut self, command: Command, line: LinePermit) -> Result<QueuedAnswer, Ended> {
        let reply = self.replies.reserve_for(&command).await;
        let answer = self
            .session
            .execute(command)
            .await
            .map_err(Ended::Unreadable)?;
        let reply = self.replies.adjust(reply, answer.bytes()).await;
        Ok(QueuedAnswer {
            answer,
            line: Some(line),
            reply,
        })
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
        let read = self.input.read_buf(&mut self.buffer);
        let count = tokio::select! {
            read = read => match read {
                Ok(0) => return Err(Ended::Closed),
                Ok(count) => count,
                // A client that closes without TLS's `close_notify` has closed nevertheless.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(Ended::Closed);
                }
                Err(_) => return Err(Ended::Lost),
            },
            reason = self.lines.is_too_slow() => return Err(Ended::TooSlow(reason)),
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
