//! What stands in configurations of older servers and means nothing to this one yet.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{Origin, error::line_at, file, validate::Check};

/// A section whatever stands in it: files with fields that nobody remembers must start, too.
#[derive(Debug)]
pub(super) struct OlderSection {
    /// Where it begins, in bytes.
    offset: usize,
}

impl<'de> Deserialize<'de> for OlderSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Anything>::deserialize(deserializer)?;
        Ok(Self {
            offset: spanned.span().start,
        })
    }
}

struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> de::Visitor<'de> for Fields {
    type Value = Anything;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section: its name in brackets, its fields below")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Anything, A::Error> {
        while map
            .next_entry::<de::IgnoredAny, de::IgnoredAny>()?
            .is_some()
        {}
        Ok(Anything)
    }
}

/// The sections, each with what is so in its place.
const SECTIONS: [(&str, &str); 4] = [
    (
        "acl",
        "every client with a certificate of the authority may send, receive and declare",
    ),
    ("admin", "there is no administration address"),
    (
        "rate_limit",
        "no client is slowed down; [limits] bounds memory and connections",
    ),
    ("performance", "there is nothing to be tuned there"),
];

/// The section of an environment variable, its name without the prefix, and what is so in its
/// place.
pub(super) fn section_of(variable: &str) -> Option<(&'static str, &'static str)> {
    let variable = variable.to_ascii_lowercase();
    let is_of = |section: &str| {
        variable
            .strip_prefix(section)
            .is_some_and(|rest| rest.starts_with('_'))
    };
    SECTIONS.into_iter().find(|(section, _)| is_of(section))
}

/// A warning for each of the sections that is there, and for each variable of one.
pub(super) fn warnings(file: &file::File, check: &Check<'_>) -> Vec<String> {
    let found = [&file.acl, &file.admin, &file.rate_limit, &file.performance];
    let sections = SECTIONS.into_iter().zip(found);
    let sections = sections.filter_map(|(section, found)| {
        let line = line_at(check.text, found.as_ref()?.offset);
        Some((Origin::Line(check.path.to_owned(), line), section))
    });
    let variables = file.older_variables.iter().filter_map(|name| {
        let section = section_of(name.strip_prefix(file::PREFIX)?)?;
        Some((Origin::Variable(name.clone()), section))
    });
    sections
        .chain(variables)
        .map(|(origin, (name, instead))| format!("{origin}: [{name}] has no effect yet: {instead}"))
        .collect()
}
