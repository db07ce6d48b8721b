//! The section `[authorization]`, and its rules.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use ciphermq_protocol::text::shown;
use serde::Deserialize;

use super::{
    Error,
    acl::AclSection,
    section::Section,
    setting::{Blank as _, List, Location, Setting, Text},
    validator::Validator,
};
use crate::authorization::{Action, Effect, Pattern, PatternError, Policy, Rule, Template};

/// The longest name of a rule, in characters: refusals quote it.
const MAX_NAME: usize = 200;

/// The section `[authorization]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a section: its name in brackets, its fields below"
)]
pub(super) struct Authorization {
    default: Option<Setting<Text>>,
    administrators: Option<Setting<List>>,
    rules: Vec<Setting<RuleSection>>,
}

/// An element of `[[authorization.rules]]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a rule: [[authorization.rules]], and its fields below"
)]
struct RuleSection {
    name: Option<Setting<Text>>,
    clients: Option<Setting<List>>,
    allow: Option<Setting<List>>,
    deny: Option<Setting<List>>,
    queues: Option<Setting<List>>,
    exchanges: Option<Setting<List>>,
    routing_keys: Option<Setting<List>>,
    receivers: Option<Setting<List>>,
}

impl Section for Authorization {
    const NAME: &'static str = "authorization";
    const FIELDS: &'static [&'static str] = &["default", "administrators"];

    fn drop_blanks(&mut self) {
        self.default.take_if(|setting| setting.value.is_blank());
        self.administrators
            .take_if(|setting| setting.value.0.is_empty());
    }

    fn set(&mut self, field: &str, value: String, variable: &str) -> bool {
        let location = Location::Variable(variable.to_owned());
        match field {
            "default" => {
                let value = Text(value);
                self.default = Some(Setting { value, location });
            }
            "administrators" => {
                let value = List::from(value);
                self.administrators = Some(Setting { value, location });
            }
            _ => return false,
        }
        true
    }
}

impl Authorization {
    /// Returns the location of a setting that is written, if any is.
    fn location(&self) -> Option<&Location> {
        let default = self.default.as_ref().map(|setting| &setting.location);
        let administrators = self.administrators.as_ref();
        let rule = self.rules.first();
        default
            .or(administrators.map(|setting| &setting.location))
            .or(rule.map(|rule| &rule.location))
    }
}

/// Checks the section, and returns the policy: its own, or that of the older section `[acl]`.
///
/// # Errors
///
/// [`Error::Setting`] for a word, a pattern or an action that cannot be used, for a rule that is
/// not one, and if both sections are there.
pub(super) fn validate(
    section: &Authorization,
    acl: Option<&AclSection>,
    validator: &Validator<'_>,
    warnings: &mut Vec<String>,
) -> Result<Policy, Error> {
    if let Some(acl) = acl.filter(|acl| acl.has_meaning()) {
        let Some(location) = section.location() else {
            return Ok(acl.policy(validator, warnings));
        };
        return Err(validator.invalid(
            ("authorization", "rules"),
            Some(location),
            "[acl] is set as well",
            "Write the roles of [acl] as rules of [authorization], and remove [acl].",
        ));
    }
    let default = validator.choice(
        ("authorization", "default"),
        section.default.as_ref(),
        Effect::Allow,
        |text| {
            Some(match text {
                "allow" => Effect::Allow,
                "deny" => Effect::Deny,
                _ => return None,
            })
        },
        "allow or deny",
    )?;
    let administrators = section
        .administrators
        .as_ref()
        .map_or(Ok(Vec::new()), |list| {
            let parse = |text: &String| {
                Pattern::parse(text).map_err(|error| {
                    let name = ("authorization", "administrators");
                    let problem = format!("`{}`: {error}", shown(text));
                    validator.invalid(name, Some(&list.location), problem, error.advice())
                })
            };
            list.value.0.iter().map(parse).collect()
        })?;
    let mut rules = Vec::with_capacity(section.rules.len());
    let mut names = HashSet::new();
    for written in &section.rules {
        let reader = RuleReader::new(written, validator)?;
        if !names.insert(reader.name.clone()) {
            let location = written.value.name.as_ref().map(|name| &name.location);
            let problem = "another rule has this name, which refusals quote";
            return Err(reader.invalid(location, problem, "Give each rule a name of its own."));
        }
        rules.push(reader.rule()?);
    }
    Ok(Policy {
        default,
        administrators,
        rules,
    })
}

/// Checks one rule.
struct RuleReader<'a> {
    written: &'a Setting<RuleSection>,
    validator: &'a Validator<'a>,
    name: String,
}

impl<'a> RuleReader<'a> {
    fn new(written: &'a Setting<RuleSection>, validator: &'a Validator<'a>) -> Result<Self, Error> {
        let name = written.value.name.as_ref();
        let text = name.map(|name| name.value.0.trim()).unwrap_or_default();
        let reader = Self {
            written,
            validator,
            name: text.to_owned(),
        };
        let location = name.map(|name| &name.location);
        if text.is_empty() {
            let advice = "Write name = \"...\" below [[authorization.rules]]: refusals quote it.";
            return Err(reader.invalid(location, "it has no name", advice));
        }
        if text.chars().count() > MAX_NAME || text.chars().any(char::is_control) {
            let problem = format!("its name is not a line of at most {MAX_NAME} characters");
            return Err(reader.invalid(location, problem, "Give it a short name."));
        }
        Ok(reader)
    }

