//! Decisions, one by one, and compared with a naive evaluator.

use std::collections::BTreeSet;

use ciphermq_protocol::{ClientId, ExchangeName, QueueName, RoutingKey};
use proptest::prelude::*;

use super::*;

/// A rule as it is written.
#[derive(Debug, Clone, Default)]
struct Written {
    clients: Option<Vec<&'static str>>,
    allow: BTreeSet<Action>,
    deny: BTreeSet<Action>,
    queues: Option<Vec<&'static str>>,
    exchanges: Option<Vec<&'static str>>,
    routing_keys: Option<Vec<&'static str>>,
    receivers: Option<Vec<&'static str>>,
}

/// A request as it is written; what is `None` stands for anything.
#[derive(Debug, Clone, Copy)]
struct Asked {
    client: &'static str,
    action: Action,
    queue: Option<&'static str>,
    exchange: Option<&'static str>,
    routing_key: Option<&'static str>,
    receiver: Option<&'static str>,
}

fn policy(default: Effect, administrators: &[&str], rules: &[Written]) -> Policy {
    let templates = |texts: &Option<Vec<&str>>| {
        let parse = |text: &&str| Template::parse(text).unwrap();
        texts
            .as_ref()
            .map(|texts| texts.iter().map(parse).collect())
    };
    let pattern = |text: &&str| Pattern::parse(text).unwrap();
    let rule = |(index, rule): (usize, &Written)| Rule {
        name: format!("{index}").into(),
        clients: rule
            .clients
            .as_ref()
            .map(|texts| texts.iter().map(pattern).collect()),
        allow: rule.allow.clone(),
        deny: rule.deny.clone(),
        queues: templates(&rule.queues),
        exchanges: templates(&rule.exchanges),
        routing_keys: templates(&rule.routing_keys),
        receivers: templates(&rule.receivers),
    };
    Policy {
        default,
        administrators: administrators.iter().map(pattern).collect(),
        rules: rules.iter().enumerate().map(rule).collect(),
    }
}

fn decide(policy: &Policy, asked: Asked) -> Decision {
    let queue = asked.queue.map(|name| QueueName::new(name).unwrap());
    let exchange = asked.exchange.map(|name| ExchangeName::new(name).unwrap());
    let routing_key = asked.routing_key.map(|name| RoutingKey::new(name).unwrap());
    let receiver = asked.receiver.map(|name| ClientId::new(name).unwrap());
    let request = Request {
        action: asked.action,
        queue: queue.as_ref(),
        exchange: exchange.as_ref(),
        routing_key: routing_key.as_ref(),
        receiver: receiver.as_ref(),
    };
    let client = policy.for_client(&ClientId::new(asked.client).unwrap());
    let decision = client.decide(&request);
    if client.allows_all(asked.action) {
        assert!(decision.is_allowed(), "{asked:?}");
    }
    decision
}

/// Whether a pattern, as it is written, matches.
fn naive_match(pattern: &str, client: &str, name: &str) -> bool {
    if let Some(rest) = pattern.strip_prefix("${client_id}") {
        return name
            .strip_prefix(client)
            .is_some_and(|name| naive_match(rest, client, name));
    }
    let mut rest = pattern.chars();
    let mut rest_of_name = name.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.any(|at| naive_match(rest.as_str(), client, &name[at..]))
        }
        Some(c) => match rest_of_name.next() {
            Some(found) if c == '?' || c == found => {
                naive_match(rest.as_str(), client, rest_of_name.as_str())
            }
            _ => false,
        },
    }
}

/// Whether a rule is about a request, from the documentation's sentences.
fn naive_rule(rule: &Written, effect: Effect, asked: Asked) -> bool {
    let any = |patterns: &Vec<&str>, name: &str| {
        patterns
            .iter()
            .any(|pattern| naive_match(pattern, asked.client, name))
    };
    let actions = match effect {
        Effect::Allow => &rule.allow,
        Effect::Deny => &rule.deny,
    };
    if !actions.contains(&asked.action) {
        return false;
    }
    if rule
        .clients
        .as_ref()
        .is_some_and(|clients| !any(clients, asked.client))
    {
        return false;
    }
    let queue = (&rule.queues, asked.queue);
    let exchange = (&rule.exchanges, asked.exchange);
    let routing_key = (&rule.routing_keys, asked.routing_key);
    let receiver = (&rule.receivers, asked.receiver);
    let about = match asked.action {
        Action::Publish => vec![exchange, routing_key, receiver],
        Action::Consume => vec![queue],
        Action::Bind => vec![queue, exchange, routing_key],
        Action::ReadKeys => vec![receiver],
        Action::RegisterKey | Action::Administer => vec![],
        Action::Declare | Action::Delete => {
            if rule.queues.is_none() && rule.exchanges.is_none() {
                return true;
            }
            if asked.queue.is_none() && asked.exchange.is_none() {
                return effect == Effect::Allow;
            }
            let named = [queue, exchange]
                .into_iter()
                .filter(|(_, name)| name.is_some());
            let mut listed = named.map(|(list, name)| (list.as_ref(), name.unwrap()));
            return listed.all(|(list, name)| list.is_some_and(|list| any(list, name)));
        }
    };
    about.into_iter().all(|(list, name)| match (list, name) {
        (None, _) => true,
        (Some(list), Some(name)) => any(list, name),
        (Some(_), None) => effect == Effect::Allow,
    })
}

