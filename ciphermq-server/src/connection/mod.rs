//! Serves one connection: command lines in, replies in their order out, with deliveries between
//! them.
//!
//! ```text
//!    socket ──► reader ── Answer, in order ──► writer ──► socket
//!                 │                              ▲
//!                 └──► ClientSession (the broker) ┘ deliveries
//! ```
//!
//! The reader goes on while answers wait for the store. The queue between the two is bounded: a
//! client that does not read its replies is not read from either.
//!
//! - `reader`: from lines to commands, within the memory that lines may take
//! - `writer`: replies in order, deliveries between them
//! - [`memory`]: the memory of all connections' lines and replies

pub mod memory;
mod reader;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ciphermq_protocol::{ErrorReply, Reply};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use self::memory::{LinePermit, ReplyPermit};
pub use memory::Memory;

use crate::broker::{Answer, ClientSession, Closing, Mailbox};
use crate::repeated::Event;
use crate::stop::Stop;

/// An answer in the queue from the reader to the writer.
struct QueuedAnswer {
    answer: Answer,
    /// The memory of the command line until it is answered.
    line: Option<LinePermit>,
    /// The memory of a long reply until it is written.
    reply: Option<ReplyPermit>,
}

/// The most commands of one connection that may wait for their answers.
const ANSWERS: usize = 1024;

/// How long a client that has been told to close may go on sending, and how long it may pause.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_PAUSE: Duration = Duration::from_millis(200);

/// Serves a connection until it ends, the client sends a line that cannot be taken, another
/// connection of the same consumer takes over, the broker dismisses it, or the server stops.
pub async fn serve<S>(
    stream: S,
    session: ClientSession,
    mailbox: Mailbox,
    memory: &Arc<Memory>,
    stop: Stop,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut input, output) = tokio::io::split(stream);
    let (answers, waiting) = mpsc::channel(ANSWERS);
    let (closing, output_observer, client_id) = (
        Arc::clone(&session.closing),
        session.output_observer(),
        session.client_id().clone(),
    );
    let (lines, replies) = (memory.lines(&client_id), memory.replies(&client_id));
    let broker = Arc::clone(session.broker());
    let writer = writer::run(
        output,
        waiting,
        mailbox,
        output_observer,
        replies.clone(),
        broker.limits().max_line_bytes,
    );
    let reader = reader::run(&mut input, session, answers, lines, replies, stop);
    let both = async {
        tokio::pin!(writer);
        let ended = tokio::select! {
            ended = reader => ended,
            // Nothing can be answered any more.
            ended = &mut writer => return ended,
        };
        // Every command that was read is answered before the connection is closed.
        writer.await;
        ended
    };
    let ended = tokio::select! {
        ended = both => ended,
        () = closing.requested_at_once() => reader::Ended::TakenOver,
        error = unanswered(&closing) => reader::Ended::Dismissed(error),
    };
    if ended.is_said() {
        let _ = tokio::time::timeout(LINGER, discard(&mut input)).await;
    }
    if ended.is_limit() {
        let reason = ended.to_string();
        let (event, source) = (Event::ConnectionEnded, client_id.as_str());
        if broker.repeated().is_first(event, source, &reason) {
            tracing::warn!(%client_id, "Connection ended: {reason}");
        }
    } else {
        tracing::debug!(%client_id, "Connection ended: {ended}");
    }
}

/// Returns some time after the broker has dismissed the connection: a client that does not read its
/// replies does not get the last line.
async fn unanswered(closing: &Closing) -> ErrorReply {
    let error = closing.last_line().await;
    tokio::time::sleep(LINGER).await;
    error
}

/// Answers a client that cannot be served with an error, and closes its connection.
pub async fn refuse<S>(mut stream: S, error: ErrorReply)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let reply = Reply::from(error);
    let mut line = BytesMut::new();
    reply.encode(&mut line);
    let tell = async {
        stream.write_all(&line).await?;
        stream.shutdown().await
    };
    if let Ok(Ok(())) = tokio::time::timeout(LINGER, tell).await {
        let _ = tokio::time::timeout(LINGER, discard(&mut stream)).await;
    }
}

/// Reads until the client has closed its side or pauses. A socket closed with unread bytes would be
/// reset, and the client would lose the last replies.
async fn discard(input: &mut (impl AsyncRead + Unpin)) {
    let mut bytes = [0; 4096];
    while let Ok(Ok(1..)) = tokio::time::timeout(LINGER_PAUSE, input.read(&mut bytes)).await {}
}
