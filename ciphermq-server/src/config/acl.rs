//! The section `[acl]` of older files: roles by client id, read as rules.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ciphermq_protocol::ClientId;
use ciphermq_protocol::text::shown;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{
    setting::{List, Location},
    validator::Validator,
};
use crate::authorization::{Action, Effect, Pattern, Policy, Rule};

/// The section as written.
#[derive(Debug)]
pub(super) struct AclSection {
    /// The byte offset of the section in the file.
    offset: usize,
    roles: Roles,
}

/// The clients of each role, and the names of other fields.
#[derive(Debug, Default)]
struct Roles {
    senders: Vec<String>,
    receivers: Vec<String>,
    administrators: Vec<String>,
    others: Vec<String>,
}

/// What senders did: clients of that time declare and bind when they connect.
const SENDERS: [Action; 4] = [
    Action::Publish,
    Action::Declare,
    Action::Bind,
    Action::ReadKeys,
];
/// What receivers did. They also read keys, to verify senders.
const RECEIVERS: [Action; 5] = [
    Action::Consume,
    Action::Declare,
    Action::Bind,
    Action::RegisterKey,
    Action::ReadKeys,
];

impl AclSection {
    /// Returns whether the section names a client. Otherwise it means nothing.
    pub(super) fn has_meaning(&self) -> bool {
        let roles = &self.roles;
        let lists = [&roles.senders, &roles.receivers, &roles.administrators];
        lists.into_iter().any(|list| !list.is_empty())
    }

    /// Returns the byte offset of a section that means nothing.
    pub(super) fn offset_without_meaning(&self) -> Option<usize> {
        (!self.has_meaning()).then_some(self.offset)
    }

    /// Returns the policy that the section describes, and adds warnings about it.
    ///
    /// A client in none of the lists may do nothing.
    pub(super) fn policy(&self, validator: &Validator<'_>, warnings: &mut Vec<String>) -> Policy {
        let origin = validator.origin(Some(&Location::Offset(self.offset)));
        warnings.push(format!(
            "{origin}: [acl] is in force, as rules: a client in none of its lists may do nothing; \
             write the rules to [authorization], and remove [acl]"
        ));
        for field in &self.roles.others {
            let field = shown(field);
            warnings.push(format!("{origin}: [acl] {field} has no effect"));
        }
        let mut clients = |texts: &[String]| -> Vec<Pattern> {
            let mut patterns = Vec::with_capacity(texts.len());
            for text in texts {
                match ClientId::new(text) {
                    Ok(client_id) => patterns.push(Pattern::literal(&client_id)),
                    Err(error) => warnings.push(format!(
                        "{origin}: [acl] `{}` is no client id, and has no effect: {error}",
                        shown(text)
                    )),
                }
            }
            patterns
        };
        let rules = [
            (
                "[acl] sender_cns",
                clients(&self.roles.senders),
                &SENDERS[..],
            ),
            (
                "[acl] receiver_cns",
                clients(&self.roles.receivers),
                &RECEIVERS,
            ),
        ];
        let rule = |(name, clients, actions): (&str, Vec<Pattern>, &[Action])| Rule {
            name: Arc::from(name),
            clients: Some(clients),
            allow: actions.iter().copied().collect(),
            deny: BTreeSet::new(),
            queues: None,
            exchanges: None,
            routing_keys: None,
            receivers: None,
        };
        let rules = rules.map(rule).to_vec();
        Policy {
            default: Effect::Deny,
            administrators: clients(&self.roles.administrators),
            rules,
        }
    }
}

impl<'de> Deserialize<'de> for AclSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Roles>::deserialize(deserializer)?;
        Ok(Self {
            offset: spanned.span().start,
            roles: spanned.into_inner(),
        })
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RolesVisitor)
    }
}

struct RolesVisitor;

impl<'de> de::Visitor<'de> for RolesVisitor {
    type Value = Roles;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section: its name in brackets, its fields below")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Roles, A::Error> {
        let mut roles = Roles::default();
        while let Some(field) = map.next_key::<String>()? {
            let list = match field.as_str() {
                "sender_cns" => &mut roles.senders,
                "receiver_cns" => &mut roles.receivers,
                "admin_cns" => &mut roles.administrators,
                _ => {
                    map.next_value::<de::IgnoredAny>()?;
                    roles.others.push(field);
                    continue;
                }
            };
            list.extend(map.next_value::<List>()?.0);
            list.retain(|text| !text.trim().is_empty());
        }
        Ok(roles)
    }
}
