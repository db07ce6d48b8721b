//! The limits' rows in `docs/configuration.md`, generated from the table.

use std::ops::RangeInclusive;
use std::path::Path;

use super::{client, table};
use crate::config::{quantity::QuantityKind, section::variable};

/// The environment variable that, set to 1, makes the test write the documentation instead of
/// comparing it.
const UPDATE: &str = "UPDATE_DOCUMENTATION";

/// The documentation of one limit, as a row of a Markdown table.
pub(super) struct Row(String);

impl Row {
    pub(super) fn new<K: QuantityKind, T>(
        (section, field): (&str, &str),
        default: T,
        bounds: &RangeInclusive<K::Bound>,
        meaning: &str,
    ) -> Self
    where
        K::Value: TryFrom<T>,
    {
        let default = K::Value::try_from(default).ok().unwrap();
        // The table's cells begin in lower case and have no full stop.
        let meaning = meaning.trim().trim_end_matches('.');
        let (first, rest) = meaning.split_at(1);
        let meaning = format!("{}{rest}", first.to_lowercase());
        let (min, max) = (K::format(*bounds.start()), K::format(*bounds.end()));
        Self(format!(
            "| `{field}` | `{}` | {min} to {max} | {meaning} | `{}` |\n",
            K::to_toml(default),
            variable(section, field)
        ))
    }
}

#[test]
fn documentation_matches_the_tables() {
    check("## `[limits]`\n", &table::rows());
    check("## `[limits.client]`\n", &client::rows());
}

/// Compares the table of a section with its rows.
fn check(section: &str, rows: &[Row]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let heading = "| field | default | range | meaning | variable |\n|---|---|---|---|---|\n";
    let table = text.find(section).and_then(|at| {
        let below = text.get(at..)?.find(heading)?;
        Some(at + below + heading.len())
    });
    let (before, rest) = text.split_at(table.unwrap());
    let end = rest.find("\n\n").map_or(rest.len(), |at| at + 1);
    let (documented, after) = rest.split_at(end);
    let rows: String = rows.iter().map(|Row(row)| row.as_str()).collect();
    if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
        std::fs::write(&path, format!("{before}{rows}{after}")).unwrap();
        return;
    }
    assert_eq!(
        documented, rows,
        "docs/configuration.md differs from config/limits: run this test with {UPDATE}=1"
    );
}
