//! Standard output and standard error: the program's one way to each.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use ciphermq_crypto::text::Escaped;

/// Writes lines on standard error: those that `text` has, each with what steers terminals escaped.
/// Nothing ends because nobody can read them.
#[expect(clippy::disallowed_methods, reason = "the one way to standard error")]
pub(crate) fn lines(text: impl fmt::Display) {
    let text = text.to_string();
    let lines = text.trim_end_matches('\n').split('\n');
    let lines: String = lines.map(|line| format!("{}\n", Escaped(line))).collect();
    let _ = io::stderr().lock().write_all(lines.as_bytes());
}

/// Prints lines on standard output.
///
/// # Errors
///
/// As the system says.
#[expect(clippy::disallowed_methods, reason = "the one way to standard output")]
pub(crate) fn print(lines: impl Iterator<Item = String>) -> io::Result<()> {
    let text: String = lines.map(|line| line + "\n").collect();
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// How the program ends after it has printed. Whoever reads may stop reading: that the files are
/// made is not less true.
#[expect(
    clippy::disallowed_methods,
    reason = "what clap has written there goes out"
)]
pub(crate) fn printed(result: io::Result<()>) -> ExitCode {
    match result.and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            lines(format_args!(
                "error: standard output cannot be written: {error}\n\
                 what to do: check where it leads, and that there is room; files that were to be \
                 made are made"
            ));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
