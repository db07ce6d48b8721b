//! What a command has found out, for people: a name and a value a line, on standard output.

use std::fmt;

use ciphermq_client::text::Escaped;

use crate::exit::Failure;
use crate::output::stdout;

/// Lines of a name and a value. What others chose is escaped, wherever the lines go: who reads them
/// is a person.
#[derive(Debug)]
pub(crate) struct Table {
    width: usize,
    text: String,
}

impl Table {
    /// An empty one, with the values in this column.
    pub(crate) fn new(width: usize) -> Self {
        Self {
            width,
            text: String::new(),
        }
    }

    /// Adds a line.
    pub(crate) fn row(&mut self, name: &str, value: impl fmt::Display) {
        let (width, value) = (self.width, Escaped(value));
        self.text += &format!("{name:<width$}{value}\n");
    }

    /// Prints it.
    ///
    /// # Errors
    ///
    /// [`Failure`] as [`stdout::print`].
    pub(crate) fn print(self) -> Result<(), Failure> {
        stdout::print(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_in_its_line() {
        let mut table = Table::new(8);
        table.row("server", "a\nclient  b\x1b[2J");
        table.row("tls", 1.3);
        assert_eq!(table.text, "server  a\\nclient  b\\u{1b}[2J\ntls     1.3\n");
    }
}
