//! Messages for people while the program runs, all of them on stderr.
//!
//! ```text
//! [2025-09-08 07:03:00] [SENDER] Server ACK received for message 0198...
//! ```
//!
//! Times are UTC. On a terminal, and without `-v`, a progress bar is shown below the lines.

pub(crate) mod columns;
pub(crate) mod rate;
pub(crate) mod stderr;
pub(crate) mod table;

use std::fmt;

use ciphermq_client::text::Escaped;
use indicatif::ProgressBar;
use jiff::Timestamp;

use crate::exit::Failure;

/// The role of the program in a line's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `[SENDER]`
    Sender,
    /// `[RECEIVER]`
    Receiver,
    /// `[CLIENT]`: commands that neither send nor receive.
    Client,
    /// `[DEMO]`
    Demo,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sender => "SENDER",
            Self::Receiver => "RECEIVER",
            Self::Client => "CLIENT",
            Self::Demo => "DEMO",
        })
    }
}

/// The verbosity on standard error. Each level includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors and warnings only.
    Quiet,
    /// The progress of the whole.
    Normal,
    /// A line or more per message.
    Messages,
    /// The payloads of messages, and the SDK's debug log.
    Payloads,
    /// The SDK's complete log.
    Trace,
}

impl Verbosity {
    /// The verbosity for `--quiet` and the number of `-v`.
    pub(crate) fn of(quiet: bool, verbose: u8) -> Self {
        match (quiet, verbose) {
            (true, _) => Self::Quiet,
            (false, 0) => Self::Normal,
            (false, 1) => Self::Messages,
            (false, 2) => Self::Payloads,
            (false, _) => Self::Trace,
        }
    }
}

/// Prints lines with a role's prefix to standard error.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    role: Role,
    verbosity: Verbosity,
}

impl Console {
    pub(crate) fn new(role: Role, verbosity: Verbosity) -> Self {
        Self { role, verbosity }
    }

    /// Shows `bar` below all lines, if stderr is a terminal and the verbosity is normal.
    pub(crate) fn with_bar(self, bar: ProgressBar) -> Self {
        if self.verbosity == Verbosity::Normal && stderr::is_terminal() {
            stderr::show_bar(bar);
        }
        self
    }

    /// The progress bar; a hidden one if none is shown.
    pub(crate) fn bar(&self) -> ProgressBar {
        stderr::bar()
    }

    /// Whether [`message`](Self::message) prints anything.
    pub(crate) fn shows_messages(&self) -> bool {
        self.verbosity >= Verbosity::Messages
    }

    /// Whether payloads may be shown.
    pub(crate) fn shows_payloads(&self) -> bool {
        self.verbosity >= Verbosity::Payloads
    }

    /// Prints a line about the whole, unless quiet.
    pub(crate) fn info(&self, text: impl fmt::Display) {
        if self.verbosity >= Verbosity::Normal {
            self.line(&text);
        }
    }

    /// Prints a hint about what to do next, without a prefix, unless quiet.
    pub(crate) fn hint(&self, text: impl fmt::Display) {
        if self.verbosity >= Verbosity::Normal {
            stderr::line(text);
        }
    }

    /// Prints a line about one message, with `-v`.
    pub(crate) fn message(&self, text: impl fmt::Display) {
        if self.shows_messages() {
            self.line(&text);
        }
    }

    /// Prints a warning about a problem that does not end the program, even when quiet.
    pub(crate) fn warn(&self, text: impl fmt::Display) {
        self.line(&format_args!("Warning: {text}"));
    }

    fn line(&self, text: &dyn fmt::Display) {
        stderr::line(stamped(Timestamp::now(), self.role, text));
    }
}

/// Prints the error that ends the program: what happened, and below it what to do.
pub(crate) fn error(failure: &Failure) {
    stderr::clear_bar();
    stderr::lines(format_args!("error: {failure}"));
}

/// Prints a warning about the configuration, without time and role, even when quiet.
pub(crate) fn warning(text: impl fmt::Display) {
    stderr::line(format_args!("warning: {text}"));
}

fn stamped(now: Timestamp, role: Role, text: &dyn fmt::Display) -> String {
    format!(
        "[{}] [{role}] {}",
        now.strftime("%Y-%m-%d %H:%M:%S"),
        Escaped(text)
    )
}

/// Formats a number with its noun: `1 message`, `17518 messages`, `2 bytes`. Numbers are digits
/// without separators everywhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count {
    number: u64,
    noun: (&'static str, &'static str),
}

impl Count {
    /// A number of messages.
    pub(crate) fn messages(number: u64) -> Self {
        let noun = ("message", "messages");
        Self { number, noun }
    }

    /// A number of bytes.
    pub(crate) fn bytes(number: u64) -> Self {
        let noun = ("byte", "bytes");
        Self { number, noun }
    }

    /// Chooses the singular or the plural of a word.
    pub(crate) fn verb(&self, of_one: &'static str, of_many: &'static str) -> &'static str {
        if self.number == 1 { of_one } else { of_many }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, many) = self.noun;
        write!(f, "{} {}", self.number, self.verb(one, many))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_is_singular() {
        let texts = [0, 1, 2, 1000].map(|count| Count::messages(count).to_string());
        assert_eq!(
            texts,
            ["0 messages", "1 message", "2 messages", "1000 messages"]
        );
        assert_eq!(Count::bytes(1).to_string(), "1 byte");
    }

    #[test]
    fn lines_have_the_documented_form() {
        let at = "2025-09-08T07:03:00.9Z".parse().unwrap();
        assert_eq!(
            stamped(at, Role::Sender, &"Server ACK received for message m-1"),
            "[2025-09-08 07:03:00] [SENDER] Server ACK received for message m-1"
        );
        assert_eq!(
            stamped(at, Role::Receiver, &"Server confirmed ACK"),
            "[2025-09-08 07:03:00] [RECEIVER] Server confirmed ACK"
        );
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        let at = Timestamp::UNIX_EPOCH;
        let line = stamped(at, Role::Receiver, &"a\n[fake] \x1b[31mZürich\u{7f}");
        assert_eq!(
            line,
            "[1970-01-01 00:00:00] [RECEIVER] a\\n[fake] \\u{1b}[31mZürich\\u{7f}"
        );
    }

    #[test]
    fn verbosity_grows_with_each_v_and_quiet_wins() {
        let levels: Vec<_> = (0..5)
            .map(|verbose| Verbosity::of(false, verbose))
            .collect();
        assert!(levels.is_sorted());
        assert_eq!(levels[0], Verbosity::Normal);
        assert_eq!(Verbosity::of(true, 3), Verbosity::Quiet);
    }
}
