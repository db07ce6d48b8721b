//! `block_client` and `unblock_client`, and the clients that are kept out.
//!
//! The store keeps the blocks; they are in memory as well, for every connection is checked. The
//! configuration goes before blocks: an administrator is never kept out, so that administrators
//! whose certificate was stolen cannot lock out the others, or themselves.

use std::collections::BTreeMap;

use ciphermq_protocol::{ClientId, ErrorCode, ErrorReply, Reply};
use parking_lot::RwLock;

use crate::broker::{Broker, ClientSession};
use crate::model::{Block, Change, ChangeOutcome, Time};

/// The clients that an administrator keeps out.
#[derive(Debug, Default)]
pub struct Blocks(RwLock<BTreeMap<ClientId, Block>>);

impl Blocks {
    /// Creates the blocks that the store holds.
    #[must_use]
    pub fn new(stored: Vec<Block>) -> Self {
        let by_client = stored
            .into_iter()
            .map(|block| (block.client_id.clone(), block));
        Self(RwLock::new(by_client.collect()))
    }

    /// Applies the changes of a commit. Returns the clients that are blocked now.
    pub(in crate::broker) fn changed(
        &self,
        changes: &[Change],
        outcomes: &[ChangeOutcome],
    ) -> Vec<ClientId> {
        let mut blocked = Vec::new();
        for (change, outcome) in changes.iter().zip(outcomes) {
            match (change, outcome) {
                (Change::BlockClient(block), ChangeOutcome::Done) => {
                    let client_id = block.client_id.clone();
                    let mut blocks = self.0.write();
                    blocks
                        .entry(client_id.clone())
                        .or_insert_with(|| block.clone());
                    blocked.push(client_id);
                }
                (Change::UnblockClient(client_id), ChangeOutcome::Done) => {
                    self.0.write().remove(client_id);
                }
                _ => {}
            }
        }
        blocked
    }

    /// Returns a client's block.
    pub(super) fn get(&self, client_id: &ClientId) -> Option<Block> {
        self.0.read().get(client_id).cloned()
    }

    /// Returns the clients that are blocked.
    pub(super) fn clients(&self) -> Vec<ClientId> {
        self.0.read().keys().cloned().collect()
    }

    fn contains(&self, client_id: &ClientId) -> bool {
        self.0.read().contains_key(client_id)
    }
}

impl Broker {
    /// Returns the error that a client gets in place of a session, if it is kept out.
    #[must_use]
    pub fn refusal(&self, client_id: &ClientId) -> Option<ErrorReply> {
        let is_blocked = self.dispatcher.blocks.contains(client_id);
        (is_blocked && !self.authorization.is_administrator(client_id)).then(|| blocked(client_id))
    }
}

impl ClientSession {
    /// Executes `block_client`. When it returns, the client's connections are being ended.
    pub(in crate::broker) async fn block_client(
        &self,
        client_id: ClientId,
    ) -> Result<Reply, ErrorReply> {
        if self.broker.authorization.is_administrator(&client_id) {
            let text = format!(
                "{client_id} is an administrator; take that away in the server's configuration \
                 first"
            );
            return Err(ErrorReply::new(ErrorCode::NotAuthorized, text));
        }
        let block = Block {
            client_id: client_id.clone(),
            by: self.client_id.clone(),
            since: Time::now().to_string(),
        };
        self.change(Change::BlockClient(block)).await?;
        tracing::warn!(client_id = %self.client_id, "Client {client_id} is blocked by \
            {}", self.client_id);
        Ok(Reply::ClientBlocked)
    }

    /// Executes `unblock_client`.
    pub(in crate::broker) async fn unblock_client(
        &self,
        client_id: ClientId,
    ) -> Result<Reply, ErrorReply> {
        let unblock = Change::UnblockClient(client_id.clone());
        if let ChangeOutcome::Refused(_) = self.change(unblock).await? {
            let text = format!("client '{client_id}' is not blocked");
            return Err(ErrorReply::new(ErrorCode::NotFound, text));
        }
        tracing::warn!(client_id = %self.client_id, "Client {client_id} is unblocked by \
            {}", self.client_id);
        Ok(Reply::ClientUnblocked)
    }
}

/// Returns the last line to a client that is kept out.
pub(in crate::broker) fn blocked(client_id: &ClientId) -> ErrorReply {
    let text = format!(
        "an administrator of the server has blocked the client '{client_id}'; it is admitted \
         again when an administrator unblocks it"
    );
    ErrorReply::new(ErrorCode::Blocked, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Refusal;

    fn client(name: &str) -> ClientId {
        name.parse().unwrap()
    }

    fn block(client_id: &str, by: &str) -> Block {
        Block {
            client_id: client(client_id),
            by: client(by),
            since: String::new(),
        }
    }

    #[test]
    fn the_first_block_stays_until_it_is_removed() {
        let blocks = Blocks::new(vec![block("a", "x")]);
        let changes = [
            Change::BlockClient(block("a", "y")),
            Change::BlockClient(block("b", "y")),
            Change::UnblockClient(client("c")),
        ];
        let not_blocked = ChangeOutcome::Refused(Refusal::NotBlocked);
        let outcomes = [ChangeOutcome::Done, ChangeOutcome::Done, not_blocked];
        assert_eq!(
            blocks.changed(&changes, &outcomes),
            [client("a"), client("b")]
        );
        assert_eq!(blocks.get(&client("a")), Some(block("a", "x")));
        assert_eq!(blocks.clients(), [client("a"), client("b")]);
        let removed = [Change::UnblockClient(client("a"))];
        assert_eq!(blocks.changed(&removed, &[ChangeOutcome::Done]), []);
        assert_eq!(blocks.clients(), [client("b")]);
    }
}
