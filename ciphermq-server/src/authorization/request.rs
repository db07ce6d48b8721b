//! Requests of a client, and decisions about them.

use std::sync::Arc;

use ciphermq_protocol::permission::{Permission, PermissionRequest};
use ciphermq_protocol::{ClientId, ExchangeName, QueueName, RoutingKey};

use super::{Action, Effect};

/// An action of a client, with what it is about.
///
/// What is `None` stands for anything: a rule that allows some of it allows the request, and only
/// a rule that denies all of it denies the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The action.
    pub action: Action,
    /// The queue.
    pub queue: Option<&'a QueueName>,
    /// The exchange.
    pub exchange: Option<&'a ExchangeName>,
    /// The routing key.
    pub routing_key: Option<&'a RoutingKey>,
    /// The receiver of a message, or the client whose keys are read.
    pub receiver: Option<&'a ClientId>,
}

impl<'a> Request<'a> {
    /// Creates a request about anything.
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

    /// Creates a request about a queue.
    #[must_use]
    pub fn of_queue(action: Action, queue: &'a QueueName) -> Self {
        Self {
            queue: Some(queue),
            ..Self::new(action)
        }
    }

    /// Creates a request about an exchange.
    #[must_use]
    pub fn of_exchange(action: Action, exchange: &'a ExchangeName) -> Self {
        Self {
            exchange: Some(exchange),
            ..Self::new(action)
        }
    }

    /// Creates a request about the binding of a queue.
    #[must_use]
    pub fn of_binding(
        queue: &'a QueueName,
        exchange: &'a ExchangeName,
        routing_key: &'a RoutingKey,
    ) -> Self {
        Self {
            queue: Some(queue),
            exchange: Some(exchange),
            routing_key: Some(routing_key),
            ..Self::new(Action::Bind)
        }
    }

    /// Creates a request about the keys of a client.
    #[must_use]
    pub fn of_keys(client_id: &'a ClientId) -> Self {
        Self {
            receiver: Some(client_id),
            ..Self::new(Action::ReadKeys)
        }
    }
}

impl<'a> From<&'a PermissionRequest> for Request<'a> {
    fn from(request: &'a PermissionRequest) -> Self {
        Self {
            action: request.action,
            queue: request.queue.as_ref(),
            exchange: request.exchange.as_ref(),
            routing_key: request.routing_key.as_ref(),
            receiver: request.receiver.as_ref(),
        }
    }
}

/// Whether a client may, and what this follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the client may.
    pub effect: Effect,
    /// What decides.
    pub reason: Reason,
}

/// What a decision follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The client is an administrator.
    Administrator,
    /// The rule with this name decides.
    Rule(Arc<str>),
    /// No rule decides.
    Default,
}

impl Decision {
    /// Returns whether the client may.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.effect == Effect::Allow
    }
}

impl From<Decision> for Permission {
    fn from(decision: Decision) -> Self {
        Self {
            allowed: decision.is_allowed(),
            administrator: decision.reason == Reason::Administrator,
            default: (decision.reason == Reason::Default)
                .then(|| decision.effect.as_str().to_owned()),
            rule: match decision.reason {
                Reason::Rule(name) => Some(name.as_ref().to_owned()),
                Reason::Administrator | Reason::Default => None,
            },
        }
    }
}
