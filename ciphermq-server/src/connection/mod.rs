//! One connection: command lines in, replies in their order and deliveries between them out.
//!
//! ```text
//!    socket ──► reader ── Answer, in order ──► writer ──► socket
//!                 │                              ▲
//!                 └──► Session (the broker) ─────┘ deliveries
//! ```
//!
//! The reader goes on while answers wait for the store; the queue between the two is bounded, so a client
//! that does not read its replies is not read from either.
//!
//! - [`reader`]: lines to operations, within the memory that lines may take
//! - [`answer`]: what is or will be the reply
//! - [`writer`]: everything that leaves, in order
//! - [`buffers`]: how much memory unfinished lines may take together

mod answer;
pub mod buffers;
mod reader;
mod writer;

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use buffers::BufferBudget;

use crate::broker::{Mailbox, Session};
use crate::stop::Stop;

/// How many commands of one connection may wait for their answers.
const ANSWERS: usize = 1024;

/// Serves a connection until it ends, the client says something unreadable, another connection of the same
/// consumer takes over, or the server stops.
pub async fn serve<S>(stream: S, session: Session, mailbox: Mailbox, buffers: &Arc<BufferBudget>, stop: Stop)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (input, output) = tokio::io::split(stream);
    let (answers, waiting) = mpsc::channel(ANSWERS);
    let (close, receipts, client_id) = (Arc::clone(&session.close), session.receipts(), session.client_id().clone());
    let writer = writer::run(output, waiting, mailbox, receipts);
    let reader = reader::run(input, session, answers, buffers, stop);
    let both = async {
        tokio::pin!(writer);
        let ended = tokio::select! {
            ended = reader => ended,
            // Nothing can be answered any more.
            () = &mut writer => return reader::Ended::Lost,
        };
        // What was read is answered before the connection is closed.
        writer.await;
        ended
    };
    let ended = tokio::select! {
        ended = both => ended,
        () = close.notified() => reader::Ended::TakenOver,
    };
    tracing::debug!(%client_id, "Connection ended: {ended}");
}
