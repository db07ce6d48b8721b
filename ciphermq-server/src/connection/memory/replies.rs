//! The memory of one connection's replies, until they are written to its socket.

use std::sync::Arc;

use ciphermq_protocol::Command;
use tokio::sync::Semaphore;

use super::transfers::Transfer;
use super::{Memory, Permit, take_own};
use crate::shared_budget::{ClientBudget, Taken};

/// The bytes of output that a connection may hold before it takes of the budget.
pub(in crate::connection) const FREE_REPLY_BYTES: usize = 8 * 1024;
/// The bytes of replies in the queue that a connection has of its own.
const OWN_BYTES: usize = 64 * 1024;
/// What is taken for a list before it is known how long it is. Its pages are not longer.
const LIST_BYTES: usize = 512 * 1024;
/// The same for other replies that are read from the database.
const READ_BYTES: usize = 16 * 1024;

/// The memory of a long reply until it is written.
pub(in crate::connection) type ReplyPermit = Permit;

/// What the replies of one connection take.
#[derive(Debug, Clone)]
pub(in crate::connection) struct ConnectionReplies {
    memory: Arc<Memory>,
    budget: ClientBudget,
    own: Arc<Semaphore>,
}

impl ConnectionReplies {
    pub(super) fn new(memory: Arc<Memory>, budget: ClientBudget) -> Self {
        Self {
            memory,
            budget,
            own: Arc::new(Semaphore::new(OWN_BYTES)),
        }
    }

    /// Takes memory for the reply to a command that is executed next, unless its reply is short.
    ///
    /// A client that does not read its replies is not read from when its memory is used up.
    pub(in crate::connection) async fn reserve_for(
        &self,
        command: &Command,
    ) -> Option<ReplyPermit> {
        match command {
            Command::ListQueues(_)
            | Command::ListExchanges(_)
            | Command::ListBindings(_)
            | Command::ListRejected(_)
            | Command::ListWaitingKeys(_)
            | Command::ListConnections(_)
            | Command::ListClients(_)
            | Command::ListEnds => self.take(LIST_BYTES).await,
            // A message is no longer than the longest line.
            Command::Fetch { .. } => {
                let longest = self.memory.max_line_bytes;
                self.take(longest.max(LIST_BYTES)).await
            }
            Command::GetSignedKey { .. } | Command::GetCertificate { .. } | Command::GetCrl => {
                self.take(READ_BYTES).await
            }
            _ => None,
        }
    }

    /// Adjusts what is taken to the length of the reply.
    pub(in crate::connection) async fn adjust(
        &self,
        permit: Option<ReplyPermit>,
        bytes: usize,
    ) -> Option<ReplyPermit> {
        match permit {
            // All that the client may take suffices for what is longer.
            Some(Permit::Shared(mut taken)) if taken.amount() >= bytes || taken.is_all() => {
                taken.reduce_to(bytes);
                Some(Permit::Shared(taken))
            }
            Some(permit) if bytes <= OWN_BYTES => Some(permit),
            permit if bytes > 0 => {
                // It must not wait for itself.
                drop(permit);
                self.take(bytes).await
            }
            permit => permit,
        }
    }

    /// Takes memory for further output, if it is free.
    pub(in crate::connection) fn try_take(&self, bytes: usize) -> Option<Taken> {
        self.budget.try_take(bytes)
    }

    /// Begins to watch output that the client does not read.
    pub(in crate::connection) fn unread(&self, bytes: usize) -> Transfer {
        self.memory.leaving.begin(self.budget.clone(), bytes)
    }

    /// Takes memory of the connection's own for a reply that is not long, or else of the budget.
    async fn take(&self, bytes: usize) -> Option<ReplyPermit> {
        let shared = self.memory.take_for_replies(&self.budget, bytes);
        if bytes > OWN_BYTES {
            return shared.await.map(Permit::Shared);
        }
        tokio::select! {
            biased;
            own = take_own(&self.own, OWN_BYTES, bytes) => own,
            shared = shared => shared.map(Permit::Shared),
        }
    }
}

#[cfg(test)]
mod tests {
    use ciphermq_protocol::ClientId;
    use ciphermq_protocol::rejected::RejectedRequest;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::config::Limits;

    const LONG: std::time::Duration = std::time::Duration::from_secs(100);

    fn replies(bytes: usize) -> (Arc<Memory>, ConnectionReplies) {
        let memory = Memory::new(&Limits {
            max_unread_bytes: bytes,
            ..Limits::default()
        });
        let replies = memory.replies(&ClientId::new("a").unwrap());
        (memory, replies)
    }

    #[tokio::test]
    async fn a_list_takes_its_length_once_that_is_known() {
        let (memory, replies) = replies(8 << 20);
        let list = Command::ListRejected(RejectedRequest::default());
        let permit = replies.reserve_for(&list).await;
        assert_eq!(memory.replies.used(), LIST_BYTES);
        let permit = replies.adjust(permit, 100_000).await;
        assert_eq!(memory.replies.used(), 100_000);
        drop(permit);
        assert_eq!(memory.replies.used(), 0);
        let short = replies.reserve_for(&Command::Ping).await;
        assert!(short.is_none() && replies.adjust(None, 0).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_has_its_part_and_no_more() {
        let (memory, replies) = replies(8 << 20);
        let list = Command::ListRejected(RejectedRequest::default());
        let mut held = Vec::new();
        while let Some(Some(permit)) = replies.reserve_for(&list).now_or_never() {
            held.push(permit);
        }
        assert_eq!(memory.replies.used(), 2 << 20);
        // Replies that are not long go on, one at a time.
        let first = replies.take(OWN_BYTES).now_or_never().flatten().unwrap();
        assert!(replies.take(1).now_or_never().is_none());
        drop(first);
        assert!(replies.take(1).now_or_never().flatten().is_some());
        let other = memory.replies(&ClientId::new("b").unwrap());
        assert!(other.reserve_for(&list).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_read_is_ended_when_others_need_its_memory() {
        let (memory, replies) = replies(2 << 20);
        let list = Command::ListRejected(RejectedRequest::default());
        let first = replies.reserve_for(&list).await;
        // Its own next reply waits, and ends nothing.
        let stuck = replies.unread(100_000);
        let next = tokio::time::timeout(LONG, replies.reserve_for(&list));
        tokio::select! {
            biased;
            _ = stuck.is_too_slow() => unreachable!(),
            next = next => assert!(next.is_err()),
        }
        let others = ["b", "c", "d"].map(|name| memory.replies(&ClientId::new(name).unwrap()));
        let mut held = Vec::new();
        for other in &others {
            held.push(other.reserve_for(&list).await);
        }
        let stuck = async move {
            stuck.is_too_slow().await;
            drop(first);
        };
        let last = memory.replies(&ClientId::new("e").unwrap());
        let ((), last) = tokio::join!(stuck, last.reserve_for(&list));
        assert!(last.is_some());
    }
}
