//! Tables for people: a name and a value per line, on standard output.

use std::fmt;

use ciphermq_client::text::Escaped;

use crate::exit::Failure;
use crate::output::stdout;

/// A table of names and values. Control characters are escaped even in a file or a pipe, because
/// tables are read by people.
#[derive(Debug)]
pub(crate) struct Table {
    width: usize,
    text: String,
}

impl Table {
    /// Creates an empty table, with the values in the column `width`.
    pub(crate) fn new(width: usize) -> Self {
        Self {
            width,
            text: String::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, name: &str, value: impl fmt::Display) {
        let (width, value) = (self.width, Escaped(value));
        self.text += &format!("{name:<width$}{value}\n");
    }

    /// Prints the table to standard output.
    ///
    /// # Errors
    ///
    /// [`Failure`] as for [`stdout::print`].
    pub(crate) fn print(self) -> Result<(), Failure> {
        stdout::print(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_on_its_line() {
        let mut table = Table::new(8);
        table.row("server", "a\nclient  b\x1b[2J");
        table.row("tls", 1.3);
        assert_eq!(table.text, "server  a\\nclient  b\\u{1b}[2J\ntls     1.3\n");
    }
}
