//! Writes that are tried again where the system asks for it.

use std::fs::File;
use std::io::{self, Write};

use rustix::event::{PollFd, PollFlags, poll};

/// Writes as many of `bytes` as the system accepts at once. `None` if the write is to be tried
/// again: it was interrupted, or another process has made the descriptor non-blocking.
///
/// # Errors
///
/// The system's error.
pub(crate) fn write_some(mut out: impl Write, bytes: &[u8]) -> io::Result<Option<usize>> {
    match out.write(bytes) {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(written) => Ok(Some(written)),
        Err(error) => match error.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Ok(None),
            _ => Err(error),
        },
    }
}

/// Writes all of `bytes`, also if another process has made the descriptor non-blocking.
///
/// # Errors
///
/// The system's error.
pub(super) fn write_all(file: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write_some(file, bytes)? {
            Some(written) => bytes = bytes.get(written..).unwrap_or_default(),
            None => {
                poll(&mut [PollFd::new(file, PollFlags::OUT)], None)?;
            }
        }
    }
    Ok(())
}