fn naive(default: Effect, administrators: &[&str], rules: &[Written], asked: Asked) -> Decision {
    if administrators
        .iter()
        .any(|pattern| naive_match(pattern, asked.client, asked.client))
    {
        return Decision {
            effect: Effect::Allow,
            reason: Reason::Administrator,
        };
    }
    let first = |effect| {
        rules
            .iter()
            .position(|rule| naive_rule(rule, effect, asked))
    };
    let by_rule = |effect, index: usize| Decision {
        effect,
        reason: Reason::Rule(format!("{index}").into()),
    };
    match (first(Effect::Deny), first(Effect::Allow)) {
        (Some(index), _) => by_rule(Effect::Deny, index),
        (None, Some(index)) => by_rule(Effect::Allow, index),
        (None, None) => Decision {
            effect: match asked.action {
                Action::Administer => Effect::Deny,
                _ => default,
            },
            reason: Reason::Default,
        },
    }
}

const NAMES: [&str; 6] = ["a", "b", "ab", "a-x", "*", "${client_id}"];
const TEMPLATES: [&str; 9] = [
    "a",
    "b",
    "*",
    "?",
    "a*",
    "*x",
    "${client_id}",
    "${client_id}-?",
    "*${client_id}",
];
const CLIENTS: [&str; 5] = ["a", "*", "?", "a*", "*b"];

fn list(texts: &'static [&'static str]) -> impl Strategy<Value = Option<Vec<&'static str>>> {
    let texts = prop::collection::vec(prop::sample::select(texts), 1..3);
    prop::option::weighted(0.4, texts)
}

fn actions() -> impl Strategy<Value = BTreeSet<Action>> {
    prop::collection::btree_set(prop::sample::select(&Action::ALL[..]), 0..4)
}

