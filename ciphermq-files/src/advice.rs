//! What to do about errors of the file system.

use std::fmt;
use std::io;

use crate::descriptor::DescriptorError;

/// The error of a path that must lead to a regular file, and leads to something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotRegular;

impl fmt::Display for NotRegular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is no regular file")
    }
}

impl std::error::Error for NotRegular {}

impl From<NotRegular> for io::Error {
    fn from(error: NotRegular) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// The error of a named pipe that is to be written, and that nobody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoReader;

impl fmt::Display for NoReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is a named pipe that nobody reads")
    }
}

impl std::error::Error for NoReader {}

impl From<NoReader> for io::Error {
    fn from(error: NoReader) -> Self {
        Self::other(error)
    }
}

/// The advice of the errors that this crate defines.
fn own_advice(error: &io::Error) -> Option<&'static str> {
    let error = error.get_ref()?;
    if error.is::<NotRegular>() {
        return Some(
            "It is a folder, a device, a pipe or a descriptor: name a regular file, or one that \
             does not exist yet.",
        );
    }
    if error.is::<NoReader>() {
        return Some("Start its reader first, or name a file.");
    }
    Some(match error.downcast_ref::<DescriptorError>()? {
        DescriptorError::Closed => {
            "No such descriptor is open: open it in the shell (`3< file` for reading, `3>> file` \
             for writing), or name a file."
        }
        DescriptorError::ReadOnly => {
            "Open it for appending, as in `3>> file` or `>> file`, or name the file."
        }
        DescriptorError::WriteOnly => {
            "Open it for reading, as in `3< file` or `< file`, or name the file."
        }
    })
}

/// Returns what to do about an error whose cause is clear from its kind; `None` for other errors.
///
/// The text fits any file, whether it is to be created, opened or written.
#[must_use]
pub fn advice(error: &io::Error) -> Option<&'static str> {
    if let Some(advice) = own_advice(error) {
        return Some(advice);
    }
    if is_not_permitted(error) {
        return Some(
            "The system does not permit it, whatever the file's mode is: the file may be immutable \
             or append-only (`lsattr` shows it), or the process confined.",
        );
    }
    Some(match error.kind() {
        io::ErrorKind::StorageFull => "The disk is full: make room, or use another one.",
        io::ErrorKind::QuotaExceeded => "The disk quota is used up: make room, or have it raised.",
        io::ErrorKind::FileTooLarge => {
            "The limit on the size of files is reached (`ulimit -f`, or the file system's): raise \
             it, or use another file."
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "The file system is mounted read-only: mount it for writing, or use another one."
        }
        io::ErrorKind::ResourceBusy => {
            "The file is a mount point, so it cannot be replaced: mount the folder that it is in \
             instead of the file."
        }
        io::ErrorKind::IsADirectory => "It is a folder: name a file.",
        io::ErrorKind::NotADirectory => {
            "A part of its path is a file, not a folder: check the path."
        }
        io::ErrorKind::InvalidFilename => "Its name is too long: choose a shorter one.",
        _ if is_bad_descriptor(error) => {
            "The descriptor is closed, or open for the other direction only: open it with `3< \
             file` for reading, with `3>> file` for writing."
        }
        _ if is_out_of_descriptors(error) => {
            "Raise the limit of open files (`ulimit -n`), or run fewer programs."
        }
        _ if is_disk_error(error) => {
            "The disk fails: see the system's log (`dmesg`), and do not trust the disk."
        }
        _ => return None,
    })
}

#[cfg(unix)]
fn is_not_permitted(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::PERM)
}

#[cfg(unix)]
fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

#[cfg(unix)]
fn is_bad_descriptor(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::BADF)
}

#[cfg(unix)]
fn is_disk_error(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::IO)
}

#[cfg(not(unix))]
fn is_not_permitted(_: &io::Error) -> bool {
    false
}

#[cfg(not(unix))]
fn is_out_of_descriptors(_: &io::Error) -> bool {
    false
}

#[cfg(not(unix))]
fn is_bad_descriptor(_: &io::Error) -> bool {
    false
}

#[cfg(not(unix))]
fn is_disk_error(_: &io::Error) -> bool {
    false
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn the_advice_fits_the_cause() {
        for (errno, word) in [
            (Errno::NOSPC, "full"),
            (Errno::DQUOT, "quota"),
            (Errno::FBIG, "ulimit -f"),
            (Errno::ROFS, "read-only"),
            (Errno::BUSY, "mount the folder"),
            (Errno::PERM, "immutable"),
            (Errno::MFILE, "ulimit -n"),
            (Errno::BADF, "other direction"),
            (Errno::IO, "disk fails"),
            (Errno::ISDIR, "folder"),
            (Errno::NOTDIR, "path"),
            (Errno::NAMETOOLONG, "shorter"),
        ] {
            let text = advice(&errno.into()).unwrap();
            assert!(text.contains(word), "{errno}: {text}");
        }
        for errno in [Errno::ACCESS, Errno::NOENT] {
            assert_eq!(advice(&errno.into()), None);
        }
        assert_eq!(advice(&io::Error::other("anything")), None);
        for (error, word) in [
            (NotRegular.into(), "folder, a device, a pipe"),
            (NoReader.into(), "reader"),
            (DescriptorError::Closed.into(), "No such descriptor"),
            (DescriptorError::ReadOnly.into(), "3>> file"),
            (DescriptorError::WriteOnly.into(), "3< file"),
        ] {
            let text = advice(&error).unwrap();
            assert!(text.contains(word), "{error}: {text}");
        }
    }
}
