//! What the commands print.

use std::fmt;

/// A line for standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line(pub String);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns a number with its noun.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}

/// Returns how many messages wait.
pub(super) fn waiting(messages: i64) -> String {
    match messages {
        1 => "1 message waits".to_owned(),
        messages => format!("{messages} messages wait"),
    }
}
