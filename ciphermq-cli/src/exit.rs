//! How the program ends: exit codes, and errors in two parts.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | an error; stderr says what happened and what to do |
//! | 2 | the command line or the configuration file cannot be used |
//! | 3 | something stayed unacknowledged; its message ids are listed |
//! | 4 | there was less than was asked for: an empty queue, no such key, an idle end before `--count` |
//! | 129, 130, 143 | ended by SIGHUP, SIGINT or SIGTERM before the work was done |

use std::fmt;
use std::io;
use std::process::ExitCode;

use ciphermq_client::error::Kind;
use ciphermq_client::text::{Escaped, one_full_stop};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All done.
    Done,
    /// An error that has been, or will be, reported.
    Error,
    /// The command line or the configuration file cannot be used. clap ends with the same code.
    Usage,
    /// Something stayed unacknowledged.
    Unacknowledged,
    /// There was less than was asked for.
    Less,
    /// A signal came before the work was done.
    Signalled(Signal),
}

/// The signals that ask a program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGHUP: the terminal was closed.
    Hangup,
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Unacknowledged => 3,
            Self::Less => 4,
            Self::Signalled(Signal::Hangup) => 129,
            Self::Signalled(Signal::Interrupt) => 130,
            Self::Signalled(Signal::Terminate) => 143,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error as a person needs it: what happened, what to do, and the code to end with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    what: String,
    advice: Option<String>,
    exit: Exit,
}

impl Failure {
    /// What happened and what to do.
    pub(crate) fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            what: one_full_stop(what.into()),
            advice: Some(advice.into()),
            exit: Exit::Error,
        }
    }

    /// What happened, where nobody can do anything about it but try again.
    pub(crate) fn plain(what: impl Into<String>) -> Self {
        Self {
            what: one_full_stop(what.into()),
            advice: None,
            exit: Exit::Error,
        }
    }

    /// A mistake on the command line or in the configuration file.
    pub(crate) fn usage(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::new(what, advice)
        }
    }

    /// The same failure with another exit code.
    pub(crate) fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// A failure to write to stdout; nothing if its reader has gone, which is no error: it had
    /// enough.
    pub(crate) fn stdout(error: &io::Error) -> Option<Self> {
        (error.kind() != io::ErrorKind::BrokenPipe).then(|| {
            Self::new(
                format!("Standard output cannot be written: {error}."),
                "Check where it leads, and that there is room.",
            )
        })
    }

    /// Both parts in one line, for where the work goes on.
    pub(crate) fn in_one_line(&self) -> String {
        let advice = self.advice.iter().flat_map(|advice| advice.lines());
        let parts: Vec<&str> = std::iter::once(self.what.as_str()).chain(advice).collect();
        parts.join(" ")
    }

    /// Both parts, the second below the first, for a failure that is made of several.
    pub(crate) fn text(&self) -> String {
        match &self.advice {
            Some(advice) => format!("{}\n{advice}", self.what),
            None => self.what.clone(),
        }
    }

    /// The code to end with.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

/// Both parts, as they are printed after `error: `. Neither makes lines that are not meant.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.what))?;
        for line in self.advice.iter().flat_map(|advice| advice.lines()) {
            write!(f, "\n       {}", Escaped(line))?;
        }
        Ok(())
    }
}

/// The SDK's errors have two parts already.
impl<K: Kind> From<ciphermq_client::error::Error<K>> for Failure {
    fn from(error: ciphermq_client::error::Error<K>) -> Self {
        Self {
            what: one_full_stop(error.to_string()),
            advice: error.advice().map(str::to_owned),
            exit: Exit::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_happened_and_below_it_what_to_do() {
        let failure = Failure::new("It broke.", "Mend it.\nThen run it again.");
        assert_eq!(
            failure.to_string(),
            "It broke.\n       Mend it.\n       Then run it again."
        );
        assert_eq!(failure.exit().code(), 1);
        assert_eq!(Failure::usage("a", "b").exit().code(), 2);
        assert_eq!(Failure::plain("It broke.").to_string(), "It broke.");
        assert_eq!(
            failure.in_one_line(),
            "It broke. Mend it. Then run it again."
        );
        let forged = Failure::new("refused: \x1b[2Ja\nerror: b..", "Mend it.");
        assert_eq!(
            forged.to_string(),
            "refused: \\u{1b}[2Ja\\nerror: b.\n       Mend it."
        );
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        assert!(Failure::stdout(&io::ErrorKind::BrokenPipe.into()).is_none());
        assert!(Failure::stdout(&io::ErrorKind::StorageFull.into()).is_some());
    }
}
