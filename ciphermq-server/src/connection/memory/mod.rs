//! Bounds the memory that all connections take together: for lines that arrive or are not answered
//! yet, and for replies that are not read yet.
//!
//! ```text
//!    socket ──► lines ──► replies ──► socket
//!             until they  until they
//!            are answered are written
//! ```
//!
//! Each of the two is a budget of which one client may take a part. Every connection has a little
//! of its own besides, so it always goes on, however much others take. When a budget is short, the
//! slowest of those that are in the way are ended.
//!
//! Nobody waits for more of what it holds already, so connections cannot wait for each other in a
//! circle: a long line takes the memory of the longest one when it begins, and gives back the rest
//! at its end; then it takes memory for its messages, of a budget whose holders wait for neither.
//!
//! - `lines`: what a connection's lines take
//! - `replies`: what its replies take
//! - `transfers`: which connections send or read too slowly

mod lines;
mod replies;
mod transfers;

use std::sync::Arc;
use std::time::Duration;

use ciphermq_protocol::ClientId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

pub(super) use lines::{ConnectionLines, Exhausted, LinePermit};
pub(super) use replies::{ConnectionReplies, FREE_REPLY_BYTES, ReplyPermit};
pub(super) use transfers::TooSlow;

use self::transfers::Transfers;
use crate::config::Limits;
use crate::shared_budget::{ClientBudget, SharedBudget, Taken};

/// How often a connection that waits for memory looks for others that are too slow.
const LOOK: Duration = Duration::from_millis(500);
/// The part of the memory for lines that is for their messages is one of this many.
const MESSAGE_PARTS: usize = 4;
/// The part of the memory for lines that one client may take is one of this many.
const LINE_PARTS: usize = 2;
/// The part of the memory for replies that one client may take is one of this many.
const REPLY_PARTS: usize = 4;

/// The memory of all connections.
#[derive(Debug)]
pub struct Memory {
    max_line_bytes: usize,
    /// For long lines, from their beginning until they are answered.
    lines: SharedBudget,
    /// For the messages of lines, which take more than the line.
    messages: SharedBudget,
    replies: SharedBudget,
    /// Unfinished lines.
    arriving: Transfers,
    /// Output that its client does not read.
    leaving: Transfers,
}

impl Memory {
    /// Creates the memory that these limits allow.
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        let Limits {
            max_buffered_bytes,
            max_line_bytes,
            max_unread_bytes,
            min_line_rate,
            ..
        } = *limits;
        let messages = max_buffered_bytes / MESSAGE_PARTS;
        let lines = (max_buffered_bytes - messages).max(max_line_bytes);
        Arc::new(Self {
            max_line_bytes,
            lines: SharedBudget::new(lines, (lines / LINE_PARTS).max(max_line_bytes)),
            messages: SharedBudget::new(messages, messages / LINE_PARTS),
            replies: SharedBudget::new(max_unread_bytes, max_unread_bytes / REPLY_PARTS),
            arriving: Transfers::new(min_line_rate),
            leaving: Transfers::new(0),
        })
    }

    /// Returns the memory for the lines of a client's connection.
    pub(super) fn lines(self: &Arc<Self>, client_id: &ClientId) -> ConnectionLines {
        ConnectionLines::new(
            Arc::clone(self),
            self.lines.of(client_id),
            self.messages.of(client_id),
        )
    }

    /// Returns the memory for the replies of a client's connection.
    pub(super) fn replies(self: &Arc<Self>, client_id: &ClientId) -> ConnectionReplies {
        ConnectionReplies::new(Arc::clone(self), self.replies.of(client_id))
    }

    /// Waits for memory for lines. While it waits, lines that arrive too slowly, and connections
    /// that do not read, are ended: those of the client itself if it has taken its own part.
    async fn take_for_lines(&self, budget: &ClientBudget, bytes: usize) -> Option<Taken> {
        let own = budget.take_own(bytes);
        let own = patiently(own, || {
            self.arriving
                .end_slowest(Some(budget), bytes, Instant::now());
        });
        let common = own.await?.take_common();
        let common = patiently(common, || {
            let freed = self.arriving.end_slowest(None, bytes, Instant::now());
            if freed < bytes {
                let wanted = bytes - freed;
                self.leaving.end_slowest(None, wanted, Instant::now());
            }
        });
        common.await
    }

    /// Waits for memory for replies. While it waits for what others have, connections that do not
    /// read are ended. A client that has taken its own part waits until it reads.
    async fn take_for_replies(&self, budget: &ClientBudget, bytes: usize) -> Option<Taken> {
        let common = budget.take_own(bytes).await?.take_common();
        let common = patiently(common, || {
            self.leaving.end_slowest(None, bytes, Instant::now());
        });
        common.await
    }
}

/// Waits for memory, and calls `make_room` from time to time meanwhile.
async fn patiently<T>(taking: impl Future<Output = T>, make_room: impl Fn()) -> T {
    tokio::pin!(taking);
    loop {
        match tokio::time::timeout(LOOK, &mut taking).await {
            Ok(taken) => return taken,
            Err(_elapsed) => make_room(),
        }
    }
}

/// Memory that is taken until this is dropped.
#[derive(Debug)]
pub(super) enum Permit {
    /// Of the budget of all connections.
    Shared(Taken),
    /// Of what the connection has of its own.
    Own(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit),
}

/// Takes of what a connection has of its own; more than there is takes all of it.
async fn take_own(own: &Arc<Semaphore>, size: usize, bytes: usize) -> Option<Permit> {
    let permits = u32::try_from(bytes.min(size)).unwrap_or(u32::MAX);
    let permit = Arc::clone(own).acquire_many_owned(permits).await;
    permit.ok().map(Permit::Own)
}
