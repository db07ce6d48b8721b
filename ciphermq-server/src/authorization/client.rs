//! The rules of one client, and the decision that follows from them.

use std::collections::BTreeSet;
use std::sync::Arc;

use ciphermq_protocol::ClientId;

use super::{Action, Decision, Effect, Pattern, Policy, Reason, Request, Rule, Template};

/// The part of a policy that is about one client.
#[derive(Debug, Clone)]
pub struct ClientPolicy {
    is_administrator: bool,
    default: Effect,
    rules: Vec<ClientRule>,
}

/// A rule with the client's id filled in.
#[derive(Debug, Clone)]
struct ClientRule {
    name: Arc<str>,
    allow: BTreeSet<Action>,
    deny: BTreeSet<Action>,
    queues: List,
    exchanges: List,
    routing_keys: List,
    receivers: List,
}

/// The patterns of a list; `None` if the rule has none, which matches everything.
#[derive(Debug, Clone)]
struct List(Option<Vec<Pattern>>);

impl ClientPolicy {
    pub(super) fn new(policy: &Policy, client_id: &ClientId) -> Self {
        let is_listed = |pattern: &Pattern| pattern.matches(client_id.as_str());
        let rules = policy.rules.iter().filter(|rule| rule.concerns(client_id));
        Self {
            is_administrator: policy.administrators.iter().any(is_listed),
            default: policy.default,
            rules: rules.map(|rule| ClientRule::new(rule, client_id)).collect(),
        }
    }

    /// Decides whether the client may do this.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        if self.is_administrator {
            return Decision {
                effect: Effect::Allow,
                reason: Reason::Administrator,
            };
        }
        for effect in [Effect::Deny, Effect::Allow] {
            let decides = |rule: &&ClientRule| rule.decides(effect, request);
            if let Some(rule) = self.rules.iter().find(decides) {
                return Decision {
                    effect,
                    reason: Reason::Rule(Arc::clone(&rule.name)),
                };
            }
        }
        let effect = match request.action {
            Action::Administer => Effect::Deny,
            _ => self.default,
        };
        Decision {
            effect,
            reason: Reason::Default,
        }
    }

    /// Returns whether the client may do this with anything.
    #[must_use]
    pub fn allows_all(&self, action: Action) -> bool {
        let is_denied = || self.rules.iter().any(|rule| rule.deny.contains(&action));
        let by_default = self.default == Effect::Allow && action != Action::Administer;
        self.is_administrator || (by_default && !is_denied())
    }
}

impl ClientRule {
    fn new(rule: &Rule, client_id: &ClientId) -> Self {
        let list = |templates: &Option<Vec<Template>>| {
            List(templates.as_ref().map(|templates| {
                let of_client = templates
                    .iter()
                    .map(|template| template.for_client(client_id));
                of_client.collect()
            }))
        };
        Self {
            name: Arc::clone(&rule.name),
            allow: rule.allow.clone(),
            deny: rule.deny.clone(),
            queues: list(&rule.queues),
            exchanges: list(&rule.exchanges),
            routing_keys: list(&rule.routing_keys),
            receivers: list(&rule.receivers),
        }
    }

    /// Returns whether the rule has this effect on the request.
    ///
    /// Only lists of what the action is about count: a rule for publishing and key registration
    /// may list exchanges.
    fn decides(&self, effect: Effect, request: &Request<'_>) -> bool {
        let actions = match effect {
            Effect::Allow => &self.allow,
            Effect::Deny => &self.deny,
        };
        if !actions.contains(&request.action) {
            return false;
        }
        let queue = request.queue.map(AsRef::as_ref);
        let exchange = request.exchange.map(AsRef::as_ref);
        let of_queue = || self.queues.matches(effect, queue);
        let of_exchange = || self.exchanges.matches(effect, exchange);
        let of_routing_key = || {
            let routing_key = request.routing_key.map(AsRef::as_ref);
            self.routing_keys.matches(effect, routing_key)
        };
        let of_receiver = || {
            let receiver = request.receiver.map(AsRef::as_ref);
            self.receivers.matches(effect, receiver)
        };
        match request.action {
            Action::Publish => of_exchange() && of_routing_key() && of_receiver(),
            Action::Consume => of_queue(),
            Action::Bind => of_queue() && of_exchange() && of_routing_key(),
            Action::ReadKeys => of_receiver(),
            Action::RegisterKey | Action::Administer => true,
            // These are about a queue or an exchange. A rule that lists queues alone says nothing
            // about exchanges.
            Action::Declare | Action::Delete => match (&self.queues.0, &self.exchanges.0) {
                (None, None) => true,
                (Some(_), None) if exchange.is_some() => false,
                (None, Some(_)) if queue.is_some() => false,
                _ if queue.is_none() && exchange.is_none() => effect == Effect::Allow,
                _ => (queue.is_none() || of_queue()) && (exchange.is_none() || of_exchange()),
            },
        }
    }
}

impl List {
    /// Returns whether a rule with this effect and this list matches a name, or what stands for
    /// any name.
    fn matches(&self, effect: Effect, name: Option<&str>) -> bool {
        match (&self.0, name) {
            (None, _) => true,
            (Some(patterns), Some(name)) => patterns.iter().any(|pattern| pattern.matches(name)),
            (Some(_), None) => effect == Effect::Allow,
        }
    }
}
