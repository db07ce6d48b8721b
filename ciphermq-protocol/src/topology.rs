//! The JSON of `list_queues`, `list_exchanges` and `list_bindings`, and of their replies.
//!
//! The three lists have types of their own rather than a generic one, because each page names its
//! field after what it holds, on the wire and for users of the SDK.

use serde::{Deserialize, Serialize};

use crate::name::{ClientId, ExchangeName, QueueName, RoutingKey};

/// The JSON object of `list_queues`: a page of the queues that the client may see.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct QueuesRequest {
    /// The `next` of the last page; the list starts at the first queue if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<QueueName>,
    /// The only queue to list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// The most queues to examine; the server has a limit of its own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::deserialize"
    )]
    pub limit: Option<u32>,
}

/// Queues in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuesPage {
    /// The queues.
    pub queues: Vec<QueueInfo>,
    /// The position of the next page; `None` after the last page.
    ///
    /// A page without queues need not be the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<QueueName>,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueInfo {
    /// The queue's name.
    pub queue: QueueName,
    /// The client that made it; `None` if an older server stored it.
    pub made_by: Option<ClientId>,
    /// The number of its bindings.
    pub bindings: u64,
    /// The number of connections that consume from it.
    pub consumers: u64,
    /// The number of messages that wait in it: for all receivers if the client has made the queue
    /// or is an administrator, otherwise for the client.
    pub messages: u64,
    /// Whether there are more messages; the server counts some thousands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more_messages: bool,
}

/// The JSON object of `list_exchanges`: a page of the exchanges that the client may see.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct ExchangesRequest {
    /// The `next` of the last page; the list starts at the first exchange if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ExchangeName>,
    /// The only exchange to list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<ExchangeName>,
    /// The most exchanges to examine; the server has a limit of its own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::deserialize"
    )]
    pub limit: Option<u32>,
}

/// Exchanges in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangesPage {
    /// The exchanges.
    pub exchanges: Vec<ExchangeInfo>,
    /// The position of the next page; `None` after the last page.
    ///
    /// A page without exchanges need not be the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ExchangeName>,
}

/// An exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExchangeInfo {
    /// The exchange's name.
    pub exchange: ExchangeName,
    /// The client that made it; `None` if an older server stored it.
    pub made_by: Option<ClientId>,
    /// The number of bindings to it.
    pub bindings: u64,
}

/// The JSON object of `list_bindings`: a page of the bindings that the client may see.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct BindingsRequest {
    /// The `next` of the last page; the list starts at the first binding if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<BindingCursor>,
    /// The exchange whose bindings to list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<ExchangeName>,
    /// The queue whose bindings to list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// The most bindings to examine; the server has a limit of its own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::deserialize"
    )]
    pub limit: Option<u32>,
}

/// The position of a binding in the list.
///
/// It is opaque: clients return it unchanged. Its order is that of the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(expecting = "an object, as `next` was")]
pub struct BindingCursor {
    /// The exchange.
    pub exchange: ExchangeName,
    /// The routing key.
    pub routing_key: RoutingKey,
    /// The number of the queue.
    #[serde(deserialize_with = "crate::number::integer")]
    pub queue: i64,
}

/// Bindings in the order of their exchanges and routing keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingsPage {
    /// The bindings.
    pub bindings: Vec<BindingInfo>,
    /// The position of the next page; `None` after the last page.
    ///
    /// A page without bindings need not be the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<BindingCursor>,
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingInfo {
    /// The exchange.
    pub exchange: ExchangeName,
    /// The routing key.
    pub routing_key: RoutingKey,
    /// The queue.
    pub queue: QueueName,
    /// The client that made it; `None` if an older server stored it.
    pub made_by: Option<ClientId>,
}
