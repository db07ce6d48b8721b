//! Standard output and standard error: the program's only access to them.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use ciphermq_crypto::text;
use ciphermq_files::{Need, check_descriptor};

/// Writes the lines of `text` to standard error, with terminal control characters escaped. Write
/// errors are ignored.
#[expect(clippy::disallowed_methods, reason = "the one way to standard error")]
pub(crate) fn lines(text: impl fmt::Display) {
    let _ = io::stderr().lock().write_all(text::lines(text).as_bytes());
}

/// Prints lines on standard output.
///
/// # Errors
///
/// The operating system's error.
#[expect(clippy::disallowed_methods, reason = "the one way to standard output")]
pub(crate) fn print(lines: impl Iterator<Item = String>) -> io::Result<()> {
    check_stdout()?;
    let text: String = lines.map(|line| line + "\n").collect();
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Checks that standard output was open for writing when the program started: Rust's runtime drops
/// what is written to one that was not.
///
/// # Errors
///
/// If it was not.
pub(crate) fn check_stdout() -> io::Result<()> {
    check_descriptor(1, Need::Write)
}

/// Returns the exit code after printing. A closed pipe is no failure: the files were still created.
#[expect(
    clippy::disallowed_methods,
    reason = "it flushes what clap has written"
)]
pub(crate) fn printed(result: io::Result<()>) -> ExitCode {
    match result.and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            lines(format_args!(
                "error: standard output cannot be written: {error}\n\
                 what to do: check where it is redirected to, and that there is free space; all \
                 requested files have been created"
            ));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
