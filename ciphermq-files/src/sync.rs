//! Syncs files that support it.

use std::fs::File;
use std::io;

/// Syncs a file's contents and metadata; succeeds for pipes, terminals and devices without sync.
///
/// # Errors
///
/// The operating system's error. For a regular file, this includes that it does not support
/// syncing.
pub fn sync_file(file: &File) -> io::Result<()> {
    accept_unsyncable_device(file, file.sync_all())
}

/// Syncs a file's contents and length, but not its other metadata; otherwise as [`sync_file`].
///
/// # Errors
///
/// As for [`sync_file`].
pub fn sync_data(file: &File) -> io::Result<()> {
    accept_unsyncable_device(file, file.sync_data())
}

/// Turns the error of a device or pipe that does not support syncing into success.
fn accept_unsyncable_device(file: &File, outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if is_sync_unsupported(&error) && !file.metadata()?.is_file() => Ok(()),
        outcome => outcome,
    }
}

/// Returns whether the error means that syncing is not supported, rather than that it failed.
pub(crate) fn is_sync_unsupported(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        // POSIX: EINVAL. Some network and user-space file systems report the others.
        let unsupported = [Errno::INVAL, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOSYS];
        Errno::from_io_error(error).is_some_and(|errno| unsupported.contains(&errno))
    }
    #[cfg(not(unix))]
    {
        error.kind() == io::ErrorKind::Unsupported
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn devices_and_pipes_need_no_sync() {
        let null = File::options().write(true).open("/dev/null").unwrap();
        assert!(
            null.sync_all().is_err(),
            "/dev/null must not support syncing, or this test proves nothing"
        );
        sync_file(&null).unwrap();
        sync_data(&null).unwrap();
        let (_reader, writer) = io::pipe().unwrap();
        sync_file(&File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
    }

    #[test]
    fn every_failure_to_sync_a_regular_file_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        for errno in [Errno::INVAL, Errno::IO, Errno::NOSPC, Errno::ROFS] {
            assert!(
                accept_unsyncable_device(&file, Err(errno.into())).is_err(),
                "{errno}"
            );
        }
        let null = File::open("/dev/null").unwrap();
        for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT] {
            assert!(
                accept_unsyncable_device(&null, Err(errno.into())).is_err(),
                "{errno}"
            );
        }
    }
}
