//! What stands in configurations of older servers and means nothing to this one yet.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{error::line_at, file, validate::Check};

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

/// A warning for each of the sections that is there.
pub(super) fn warnings(file: &file::File, check: &Check<'_>) -> Vec<String> {
    let sections = [
        (
            &file.acl,
            "acl",
            "every client with a certificate of the authority may send, receive and declare",
        ),
        (&file.admin, "admin", "there is no administration address"),
        (
            &file.rate_limit,
            "rate_limit",
            "no client is slowed down; [limits] bounds memory and connections",
        ),
        (
            &file.performance,
            "performance",
            "there is nothing to be tuned there",
        ),
    ];
    sections
        .into_iter()
        .filter_map(|(section, name, instead)| {
            let line = line_at(check.text, section.as_ref()?.offset);
            let path = check.path.display();
            Some(format!(
                "{path}, line {line}: [{name}] has no effect yet: {instead}"
            ))
        })
        .collect()
}
