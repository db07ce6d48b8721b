//! Clients that an administrator keeps out.

use ciphermq_protocol::ClientId;

/// The block of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The client that is blocked.
    pub client_id: ClientId,
    /// The administrator that has blocked it.
    pub by: ClientId,
    /// When, as the database stores it: RFC 3339 in UTC.
    pub since: String,
}