    fn rule(&self) -> Result<Rule, Error> {
        let written = &self.written.value;
        let rule = Rule {
            name: Arc::from(self.name.as_str()),
            clients: self.patterns("clients", written.clients.as_ref(), Pattern::parse)?,
            allow: self.actions("allow", written.allow.as_ref())?,
            deny: self.actions("deny", written.deny.as_ref())?,
            queues: self.patterns("queues", written.queues.as_ref(), Template::parse)?,
            exchanges: self.patterns("exchanges", written.exchanges.as_ref(), Template::parse)?,
            routing_keys: self.patterns(
                "routing_keys",
                written.routing_keys.as_ref(),
                Template::parse,
            )?,
            receivers: self.patterns("receivers", written.receivers.as_ref(), Template::parse)?,
        };
        if rule.allow.is_empty() && rule.deny.is_empty() {
            let advice = format!("Write allow = [...] or deny = [...] with {}.", actions());
            return Err(self.invalid(None, "it neither allows nor denies anything", advice));
        }
        if let Some(action) = rule.allow.intersection(&rule.deny).next() {
            let location = written.deny.as_ref().map(|list| &list.location);
            let problem = format!("it allows and denies `{action}`");
            return Err(self.invalid(location, problem, "Keep one of the two."));
        }
        self.check_lists(&rule)?;
        Ok(rule)
    }

    /// Refuses a list that no action of the rule is about.
    fn check_lists(&self, rule: &Rule) -> Result<(), Error> {
        use Action::{Bind, Consume, Declare, Delete, Publish, ReadKeys};
        let written = &self.written.value;
        let lists: [(&str, _, &[Action]); 4] = [
            ("queues", &written.queues, &[Consume, Declare, Bind, Delete]),
            (
                "exchanges",
                &written.exchanges,
                &[Publish, Declare, Bind, Delete],
            ),
            ("routing_keys", &written.routing_keys, &[Publish, Bind]),
            ("receivers", &written.receivers, &[Publish, ReadKeys]),
        ];
        for (field, list, about) in lists {
            let Some(list) = list else { continue };
            let is_about = |action: &Action| about.contains(action);
            if !rule.allow.union(&rule.deny).any(is_about) {
                let about: Vec<_> = about.iter().map(|action| action.as_str()).collect();
                let problem = format!("{field} has no meaning for its actions");
                let advice = format!("Remove it; it is for {}.", about.join(", "));
                return Err(self.invalid(Some(&list.location), problem, advice));
            }
        }
        Ok(())
    }

    fn patterns<T>(
        &self,
        field: &str,
        list: Option<&Setting<List>>,
        parse: fn(&str) -> Result<T, PatternError>,
    ) -> Result<Option<Vec<T>>, Error> {
        let Some(list) = self.filled(field, list)? else {
            return Ok(None);
        };
        let parse = |text: &String| {
            parse(text).map_err(|error| {
                let problem = format!("{field}: `{}`: {error}", shown(text));
                self.invalid(Some(&list.location), problem, error.advice())
            })
        };
        list.value
            .0
            .iter()
            .map(parse)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn actions(
        &self,
        field: &str,
        list: Option<&Setting<List>>,
    ) -> Result<BTreeSet<Action>, Error> {
        let Some(list) = self.filled(field, list)? else {
            return Ok(BTreeSet::new());
        };
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                let problem = format!("{field}: `{}` is not an action", shown(text));
                let advice = format!("Write some of {}.", actions());
                self.invalid(Some(&list.location), problem, advice)
            })
        };
        list.value.0.iter().map(parse).collect()
    }

    /// Refuses an empty list, which could mean everything or nothing.
    fn filled<'l>(
        &self,
        field: &str,
        list: Option<&'l Setting<List>>,
    ) -> Result<Option<&'l Setting<List>>, Error> {
        match list {
            Some(list) if list.value.0.is_empty() => Err(self.invalid(
                Some(&list.location),
                format!("{field} is empty"),
                "Leave it out if everything is meant; remove the rule if nothing is.",
            )),
            list => Ok(list),
        }
    }

    fn invalid(
        &self,
        location: Option<&Location>,
        problem: impl fmt::Display,
        advice: impl Into<String>,
    ) -> Error {
        let problem = match self.name.is_empty() {
            true => problem.to_string(),
            false => format!("the rule `{}`: {problem}", shown(&self.name)),
        };
        let location = location.unwrap_or(&self.written.location);
        let name = ("authorization", "rules");
        self.validator
            .invalid(name, Some(location), problem, advice)
    }
}

fn actions() -> String {
    Action::ALL.map(Action::as_str).join(", ")
}
