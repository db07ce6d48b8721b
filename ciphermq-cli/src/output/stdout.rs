//! Standard output: the one way to it. It holds data.
//!
//! In a file or a pipe data stays byte for byte. On a terminal what would steer it is escaped
//! ([`data_for_terminal`]), and a progress bar makes way.
//!
//! A standard output that is closed must be an error: what is written to it is nowhere. But before
//! `main` Rust's runtime opens `/dev/null` in its place, which takes everything, so that nobody
//! could tell any more. Whether it is open is asked before that.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use ciphermq_client::text::data_for_terminal;

use crate::console::stderr;
use crate::exit::Failure;

/// It was closed when the program began.
static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// What the loader calls before Rust's runtime begins.
#[cfg(target_os = "linux")]
// SAFETY: the section holds pointers to functions of just this kind. This one asks the system for
// one descriptor's flags and sets a flag of its own: it needs nothing of the runtime.
#[expect(
    unsafe_code,
    reason = "there is no safe way to be earlier than the runtime"
)]
#[unsafe(link_section = ".init_array")]
#[used]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn look() {
        let asked = rustix::io::fcntl_getfd(rustix::stdio::stdout());
        WAS_CLOSED.store(asked == Err(rustix::io::Errno::BADF), Ordering::Relaxed);
    }
    look
};

/// Sees to it that there is a standard output, before anything is done for it.
///
/// # Errors
///
/// [`Failure`] if it was closed.
pub(crate) fn check() -> Result<(), Failure> {
    is_open().map_err(|error| {
        Failure::new(
            format!("Standard output cannot be written: {error}."),
            "Let it lead somewhere, if only to /dev/null.",
        )
    })
}

fn is_open() -> io::Result<()> {
    match WAS_CLOSED.load(Ordering::Relaxed) {
        true => Err(io::Error::other("it is closed")),
        false => Ok(()),
    }
}

/// Writes data, all of it.
///
/// # Errors
///
/// As the system says.
#[expect(clippy::disallowed_methods, reason = "the one way to standard output")]
pub(crate) fn write(data: &[u8]) -> io::Result<()> {
    is_open()?;
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
    check()?;
    match write(data.as_ref()) {
        Ok(()) => Ok(()),
        Err(error) => Failure::stdout(&error).map_or(Ok(()), Err),
    }
}
