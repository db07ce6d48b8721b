//! Exit codes, and errors with advice.

use std::fmt;
use std::io;
use std::process::ExitCode;

use ciphermq_client::error::Kind;
use ciphermq_client::keys;
use ciphermq_client::text::{Escaped, one_full_stop};
use ciphermq_files::advice;

/// The exit codes and their meanings, as `--help` and docs/cli.md list them.
pub(crate) const CODES: [(&str, &str); 7] = [
    ("0", "done"),
    ("1", "an error; stderr says what happened and what to do"),
    (
        "2",
        "the command line or the configuration file cannot be used",
    ),
    (
        "3",
        "something stayed unacknowledged; its message ids are listed",
    ),
    (
        "4",
        "there was less than requested: an empty queue, no such key, an idle end before --count",
    ),
    ("5", "the server's rules do not allow it (`can-i`)"),
    (
        "129, 130, 143",
        "ended by SIGHUP, SIGINT or SIGTERM before the work was done",
    ),
];

/// The outcome of a command, which determines the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Done,
    /// An error.
    Error,
    /// The command line or the configuration file cannot be used. clap uses the same code.
    Usage,
    /// Some messages stayed unacknowledged.
    Unacknowledged,
    /// There was less than requested.
    Less,
    /// The server's rules do not allow it.
    NotAllowed,
    /// A signal ended the program before the work was done.
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
    /// Returns the exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Unacknowledged => 3,
            Self::Less => 4,
            Self::NotAllowed => 5,
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

/// An error for people: what happened, what to do, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    what: String,
    advice: Option<String>,
    exit: Exit,
}

impl Failure {
    /// Creates an error with advice. The exit code is 1.
    pub(crate) fn new(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            what: one_full_stop(what.into()),
            advice: Some(advice.into()),
            exit: Exit::Error,
        }
    }

    /// Creates an error without advice, for problems that a user can only retry.
    pub(crate) fn plain(what: impl Into<String>) -> Self {
        Self {
            what: one_full_stop(what.into()),
            advice: None,
            exit: Exit::Error,
        }
    }

    /// Creates an error of the command line or the configuration file. The exit code is 2.
    pub(crate) fn usage(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::new(what, advice)
        }
    }

    /// Changes the exit code.
    pub(crate) fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// Converts an error of writing to stdout; `None` if its reader has closed the pipe, which is
    /// not an error.
    pub(crate) fn stdout(error: &io::Error) -> Option<Self> {
        (error.kind() != io::ErrorKind::BrokenPipe).then(|| {
            Self::new(
                format!("Standard output cannot be written: {error}."),
                advice(error).unwrap_or("Check where it is redirected to."),
            )
        })
    }

    /// Formats both parts on one line, for warnings.
    pub(crate) fn in_one_line(&self) -> String {
        let advice = self.advice.iter().flat_map(|advice| advice.lines());
        let parts: Vec<&str> = std::iter::once(self.what.as_str()).chain(advice).collect();
        parts.join(" ")
    }

    /// Formats both parts, the advice below the error, as a part of a combined failure.
    pub(crate) fn text(&self) -> String {
        match &self.advice {
            Some(advice) => format!("{}\n{advice}", self.what),
            None => self.what.clone(),
        }
    }

    /// Returns the outcome that determines the exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

/// Formats both parts as they are printed after `error: `, with control characters escaped.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.what))?;
        for line in self.advice.iter().flat_map(|advice| advice.lines()) {
            write!(f, "\n       {}", Escaped(line))?;
        }
        Ok(())
    }
}

/// Converts an error of the SDK, which has advice already.
impl<K: Kind> From<ciphermq_client::error::Error<K>> for Failure {
    fn from(error: ciphermq_client::error::Error<K>) -> Self {
        Self {
            what: one_full_stop(error.to_string()),
            advice: error.advice().map(str::to_owned),
            exit: Exit::Error,
        }
    }
}

/// Converts an error of a key file, with its advice.
pub(crate) fn key_file_failure(error: keys::KeyFileError) -> Failure {
    Failure::new(sentence(&error.to_string()), sentence(&error.advice()))
}

/// Converts a library's lower-case text to a sentence. Paths and commands stay as they are.
pub(crate) fn sentence(text: &str) -> String {
    let mut sentence = text.to_owned();
    let first_word = text.split(' ').next().unwrap_or_default();
    if !first_word.contains(['/', '.', '_'])
        && let Some(first) = sentence.get_mut(..1)
    {
        first.make_ascii_uppercase();
    }
    if !text.starts_with("run: ") && !sentence.ends_with(['.', '!', '?', ':', '`']) {
        sentence.push('.');
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_error_and_the_advice_below_it() {
        let failure = Failure::new("It broke.", "Fix it.\nThen run it again.");
        assert_eq!(
            failure.to_string(),
            "It broke.\n       Fix it.\n       Then run it again."
        );
        assert_eq!(failure.exit().code(), 1);
        assert_eq!(Failure::usage("a", "b").exit().code(), 2);
        assert_eq!(Failure::plain("It broke.").to_string(), "It broke.");
        assert_eq!(
            failure.in_one_line(),
            "It broke. Fix it. Then run it again."
        );
        let forged = Failure::new("refused: \x1b[2Ja\nerror: b..", "Fix it.");
        assert_eq!(
            forged.to_string(),
            "refused: \\u{1b}[2Ja\\nerror: b.\n       Fix it."
        );
    }

    #[test]
    fn exit_codes_are_documented() {
        let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(manifest.join("../docs/cli.md")).unwrap();
        let (_, section) = text.split_once("### Exit codes\n").unwrap();
        let is_row = |line: &&str| line.starts_with('|');
        let table = section.lines().skip_while(|line| !is_row(line));
        let rows = table.take_while(is_row).skip(2).map(str::to_owned);
        let expected = CODES.map(|(codes, meaning)| format!("| {codes} | {meaning} |"));
        assert_eq!(rows.collect::<Vec<_>>(), expected);
        let all = [
            Exit::Done,
            Exit::Error,
            Exit::Usage,
            Exit::Unacknowledged,
            Exit::Less,
            Exit::NotAllowed,
            Exit::Signalled(Signal::Hangup),
            Exit::Signalled(Signal::Interrupt),
            Exit::Signalled(Signal::Terminate),
        ];
        let listed = CODES.iter().flat_map(|(codes, _)| codes.split(", "));
        assert!(listed.eq(all.map(|exit| exit.code().to_string())));
    }

    #[test]
    fn a_closed_pipe_is_not_a_failure() {
        assert!(Failure::stdout(&io::ErrorKind::BrokenPipe.into()).is_none());
        assert!(Failure::stdout(&io::ErrorKind::StorageFull.into()).is_some());
    }

    #[test]
    fn texts_of_libraries_become_sentences() {
        assert_eq!(
            sentence("there is no key file x"),
            "There is no key file x."
        );
        assert_eq!(sentence("run: chmod 600 a.key"), "Run: chmod 600 a.key");
        assert_eq!(
            sentence("certs/ca.key exists already"),
            "certs/ca.key exists already."
        );
        assert_eq!(sentence("`x` is no name"), "`x` is no name.");
    }
}
