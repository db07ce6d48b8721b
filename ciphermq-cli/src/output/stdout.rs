//! Standard output: the one way to it. It holds data.
//!
//! In a file or a pipe data stays byte for byte. On a terminal what would steer it is escaped
//! ([`data_for_terminal`]), and a progress bar makes way.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use ciphermq_client::text::data_for_terminal;

use crate::console::stderr;
use crate::exit::Failure;

/// Writes data, all of it.
///
/// # Errors
///
/// As the system says.
#[expect(clippy::disallowed_methods, reason = "the one way to standard output")]
pub(crate) fn write(data: &[u8]) -> io::Result<()> {
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

/// Standard output as a file, for those who must know what becomes of the data.
///
/// # Errors
///
/// As the system says.
#[expect(clippy::disallowed_methods, reason = "the one way to standard output")]
pub(crate) fn file() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// What to write to another output: the data itself, unless it is a terminal.
pub(crate) fn fit_for<'d>(output: &impl io::IsTerminal, data: &'d [u8]) -> Cow<'d, [u8]> {
    if output.is_terminal() {
        data_for_terminal(data)
    } else {
        Cow::Borrowed(data)
    }
}

/// Prints data.
///
/// # Errors
///
/// [`Failure`] if it cannot be written; a reader that has gone is none.
pub(crate) fn print(data: impl AsRef<[u8]>) -> Result<(), Failure> {
    match write(data.as_ref()) {
        Ok(()) => Ok(()),
        Err(error) => Failure::stdout(&error).map_or(Ok(()), Err),
    }
}
