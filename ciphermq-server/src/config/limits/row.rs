//! The limits' rows in `docs/configuration.md`, made from the table.

use std::ops::RangeInclusive;
use std::path::Path;

use super::table;
use crate::config::{file::variable, quantity::Kind};

/// Set to 1, it makes the test below write the documentation instead of comparing it.
const UPDATE: &str = "UPDATE_DOCUMENTATION";

/// The row of one limit.
pub(super) struct Row(String);

impl Row {
    pub(super) fn new<K: Kind, T>(
        field: &str,
        default: T,
        bounds: &RangeInclusive<K::Bound>,
        meaning: &str,
    ) -> Self
    where
        K::Value: TryFrom<T>,
    {
        let default = K::Value::try_from(default).ok().unwrap();
        // Cells of the documentation's tables are no sentences.
        let meaning = meaning.trim().trim_end_matches('.');
        let (first, rest) = meaning.split_at(1);
        let meaning = format!("{}{rest}", first.to_lowercase());
        let (least, most) = (K::show(*bounds.start()), K::show(*bounds.end()));
        Self(format!(
            "| `{field}` | `{}` | {least} to {most} | {meaning} | `{}` |\n",
            K::written(default),
            variable("limits", field)
        ))
    }
}

#[test]
fn the_documentation_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let heading = "| field | default | range | meaning | variable |\n|---|---|---|---|---|\n";
    let (before, rest) = text.split_once(heading).unwrap();
    let end = rest.find("\n\n").map_or(rest.len(), |at| at + 1);
    let (there, after) = rest.split_at(end);
    let rows: String = table::rows().into_iter().map(|Row(row)| row).collect();
    if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
        std::fs::write(&path, format!("{before}{heading}{rows}{after}")).unwrap();
        return;
    }
    assert_eq!(
        there, rows,
        "docs/configuration.md differs from limits/table.rs: with {UPDATE}=1, this test writes it"
    );
}
