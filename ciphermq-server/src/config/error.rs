//! Errors of the configuration, with their location and advice on how to correct them.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use ciphermq_protocol::text::shown;

/// The reason why a configuration is refused.
///
/// The message has two lines: the problem, and the advice. Neither shows the value of a setting
/// that may be secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error(
        "cannot read the configuration file {}: {}\n{}",
        shown(path),
        in_plain_words(source),
        "Name an existing, readable file with --config; the config.toml that comes with CipherMQ \
         works as it is."
    )]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },

    /// The file exceeds the size limit.
    #[error(
        "the configuration file {} is longer than {max_bytes} bytes\n{}",
        shown(path),
        "Name a configuration file with --config, not data or a device."
    )]
    TooLong {
        /// The path of the file.
        path: PathBuf,
        /// The size limit in bytes.
        max_bytes: u64,
    },

    /// The file is not UTF-8.
    #[error(
        "{}, line {line}: the file is not UTF-8 text\nSave the file in UTF-8.",
        shown(path)
    )]
    NotUtf8 {
        /// The path of the file.
        path: PathBuf,
        /// The line of the first invalid byte, counted from 1.
        line: usize,
    },

    /// The file is not TOML, or has an unknown name or a value of the wrong type.
    #[error("{}{}: {problem}\n{advice}", shown(path), LineSuffix(*line))]
    Syntax {
        /// The path of the file.
        path: PathBuf,
        /// The line, counted from 1, if it is known.
        line: Option<usize>,
        /// The first line of the message.
        problem: String,
        /// The second line of the message.
        advice: String,
    },

    /// A setting cannot be used.
    #[error("{origin}: [{section}] {field}: {problem}\n{advice}")]
    Setting {
        /// The location of the setting.
        origin: Origin,
        /// The section, such as `limits`.
        section: &'static str,
        /// The field, such as `max_line_bytes`.
        field: &'static str,
        /// The first line of the message.
        problem: String,
        /// The second line of the message.
        advice: String,
    },

    /// An environment variable has the prefix of a section, but names no field of it.
    #[error("the environment variable {name} is unknown\n{advice}")]
    UnknownVariable {
        /// The name of the variable.
        name: String,
        /// The second line of the message.
        advice: String,
    },

    /// An environment variable is not UTF-8.
    #[error(
        "the environment variable {name} is not UTF-8 text\nSet it to a value in UTF-8, or unset \
         it."
    )]
    VariableNotUtf8 {
        /// The name of the variable.
        name: String,
    },
}

/// Returns the system's error, or what a folder lacks to be a configuration file.
fn in_plain_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::IsADirectory => String::from("it is a folder"),
        _ => error.to_string(),
    }
}

/// The location of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of the configuration file, counted from 1.
    Line(PathBuf, usize),
    /// The name of an environment variable.
    Variable(String),
    /// The configuration file that lacks the setting.
    Missing(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(path, line) => write!(f, "{}, line {line}", shown(path)),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Missing(path) => write!(f, "{}", shown(path)),
        }
    }
}

/// A line number as the end of a location, `, line N`, or nothing.
struct LineSuffix(Option<usize>);

impl fmt::Display for LineSuffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(line) => write!(f, ", line {line}"),
            None => Ok(()),
        }
    }
}

/// Returns the line, counted from 1, of the byte at `offset`.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|&byte| byte == b'\n')
        .count()
}

/// Converts an error of the TOML parser.
///
/// The parser's own text is not shown, since it quotes the line and value at fault, which may
/// contain a password.
pub(super) fn from_toml(error: &toml::de::Error, text: &str, path: &Path) -> Error {
    let message = error.message();
    // The expectation comes from our visitors or the parser, never from the file. It is the last
    // part of the message, after the value found.
    let expected = message
        .rsplit_once(", expected ")
        .map(|(_, expected)| expected);
    let wrong_kind = message.starts_with("invalid type") || message.starts_with("invalid value");
    let field = setting_path(error);
    let (problem, advice) = match (wrong_kind, expected) {
        (true, Some(expected)) => (
            format!("{field}has the wrong kind of value"),
            format!("Write {expected}."),
        ),
        (true, None) => (
            format!("{field}has the wrong kind of value"),
            String::from(GENERAL_ADVICE),
        ),
        (false, Some(expected)) if message.starts_with("unknown field") => {
            let found = message.split('`').nth(1).unwrap_or_default();
            (
                format!("{field}`{}` is unknown", shown(found)),
                format!("Remove it, or correct its name: {expected}."),
            )
        }
        _ => (format!("{field}{message}"), String::from(GENERAL_ADVICE)),
    };
    let line = error.span().map(|span| line_at(text, span.start));
    Error::Syntax {
        path: path.to_owned(),
        line,
        problem,
        advice,
    }
}

const GENERAL_ADVICE: &str =
    "Correct the line; text is in double quotes, and config.toml shows the form of every setting.";

/// Returns the setting at fault as `[section] field: `, or nothing if it is unknown.
fn setting_path(error: &toml::de::Error) -> String {
    // The parser shows the path of keys only if it has no input to quote.
    let mut bare = error.clone();
    bare.set_input(None);
    let shown = bare.to_string();
    let Some(keys) = shown
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("in `")?.strip_suffix('`'))
    else {
        return String::new();
    };
    match keys.split_once('.') {
        Some((section, field)) => format!("[{section}] {field}: "),
        None => format!("[{keys}]: "),
    }
}
