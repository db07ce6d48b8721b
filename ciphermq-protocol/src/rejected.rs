//! The two JSON objects of `list_rejected`.

use serde::{Deserialize, Serialize};

use crate::name::{ClientId, ExchangeName, MessageId, RoutingKey};

/// Which rejected messages to list. Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct RejectedRequest {
    /// Those after this one; left out, from the first on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<RejectedCursor>,
    /// At most so many; the server has a limit of its own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::deserialize"
    )]
    pub limit: Option<u32>,
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object of `rejected_time` and `message_id`")]
pub struct RejectedCursor {
    /// When the last message of the list so far was rejected, as the server wrote it.
    pub rejected_time: String,
    /// Its id.
    pub message_id: MessageId,
}

/// Rejected messages in the order of their rejection: those that the client has sent, and those
/// that were for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedPage {
    /// The messages.
    pub messages: Vec<RejectedMessage>,
    /// Whether there may be more after them.
    pub more: bool,
}

/// A message that its receiver could not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedMessage {
    /// Its id.
    pub message_id: MessageId,
    /// Who sent it.
    pub sender: ClientId,
    /// Whom it was for.
    pub receiver: ClientId,
    /// The exchange that it was published to.
    pub exchange: ExchangeName,
    /// The routing key that it was published by.
    pub routing_key: RoutingKey,
    /// Why it was rejected, in the receiver's words.
    pub reason: String,
    /// When, RFC 3339 in UTC, by the server's clock.
    pub rejected_time: String,
}

impl RejectedMessage {
    /// Where a list that ends with this message goes on.
    #[must_use]
    pub fn cursor(&self) -> RejectedCursor {
        RejectedCursor {
            rejected_time: self.rejected_time.clone(),
            message_id: self.message_id.clone(),
        }
    }
}
