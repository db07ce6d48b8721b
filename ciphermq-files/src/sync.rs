//! Syncing files, where syncing has a meaning.

use std::fs::File;
use std::io;

/// Syncs a file's bytes and metadata. Pipes, terminals and devices that cannot be synced need not
/// be.
///
/// # Errors
///
/// What the system says. A regular file that cannot be synced is an error, whatever the reason.
pub fn sync_file(file: &File) -> io::Result<()> {
    settle(file, file.sync_all())
}

/// Syncs a file's bytes and its length; otherwise as [`sync_file`].
///
/// # Errors
///
/// As for [`sync_file`].
pub fn sync_data(file: &File) -> io::Result<()> {
    settle(file, file.sync_data())
}

fn settle(file: &File, outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if has_no_meaning(&error) && !file.metadata()?.is_file() => Ok(()),
        outcome => outcome,
    }
}

/// Whether the system says that what it was asked to sync cannot be synced, in contrast to: could
/// not be.
pub(crate) fn has_no_meaning(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        // POSIX: EINVAL. Some network and user-space file systems say the others.
        let meaningless = [Errno::INVAL, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOSYS];
        Errno::from_io_error(error).is_some_and(|errno| meaningless.contains(&errno))
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
            "otherwise this test tests nothing"
        );
        sync_file(&null).unwrap();
        sync_data(&null).unwrap();
        let (_reader, writer) = io::pipe().unwrap();
        sync_file(&File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
    }

    #[test]
    fn a_regular_file_that_was_not_synced_is_an_error_for_every_reason() {
        let file = tempfile::tempfile().unwrap();
        for errno in [Errno::INVAL, Errno::IO, Errno::NOSPC, Errno::ROFS] {
            assert!(settle(&file, Err(errno.into())).is_err(), "{errno}");
        }
        let null = File::open("/dev/null").unwrap();
        for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT] {
            assert!(settle(&null, Err(errno.into())).is_err(), "{errno}");
        }
    }
}
