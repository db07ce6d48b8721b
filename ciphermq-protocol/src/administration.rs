//! The JSON of `list_connections`, `list_clients` and `reload`, and of their replies.

use serde::{Deserialize, Serialize};

use crate::name::{ClientId, QueueName};

/// The JSON object of `list_connections`: a page of the connections of all clients, or of one.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct ConnectionsRequest {
    /// The `next` of the last page; the list starts at the first connection if left out.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::optional_u64"
    )]
    pub after: Option<u64>,
    /// The client whose connections to list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientId>,
    /// The most connections to list; the server has a limit of its own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::deserialize"
    )]
    pub limit: Option<u32>,
}

/// Connections in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsPage {
    /// The connections.
    pub connections: Vec<ConnectionInfo>,
    /// The position of the next page; `None` after the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A connection of a client.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// The connection's number, which `close_connection` takes. It starts again with the server.
    pub connection: u64,
    /// The client.
    pub client: ClientId,
    /// The client's address and port.
    pub address: String,
    /// The time of its handshake by the server's clock, RFC 3339 in UTC.
    pub since: String,
    /// The version of TLS, such as `1.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// The client's program, as its `hello` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// The consumer's name, as its `hello` gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// The queues that it consumes from.
    #[serde(default)]
    pub queues: Vec<QueueName>,
    /// The number of messages that were delivered to it and are not acknowledged.
    #[serde(default)]
    pub in_flight: u64,
    /// Whether it gets packed deliveries and replies.
    #[serde(default)]
    pub packed: bool,
}

/// The JSON object of `list_clients`: a page of the clients that the server knows something of.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct ClientsRequest {
    /// The `next` of the last page; the list starts at the first client if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ClientId>,
    /// The only client to list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientId>,
    /// The most clients to list; the server has a limit of its own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::deserialize"
    )]
    pub limit: Option<u32>,
}

/// Clients in the order of their ids: those that are connected, that are blocked, or that hold
/// something that a quota counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientsPage {
    /// The clients.
    pub clients: Vec<ClientInfo>,
    /// The position of the next page; `None` after the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ClientId>,
}

/// A client of the server.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    /// The client's id.
    pub client: ClientId,
    /// The number of its connections.
    pub connections: u64,
    /// Whether it may administer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub administrator: bool,
    /// Its block; `None` if it is not blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<BlockInfo>,
    /// What it holds of each quota.
    #[serde(default)]
    pub quotas: Vec<QuotaInfo>,
}

/// The block of a client.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// The administrator that has blocked it.
    pub by: ClientId,
    /// The time of the block by the server's clock, RFC 3339 in UTC.
    pub since: String,
}

/// What a client holds of a quota.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaInfo {
    /// The name of the quota, such as `connections`.
    pub quota: String,
    /// What the client holds.
    pub held: u64,
    /// What it may hold; 0 means no limit.
    pub limit: u64,
}

/// What a reload has changed.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What has changed, and is in force: `certificate`, `authorities`, `revocation_lists`,
    /// `rules`, `quotas`, `log_level`. There may be others.
    #[serde(default)]
    pub changed: Vec<String>,
    /// The settings that have changed, and are in force only after a restart.
    #[serde(default)]
    pub restart: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_are_not_known_are_ignored() {
        let json = r#"{"client":"c","connections":1,"later":{},"blocked":{"by":"ops",
            "since":"2026-01-01T00:00:00Z","reason":"r"},
            "quotas":[{"quota":"connections","held":1,"limit":2,"burst":3}]}"#;
        let client: ClientInfo = serde_json::from_str(json).unwrap();
        assert_eq!(client.quotas[0].limit, 2);
        assert_eq!(client.blocked.unwrap().by.as_str(), "ops");
        let json = r#"{"connection":7,"client":"c","address":"[::1]:1","since":"now","more":[]}"#;
        let connection: ConnectionInfo = serde_json::from_str(json).unwrap();
        assert_eq!((connection.connection, connection.in_flight), (7, 0));
    }
}
