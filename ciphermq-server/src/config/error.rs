//! What was wrong with a configuration, where it stands, and how to mend it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Why a configuration was refused.
///
/// The text has two lines: what is wrong, and what to do. Neither ever shows the value of a setting
/// that may be secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error(
        "cannot read the configuration file {}: {source}\n{}",
        path.display(),
        "Name an existing, readable file with --config; the config.toml that comes with CipherMQ \
         works as it is."
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The file goes on for too long to be a configuration.
    #[error(
        "the configuration file {} is longer than {max_bytes} bytes\n{}",
        path.display(),
        "Name a configuration file with --config, not data or a device."
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        max_bytes: u64,
    },

    /// The file is not UTF-8.
    #[error("{}, line {line}: the file is not UTF-8 text\nSave the file in UTF-8.", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The line of the first byte that is no text, counted from 1.
        line: usize,
    },

    /// The file is no TOML, or has a section or field that does not exist, or a value of the wrong
    /// kind.
    #[error("{}{}: {problem}\n{advice}", path.display(), Line(*line))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, where it is known.
        line: Option<usize>,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: String,
    },

    /// A setting cannot be used.
    #[error("{origin}: [{section}] {field}: {problem}\n{advice}")]
    Setting {
        /// Where the setting was made.
        origin: Origin,
        /// The section, such as `limits`.
        section: &'static str,
        /// The field, such as `max_line_bytes`.
        field: &'static str,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: String,
    },

    /// An environment variable begins like one of ours and is none.
    #[error("the environment variable {name} is unknown\n{advice}")]
    UnknownVariable {
        /// Its name.
        name: String,
        /// What to do.
        advice: String,
    },

    /// An environment variable is not UTF-8.
    #[error(
        "the environment variable {name} is not UTF-8 text\nSet it to a value in UTF-8, or unset \
         it."
    )]
    VariableNotText {
        /// Its name.
        name: String,
    },
}

/// Where a setting was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the configuration file, at this line, counted from 1.
    Line(PathBuf, usize),
    /// In this environment variable.
    Variable(String),
    /// Nowhere: it is missing from this file.
    Missing(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(path, line) => write!(f, "{}, line {line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Missing(path) => write!(f, "{}", path.display()),
        }
    }
}

struct Line(Option<usize>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(line) => write!(f, ", line {line}"),
            None => Ok(()),
        }
    }
}

/// The line, counted from 1, in which the byte at `offset` stands.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|&byte| byte == b'\n')
        .count()
}

/// Turns what the TOML reader says into an [`Error`].
///
/// Its own text is not shown as it is: it quotes the offending line and value, which may hold a
/// password.
pub(super) fn syntax(error: &toml::de::Error, text: &str, path: &Path) -> Error {
    let message = error.message();
    // What is expected is our own words or the reader's, and stands last; the value found stands
    // before it.
    let expected = message
        .rsplit_once(", expected ")
        .map(|(_, expected)| expected);
    let wrong_kind = message.starts_with("invalid type") || message.starts_with("invalid value");
    let field = field_of(error);
    let (problem, advice) = match (wrong_kind, expected) {
        (true, Some(expected)) => (
            format!("{field}has the wrong kind of value"),
            format!("Write {expected}."),
        ),
        (true, None) => (
            format!("{field}has the wrong kind of value"),
            String::from(SEE),
        ),
        (false, Some(expected)) if message.starts_with("unknown field") => {
            let found = message.split('`').nth(1).unwrap_or_default();
            (
                format!("{field}there is no `{found}`"),
                format!("Remove it, or correct its name: {expected}."),
            )
        }
        _ => (format!("{field}{message}"), String::from(SEE)),
    };
    let line = error.span().map(|span| line_at(text, span.start));
    Error::Syntax {
        path: path.to_owned(),
        line,
        problem,
        advice,
    }
}

const SEE: &str =
    "Correct the line; texts stand in double quotes, and config.toml shows every setting's form.";

/// The setting that the TOML reader stumbled over, as `[section] field: `, or nothing.
fn field_of(error: &toml::de::Error) -> String {
    // The reader shows the path of keys only in place of the quoted line, so the quoted line must
    // go first.
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
