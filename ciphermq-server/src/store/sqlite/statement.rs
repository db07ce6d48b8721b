//! Statements of many rows at once: `VALUES (?, ?), (?, ?), ...`.
//!
//! Each text is prepared once and kept by the connection, so there are few of them: any number of rows is
//! made up of pieces of a few fixed sizes.

use std::sync::Arc;

use sqlx::AssertSqlSafe;

/// Largest first. SQLite takes up to 32,766 parameters; beyond 100 rows a statement gains nothing.
const SIZES: [usize; 4] = [100, 20, 5, 1];

/// One statement in all its sizes.
pub(super) struct MultiRow {
    sizes: Vec<(usize, Arc<str>)>,
}

impl MultiRow {
    /// The statement `before VALUES rows after`, with rows of so many columns.
    pub(super) fn new(before: &str, columns: usize, after: &str) -> Self {
        let row = format!("({})", vec!["?"; columns].join(", "));
        let text = |rows: usize| format!("{before} VALUES {} {after}", vec![row.as_str(); rows].join(", "));
        Self {
            sizes: SIZES.iter().map(|&rows| (rows, text(rows).into())).collect(),
        }
    }

    /// Cuts the items into pieces, each with the statement for its size.
    pub(super) fn pieces<'a, T>(
        &'a self,
        mut items: &'a [T],
    ) -> impl Iterator<Item = (AssertSqlSafe<Arc<str>>, &'a [T])> {
        std::iter::from_fn(move || {
            let (rows, text) = self.sizes.iter().find(|(rows, _)| *rows <= items.len())?;
            let (piece, rest) = items.split_at_checked(*rows)?;
            items = rest;
            // Built from constants and question marks alone.
            Some((AssertSqlSafe(Arc::clone(text)), piece))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::SqlSafeStr as _;

    #[test]
    fn pieces_have_the_fixed_sizes_and_hold_everything_in_order() {
        let statement = MultiRow::new("INSERT INTO t", 2, "RETURNING a");
        for count in [0, 1, 5, 7, 99, 100, 101, 526] {
            let items: Vec<usize> = (0..count).collect();
            let mut seen = Vec::new();
            for (text, piece) in statement.pieces(&items) {
                assert!(SIZES.contains(&piece.len()));
                assert_eq!(
                    text.into_sql_str().as_str().matches("(?, ?)").count(),
                    piece.len()
                );
                seen.extend_from_slice(piece);
            }
            assert_eq!(seen, items);
        }
    }
}
