//! The rules for all clients.

use std::collections::BTreeSet;
use std::sync::Arc;

use ciphermq_protocol::ClientId;

use super::{Action, ClientPolicy, Pattern, Request, Template};

/// Whether something is allowed or denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is allowed.
    Allow,
    /// It is denied.
    Deny,
}

impl Effect {
    /// Returns the word for it in a configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What each client may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The decision where no rule decides. It does not concern [`Action::Administer`].
    pub default: Effect,
    /// The clients that may do everything.
    pub administrators: Vec<Pattern>,
    /// The rules, in the order in which they are tried.
    pub rules: Vec<Rule>,
}

/// A rule, which allows and denies actions of some clients on some things.
///
/// A list that is `None` matches everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The name, for people.
    pub name: Arc<str>,
    /// The clients that the rule is about.
    pub clients: Option<Vec<Pattern>>,
    /// The actions that it allows.
    pub allow: BTreeSet<Action>,
    /// The actions that it denies.
    pub deny: BTreeSet<Action>,
    /// The queues that it is about.
    pub queues: Option<Vec<Template>>,
    /// The exchanges that it is about.
    pub exchanges: Option<Vec<Template>>,
    /// The routing keys that it is about.
    pub routing_keys: Option<Vec<Template>>,
    /// The receivers, or owners of keys, that it is about.
    pub receivers: Option<Vec<Template>>,
}

impl Default for Policy {
    /// Returns the policy without any rule, which allows everything but to administer.
    fn default() -> Self {
        Self {
            default: Effect::Allow,
            administrators: Vec::new(),
            rules: Vec::new(),
        }
    }
}

impl Policy {
    /// Returns the rules of one client.
    #[must_use]
    pub fn for_client(&self, client_id: &ClientId) -> ClientPolicy {
        ClientPolicy::new(self, client_id)
    }

    /// Returns whether a client may administer: it is listed, or a rule allows it.
    #[must_use]
    pub fn is_administrator(&self, client_id: &ClientId) -> bool {
        let is_listed = |pattern: &Pattern| pattern.matches(client_id.as_str());
        if self.administrators.iter().any(is_listed) {
            return true;
        }
        let is_allowable = |rule: &Rule| rule.allow.contains(&Action::Administer);
        self.rules.iter().any(is_allowable)
            && self
                .for_client(client_id)
                .decide(&Request::new(Action::Administer))
                .is_allowed()
    }
}

impl Rule {
    /// Returns whether the rule is about a client.
    #[must_use]
    pub fn concerns(&self, client_id: &ClientId) -> bool {
        let matches = |pattern: &Pattern| pattern.matches(client_id.as_str());
        self.clients
            .as_ref()
            .is_none_or(|clients| clients.iter().any(matches))
    }
}
