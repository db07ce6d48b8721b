//! Sections of older servers' configurations that have no effect yet.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{Origin, section::PREFIX, setting::Location, validator::Validator};

/// A section with any content, since files of older servers must be accepted unchanged.
#[derive(Debug)]
pub(super) struct OlderSection {
    /// The byte offset of the section in the file.
    pub(super) offset: usize,
}

impl<'de> Deserialize<'de> for OlderSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<IgnoredTable>::deserialize(deserializer)?;
        Ok(Self {
            offset: spanned.span().start,
        })
    }
}

struct IgnoredTable;

impl<'de> Deserialize<'de> for IgnoredTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(IgnoredTableVisitor)
    }
}

struct IgnoredTableVisitor;

impl<'de> de::Visitor<'de> for IgnoredTableVisitor {
    type Value = IgnoredTable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section: its name in brackets, its fields below")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<IgnoredTable, A::Error> {
        while map
            .next_entry::<de::IgnoredAny, de::IgnoredAny>()?
            .is_some()
        {}
        Ok(IgnoredTable)
    }
}

/// The older sections, each with the behaviour of this server instead.
pub(super) const SECTIONS: [(&str, &str); 4] = [
    (
        "acl",
        "roles are read from the file, and only if it names clients",
    ),
    ("admin", "there is no administration address"),
    (
        "rate_limit",
        "clients are not rate-limited; [limits] bounds memory and connections",
    ),
    ("performance", "there is nothing to tune"),
];

/// Returns the older section of an environment variable, with the behaviour instead.
///
/// `variable` is the name without its prefix.
pub(super) fn section_of(variable: &str) -> Option<(&'static str, &'static str)> {
    let variable = variable.to_ascii_lowercase();
    let is_in = |section: &str| {
        variable
            .strip_prefix(section)
            .is_some_and(|rest| rest.starts_with('_'))
    };
    SECTIONS.into_iter().find(|(section, _)| is_in(section))
}

/// Returns a warning for each older section that has no effect, by the offsets of those in the
/// file in the order of [`SECTIONS`], and for each variable of one.
pub(super) fn warnings(
    found: [Option<usize>; 4],
    variables: &[String],
    validator: &Validator<'_>,
) -> Vec<String> {
    let sections = SECTIONS.into_iter().zip(found);
    let sections = sections.filter_map(|(section, found)| {
        let location = Location::Offset(found?);
        Some((validator.origin(Some(&location)), section))
    });
    let variables = variables.iter().filter_map(|name| {
        let section = section_of(name.strip_prefix(PREFIX)?)?;
        Some((Origin::Variable(name.clone()), section))
    });
    sections
        .chain(variables)
        .map(|(origin, (name, behaviour))| {
            format!("{origin}: [{name}] has no effect yet: {behaviour}")
        })
        .collect()
}
