//! The limits' rows in `docs/configuration.md`, generated from the table.

use std::ops::RangeInclusive;
use std::path::Path;

use super::table;
use crate::config::{quantity::QuantityKind, section::variable};

/// The environment variable that, set to 1, makes the test write the documentation instead of
/// comparing it.
const UPDATE: &str = "UPDATE_DOCUMENTATION";

/// The documentation of one limit, as a row of a Markdown table.
pub(super) struct Row(String);

impl Row {
    pub(super) fn new<K: QuantityKind, T>(
        field: &str,
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
            variable("limits", field)
        ))
    }
}

#[test]
fn documentation_matches_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let heading = "| field | default | range | meaning | variable |\n|---|---|---|---|---|\n";
    let (before, rest) = text.split_once(heading).unwrap();
    let end = rest.find("\n\n").map_or(rest.len(), |at| at + 1);
    let (documented, after) = rest.split_at(end);
    let rows: String = table::rows().into_iter().map(|Row(row)| row).collect();
    if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
        std::fs::write(&path, format!("{before}{heading}{rows}{after}")).unwrap();
        return;
    }
    assert_eq!(
        documented, rows,
        "docs/configuration.md differs from limits/table.rs: run this test with {UPDATE}=1"
    );
}
