//! The actions that a server may refuse to a client, and the JSON of `can_i` and of its reply.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{ClientId, ExchangeName, QueueName, RoutingKey};

/// What a client does, as authorization rules name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// `publish`, `publish_batch`, `publish_packed` and `publish_binary`.
    Publish,
    /// `consume`, `fetch`, `ack`, `reject` and `list_rejected`.
    Consume,
    /// `declare_queue` and `declare_exchange`.
    Declare,
    /// `bind` and its reverse.
    Bind,
    /// Removal of queues and exchanges, and of what is in a queue.
    Delete,
    /// `register_public_key`, `register_key` and `register_signed_key`.
    RegisterKey,
    /// `get_public_key`, `get_key`, `get_signed_key`, `get_certificate` and `list_waiting_keys`.
    ReadKeys,
    /// `list_connections`, `close_connection`, `list_clients`, `block_client` and
    /// `unblock_client`.
    Administer,
}

/// The reason why a text is not an action: it names none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an action is one of publish, consume, declare, bind, delete, register_key, read_keys, administer"
)]
pub struct UnknownAction;

impl Action {
    /// All actions, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Publish,
        Self::Consume,
        Self::Declare,
        Self::Bind,
        Self::Delete,
        Self::RegisterKey,
        Self::ReadKeys,
        Self::Administer,
    ];

    /// Returns the action's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
            Self::Declare => "declare",
            Self::Bind => "bind",
            Self::Delete => "delete",
            Self::RegisterKey => "register_key",
            Self::ReadKeys => "read_keys",
            Self::Administer => "administer",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let mut all = Self::ALL.into_iter();
        all.find(|action| action.as_str() == text)
            .ok_or(UnknownAction)
    }
}

/// The JSON object of `can_i`: an action, and what it is about.
///
/// A field that is left out stands for anything. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct PermissionRequest {
    /// The action.
    pub action: Action,
    /// The queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// The exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<ExchangeName>,
    /// The routing key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<RoutingKey>,
    /// The receiver of a message, or the client whose keys are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiver: Option<ClientId>,
}

impl PermissionRequest {
    /// Creates a request about an action on anything.
    #[must_use]
    pub fn new(action: Action) -> Self {
        Self {
            action,
            queue: None,
            exchange: None,
            routing_key: None,
            receiver: None,
        }
    }
}

/// The JSON object of the reply to `can_i`: the decision, and what it follows from.
///
/// Exactly one of `rule`, `default` and `administrator` is there. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// Whether the client may.
    pub allowed: bool,
    /// The name of the rule that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The default, `allow` or `deny`, if no rule decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Whether the client may because it is an administrator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub administrator: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_one_name_everywhere() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
            let json = format!("\"{action}\"");
            assert_eq!(serde_json::to_string(&action).unwrap(), json);
            assert_eq!(serde_json::from_str::<Action>(&json).unwrap(), action);
        }
        assert_eq!("Publish".parse::<Action>(), Err(UnknownAction));
    }

    #[test]
    fn what_is_left_out_is_not_written() {
        let request = PermissionRequest::new(Action::Consume);
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(json, r#"{"action":"consume"}"#);
        let read: PermissionRequest =
            serde_json::from_str(r#"{"action":"consume","queue":null,"other":1}"#).unwrap();
        assert_eq!(read, request);
    }
}
