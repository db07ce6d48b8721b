//! What people read while the program works, all of it on stderr.
//!
//! ```text
//! [2025-09-08 07:03:00] [SENDER] Server ACK received for message 0198...
//! ```
//!
//! Times are UTC. On a terminal, and without `-v`, a progress bar stands below the lines.

pub(crate) mod pace;
pub(crate) mod stderr;
pub(crate) mod table;

use std::fmt;

use ciphermq_client::text::Escaped;
use indicatif::ProgressBar;
use jiff::Timestamp;

use crate::exit::Failure;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `[SENDER]`
    Sender,
    /// `[RECEIVER]`
    Receiver,
    /// `[CLIENT]`: commands that are neither.
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

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors only.
    Quiet,
    /// What happens to the whole.
    Normal,
    /// And a line or more a message.
    Messages,
    /// And what stands in them, and what the SDK logs.
    Payloads,
    /// And all that the SDK logs.
    Trace,
}

impl Verbosity {
    /// Of `--quiet` and the number of `-v`.
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

/// One speaker's way to standard error.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    role: Role,
    verbosity: Verbosity,
}

impl Console {
    /// Of this speaker.
    pub(crate) fn new(role: Role, verbosity: Verbosity) -> Self {
        Self { role, verbosity }
    }

    /// Shows `bar` below the lines, everybody's, if stderr is a terminal and the lines leave it
    /// room.
    pub(crate) fn with_bar(self, bar: ProgressBar) -> Self {
        if self.verbosity == Verbosity::Normal && stderr::is_terminal() {
            stderr::show_bar(bar);
        }
        self
    }

    /// The progress bar; setting a hidden one does nothing.
    pub(crate) fn bar(&self) -> ProgressBar {
        stderr::bar()
    }

    /// Whether lines a message are wanted: where they aren't, none need be made.
    pub(crate) fn tells_messages(&self) -> bool {
        self.verbosity >= Verbosity::Messages
    }

    /// Whether payloads may be shown.
    pub(crate) fn tells_payloads(&self) -> bool {
        self.verbosity >= Verbosity::Payloads
    }

    /// Something about the whole, told unless quiet.
    pub(crate) fn say(&self, text: impl fmt::Display) {
        if self.verbosity >= Verbosity::Normal {
            self.line(&text);
        }
    }

    /// Something to know or to do next, told unless quiet, as it is: it is about no moment.
    pub(crate) fn hint(&self, text: impl fmt::Display) {
        if self.verbosity >= Verbosity::Normal {
            stderr::line(text);
        }
    }

    /// Something about one message, told with `-v`.
    pub(crate) fn message(&self, text: impl fmt::Display) {
        if self.tells_messages() {
            self.line(&text);
        }
    }

    /// Something that went wrong without ending the work; told even when quiet.
    pub(crate) fn warn(&self, text: impl fmt::Display) {
        self.line(&format_args!("Warning: {text}"));
    }

    fn line(&self, text: &dyn fmt::Display) {
        stderr::line(stamped(Timestamp::now(), self.role, text));
    }
}

/// Tells why the program ends: what happened, and below it what to do.
pub(crate) fn error(failure: &Failure) {
    stderr::clear_bar();
    stderr::lines(format_args!("error: {failure}"));
}

/// Something to mend that ends nothing, about no moment and by no speaker: told even when quiet.
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

/// So many messages: `1 message`, `17518 messages`. Numbers have one form wherever they stand:
/// their digits.
pub(crate) struct Messages(pub(crate) u64);

impl Messages {
    /// The verb that goes with them.
    pub(crate) fn verb(&self, of_one: &'static str, of_many: &'static str) -> &'static str {
        if self.0 == 1 { of_one } else { of_many }
    }
}

impl fmt::Display for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = self.verb("message", "messages");
        write!(f, "{} {noun}", self.0)
    }
}

/// So many bytes, in words.
pub(crate) struct Bytes(pub(crate) u64);

impl Bytes {
    /// The verb that goes with them.
    pub(crate) fn verb(&self, of_one: &'static str, of_many: &'static str) -> &'static str {
        if self.0 == 1 { of_one } else { of_many }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = self.verb("byte", "bytes");
        write!(f, "{} {noun}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_is_one() {
        let texts = [0, 1, 2, 1000].map(|count| Messages(count).to_string());
        assert_eq!(
            texts,
            ["0 messages", "1 message", "2 messages", "1000 messages"]
        );
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
    fn what_comes_from_elsewhere_stays_in_its_line() {
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