fn written() -> impl Strategy<Value = Written> {
    let lists = (
        list(&TEMPLATES),
        list(&TEMPLATES),
        list(&TEMPLATES),
        list(&TEMPLATES),
    );
    (list(&CLIENTS), actions(), actions(), lists).prop_map(|(clients, allow, deny, lists)| {
        let (queues, exchanges, routing_keys, receivers) = lists;
        Written {
            clients,
            allow,
            deny,
            queues,
            exchanges,
            routing_keys,
            receivers,
        }
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    let name = || prop::option::weighted(0.8, prop::sample::select(&NAMES[..]));
    let client = prop::sample::select(&NAMES[..]);
    let action = prop::sample::select(&Action::ALL[..]);
    (client, action, name(), name(), name(), name()).prop_map(
        |(client, action, queue, exchange, routing_key, receiver)| Asked {
            client,
            action,
            queue,
            exchange,
            routing_key,
            receiver,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn decisions_are_those_of_the_naive_evaluator(
        allows in any::<bool>(),
        administrators in prop::collection::vec(prop::sample::select(&["a", "*b", "?"][..]), 0..2),
        rules in prop::collection::vec(written(), 0..5),
        questions in prop::collection::vec(asked(), 20),
    ) {
        let default = if allows { Effect::Allow } else { Effect::Deny };
        let policy = policy(default, &administrators, &rules);
        for asked in questions {
            let expected = naive(default, &administrators, &rules, asked);
            prop_assert_eq!(decide(&policy, asked), expected, "{:?}", asked);
            let client = ClientId::new(asked.client).unwrap();
            let administers = Asked { action: Action::Administer, ..asked };
            prop_assert_eq!(
                policy.is_administrator(&client),
                naive(default, &administrators, &rules, administers).is_allowed()
            );
        }
    }
}

/// What each action is about, as docs/authorization.md says.
const ABOUT: [(Action, &[&str]); 8] = [
    (Action::Publish, &["exchanges", "routing_keys", "receivers"]),
    (Action::Consume, &["queues"]),
    (Action::Declare, &["queues", "exchanges"]),
    (Action::Bind, &["queues", "exchanges", "routing_keys"]),
    (Action::Delete, &["queues", "exchanges"]),
    (Action::RegisterKey, &[]),
    (Action::ReadKeys, &["receivers"]),
    (Action::Administer, &[]),
];

const LISTS: [&str; 4] = ["queues", "exchanges", "routing_keys", "receivers"];

/// A rule with one list, or none, which has one effect on one action.
fn rule(action: Action, effect: Effect, list: Option<&str>) -> Written {
    let of = |name: &str| (list == Some(name)).then(|| vec!["x"]);
    let with = |wanted| match effect == wanted {
        true => BTreeSet::from([action]),
        false => BTreeSet::new(),
    };
    Written {
        clients: None,
        allow: with(Effect::Allow),
        deny: with(Effect::Deny),
        queues: of("queues"),
        exchanges: of("exchanges"),
        routing_keys: of("routing_keys"),
        receivers: of("receivers"),
    }
}

/// A request that names a thing of this kind, and no other.
fn about(action: Action, list: &str, name: Option<&'static str>) -> Asked {
    let of = |kind: &str| name.filter(|_| list == kind);
    Asked {
        client: "c",
        action,
        queue: of("queues"),
        exchange: of("exchanges"),
        routing_key: of("routing_keys"),
        receiver: of("receivers"),
    }
}

#[test]
fn every_action_with_every_kind_of_rule() {
    for (action, lists) in ABOUT {
        for (effect, default) in [(Effect::Allow, Effect::Deny), (Effect::Deny, Effect::Allow)] {
            let decides = |list: Option<&str>, asked: Asked| {
                let policy = policy(default, &[], &[rule(action, effect, list)]);
                let decision = decide(&policy, asked);
                let by_rule = decision.reason != Reason::Default;
                assert!(!by_rule || decision.effect == effect, "{asked:?}");
                by_rule
            };
            assert!(
                decides(None, about(action, "", None)),
                "{action} without a list"
            );
            for list in LISTS {
                let is_about = lists.contains(&list);
                let context = format!("{action} {} {list}", effect.as_str());
                assert!(
                    decides(Some(list), about(action, list, Some("x"))),
                    "{context}"
                );
                let of_another = decides(Some(list), about(action, list, Some("y")));
                assert_eq!(of_another, !is_about, "{context}: another name");
                let of_any = decides(Some(list), about(action, list, None));
                let expected = !is_about || effect == Effect::Allow;
                assert_eq!(of_any, expected, "{context}: any name");
            }
            // No other action is meant.
            for other in Action::ALL.into_iter().filter(|other| *other != action) {
                assert!(
                    !decides(None, about(other, "", None)),
                    "{action}, not {other}"
                );
            }
        }
    }
}

#[test]
fn a_rule_about_queues_says_nothing_about_exchanges() {
    for action in [Action::Declare, Action::Delete] {
        for (listed, named) in [("queues", "exchanges"), ("exchanges", "queues")] {
            for (effect, default) in [(Effect::Allow, Effect::Deny), (Effect::Deny, Effect::Allow)]
            {
                let policy = policy(default, &[], &[rule(action, effect, Some(listed))]);
                let decision = decide(&policy, about(action, named, Some("x")));
                assert_eq!(decision.reason, Reason::Default, "{action} {listed}");
            }
        }
    }
}

#[test]
fn the_default_administers_nobody() {
    let client = ClientId::new("c").unwrap();
    assert!(!Policy::default().is_administrator(&client));
    let administer = rule(Action::Administer, Effect::Allow, None);
    let by_rule = policy(Effect::Deny, &[], std::slice::from_ref(&administer));
    assert!(by_rule.is_administrator(&client));
    let denied = rule(Action::Administer, Effect::Deny, None);
    let by_both = policy(Effect::Allow, &[], &[administer, denied.clone()]);
    assert!(!by_both.is_administrator(&client));
    let listed = policy(Effect::Deny, &["c"], &[denied]);
    assert!(
        listed.is_administrator(&client),
        "no rule locks administrators out"
    );
}

#[test]
fn a_policy_is_replaced_as_a_whole() {
    let current = CurrentPolicy::new(Policy::default());
    let (before, first) = current.get();
    assert_eq!(current.generation(), first);
    current.replace(policy(Effect::Deny, &["c"], &[]));
    let (after, second) = current.get();
    assert!(second > first);
    assert_eq!(
        (before.default, after.default),
        (Effect::Allow, Effect::Deny)
    );
    assert!(current.is_administrator(&ClientId::new("c").unwrap()));
}
