//! The JSON of `list_rejected` and of its reply.

use serde::{Deserialize, Serialize};

use crate::name::{ClientId, ExchangeName, MessageId, RoutingKey};

/// The JSON object of `list_rejected`: a page of rejected messages.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct RejectedRequest {
    /// The end of the last page; the list starts at the first message if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<RejectedCursor>,
    /// The most messages to list; the server has a limit of its own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::deserialize"
    )]
    pub limit: Option<u32>,
}

/// The position of a message in the list, after which the next page starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object of `rejected_time` and `message_id`")]
pub struct RejectedCursor {
    /// The time of its rejection, as the server wrote it.
    pub rejected_time: String,
    /// The message's id.
    pub message_id: MessageId,
}

/// Rejected messages in the order of their rejection.
///
/// They are those that the client sent, and those that were for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedPage {
    /// The messages.
    pub messages: Vec<RejectedMessage>,
    /// Whether more may follow.
    pub more: bool,
}

/// A message that its receiver has rejected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedMessage {
    /// The message's id.
    pub message_id: MessageId,
    /// The sender.
    pub sender: ClientId,
    /// The receiver.
    pub receiver: ClientId,
    /// The exchange of its publication.
    pub exchange: ExchangeName,
    /// The routing key of its publication.
    pub routing_key: RoutingKey,
    /// The receiver's reason.
    pub reason: String,
    /// The time of its rejection by the server's clock, RFC 3339 in UTC.
    pub rejected_time: String,
}

impl RejectedMessage {
    /// Returns the position of this message, for the page after it.
    #[must_use]
    pub fn cursor(&self) -> RejectedCursor {
        RejectedCursor {
            rejected_time: self.rejected_time.clone(),
            message_id: self.message_id.clone(),
        }
    }
}
