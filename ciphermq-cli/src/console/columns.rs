//! Tables for people: named columns, a row per line, on standard output.

use ciphermq_client::text::Escaped;

use crate::exit::Failure;
use crate::output::stdout;

/// A table with a heading. Control characters are escaped even in a file or a pipe, because tables
/// are read by people.
#[derive(Debug)]
pub(crate) struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// Creates a table with these headings.
    pub(crate) fn new(headings: impl IntoIterator<Item = String>) -> Self {
        Self {
            rows: vec![headings.into_iter().collect()],
        }
    }

    /// Adds a row, with a cell for each column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| Escaped(cell).to_string());
        self.rows.push(cells.collect());
    }

    fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let length = |row: &Vec<String>, at: usize| row.get(at).map_or(0, |c| c.chars().count());
        let widths: Vec<usize> = (0..columns)
            .map(|at| {
                self.rows
                    .iter()
                    .map(|row| length(row, at))
                    .max()
                    .unwrap_or_default()
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, &width) in row.iter().zip(&widths) {
                line += &format!("{cell:<width$}  ");
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }

    /// Prints the table to standard output.
    ///
    /// # Errors
    ///
    /// [`Failure`] as for [`stdout::print`].
    pub(crate) fn print(&self) -> Result<(), Failure> {
        stdout::print(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_rows_stay_on_their_lines() {
        let mut table = Columns::new(["queue".to_owned(), "made by".to_owned()]);
        table.row(["a_long_name".to_owned(), "c\n\x1b[2J".to_owned()]);
        table.row(["ü".to_owned(), "-".to_owned()]);
        assert_eq!(
            table.text(),
            "queue        made by\na_long_name  c\\n\\u{1b}[2J\nü            -\n"
        );
    }
}
