//! The only path to standard output, which holds data.
//!
//! In a file or a pipe data stays byte for byte. On a terminal control characters are escaped
//! ([`data_for_terminal`]), and the progress bar is hidden meanwhile.
//!
//! A standard output that was closed, or is open for reading only, is an error: the runtime would
//! drop what is written to it. See [`check_descriptor`].

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use ciphermq_client::text::data_for_terminal;
use ciphermq_files::{Need, check_descriptor};
use serde::Serialize;

use crate::console::stderr;
use crate::exit::Failure;

/// Checks that standard output is open, before work whose results go there.
///
/// # Errors
///
/// [`Failure`] if it was closed when the program started, or is open for reading only.
pub(crate) fn check() -> Result<(), Failure> {
    is_writable().map_err(|error| {
        Failure::new(
            format!("Standard output cannot be written: {error}."),
            "Redirect it, if only to /dev/null.",
        )
    })
}

fn is_writable() -> io::Result<()> {
    check_descriptor(1, Need::Write)
}

/// Writes all of `data`, and flushes.
///
/// # Errors
///
/// The system's error.
#[expect(
    clippy::disallowed_methods,
    reason = "the only path to standard output"
)]
pub(crate) fn write(data: &[u8]) -> io::Result<()> {
    is_writable()?;
    let out = io::stdout();
    if !out.is_terminal() {
        let mut out = out.lock();
        return out.write_all(data).and_then(|()| out.flush());
    }
    let data = data_for_terminal(data);
    stderr::while_hidden(|| {
        let mut out = out.lock();
        out.write_all(&data).and_then(|()| out.flush())
    })
}

/// Returns standard output as a file, for callers that must know whether data was read or synced.
///
/// # Errors
///
/// The system's error.
#[expect(
    clippy::disallowed_methods,
    reason = "the only path to standard output"
)]
pub(crate) fn file() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Escapes control characters in data if `output` is a terminal.
pub(crate) fn escaped_for<'d>(output: &impl io::IsTerminal, data: &'d [u8]) -> Cow<'d, [u8]> {
    if output.is_terminal() {
        data_for_terminal(data)
    } else {
        Cow::Borrowed(data)
    }
}

/// Returns what the server has answered as a line of JSON.
pub(crate) fn json_line(answer: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(answer).map_err(|error| {
        Failure::plain(format!("The server's answer cannot be shown: {error}."))
    })?;
    Ok(json + "\n")
}

/// Prints data. A reader that has closed the pipe is not an error.
///
/// # Errors
///
/// [`Failure`] if the data cannot be written.
pub(crate) fn print(data: impl AsRef<[u8]>) -> Result<(), Failure> {
    check()?;
    match write(data.as_ref()) {
        Ok(()) => Ok(()),
        Err(error) => Failure::stdout(&error).map_or(Ok(()), Err),
    }
}
