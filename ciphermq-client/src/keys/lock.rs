//! A lock on a folder that makes reading, deciding and writing one atomic step among this user's
//! processes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ciphermq_files::{Access, FileId};

/// The longest wait for another process, whose own work takes milliseconds.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(10);
/// Pause between attempts to take the lock.
const PAUSE: Duration = Duration::from_millis(10);

/// The lock of a folder, held until it is dropped or the process ends in any way.
///
/// It is a file of its own that only its owner can open, so that a user with read access to the
/// folder cannot hold it. Every user has one, so that an owner who sometimes acts as root does not
/// lock themselves out.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

/// Why a folder was not locked.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process holds the lock for too long.
    #[error("another process holds the lock {} and has not let go of it within {} \
             seconds", path.display(), limit.as_secs())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The time spent waiting.
        limit: Duration,
    },
    /// The lock's path holds something other than a file of this user, or another file of this user
    /// that was linked there.
    #[error("{} is in the place of a lock and is not a file of this user, or is also another \
             file", .0.display())]
    Foreign(PathBuf),
    /// The file system does not support locks.
    #[error("the file system does not lock {}: {source}", path.display())]
    Unsupported {
        /// The lock file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The lock file cannot be created or opened.
    #[error("the lock {} cannot be opened: {source}", path.display())]
    Unusable {
        /// The lock file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

ciphermq_protocol::debug_as_report!(LockError, |error| Some(error.advice()));

impl LockError {
    /// Returns what to do.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Held { path, .. } => format!(
                "Find the process that holds it (`fuser {}`) and end it, or let it go on if it was \
                 stopped; then try again. The lock ends with its holder: the file itself need not \
                 be removed.",
                path.display()
            ),
            Self::Foreign(path) => format!(
                "Look at what {} is and who has put it there, and remove it. In a folder where \
                 others may write, they may do so again: choose one of your own.",
                path.display()
            ),
            Self::Unsupported { .. } => {
                "Use a folder on a file system that has locks, a local disk for example.".to_owned()
            }
            Self::Unusable { .. } => {
                "Check that the folder is there and that you may write to it, or choose another \
                 one."
                    .to_owned()
            }
        }
    }
}

impl FolderLock {
    /// Waits for the lock, at most for `limit`. Blocks.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    pub(crate) fn wait(folder: &Path, limit: Duration) -> Result<Self, LockError> {
        let path = folder.join(file_name());
        let begun = Instant::now();
        loop {
            let file = open(&path)?;
            match file.try_lock() {
                // A lock on a file that was removed or replaced protects nothing.
                Ok(()) if FileId::leads_to(&path, &file) => return Ok(Self { _file: file }),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => {
                    return Err(LockError::Unsupported { path, source });
                }
            }
            if begun.elapsed() >= limit {
                return Err(LockError::Held { path, limit });
            }
            std::thread::sleep(PAUSE.min(limit));
        }
    }
}

#[cfg(unix)]
fn file_name() -> String {
    format!(
        ".ciphermq-keys.{}.lock",
        rustix::process::geteuid().as_raw()
    )
}

#[cfg(not(unix))]
fn file_name() -> String {
    ".ciphermq-keys.lock".to_owned()
}

/// Opens the lock's file, or creates it, accessible to this user alone.
fn open(path: &Path) -> Result<File, LockError> {
    let unusable = |source| LockError::Unusable {
        path: path.to_owned(),
        source,
    };
    match ciphermq_files::create_new(path, Access::Private) {
        Ok(file) => return Ok(file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(unusable(error)),
    }
    let foreign = || LockError::Foreign(path.to_owned());
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // Opening a pipe would block.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    // A link, a folder, a pipe or another user's file is not opened. One that was removed just now
    // is created at the next attempt.
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return ciphermq_files::create_new(path, Access::Private).map_err(unusable);
        }
        Err(_) => return Err(foreign()),
    };
    let metadata = file.metadata().map_err(unusable)?;
    if !metadata.is_file() {
        return Err(foreign());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(foreign());
        }
        // It may have been copied, or restored from a backup.
        if metadata.mode() & 0o077 != 0 {
            // Somebody may have linked another file of this user here to change its mode.
            if metadata.nlink() > 1 {
                return Err(foreign());
            }
            file.set_permissions(std::fs::Permissions::from_mode(0o600))
                .map_err(unusable)?;
        }
    }
    Ok(file)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    const SHORT: Duration = Duration::from_millis(30);

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_lock_is_exclusive_and_waiting_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::wait(folder.path(), SHORT).unwrap();
        let path = folder.path().join(file_name());
        assert_eq!(mode(&path), 0o600);
        let error = FolderLock::wait(folder.path(), SHORT).unwrap_err();
        assert!(matches!(&error, LockError::Held { .. }), "{error}");
        assert!(error.advice().contains(path.to_str().unwrap()));
        drop(first);
        FolderLock::wait(folder.path(), SHORT).unwrap();
        // If it is removed while held, the next process has a lock of its own.
        let _first = FolderLock::wait(folder.path(), SHORT).unwrap();
        std::fs::remove_file(&path).unwrap();
        FolderLock::wait(folder.path(), SHORT).unwrap();
    }

    #[test]
    fn read_access_to_the_folder_does_not_allow_locking() {
        let folder = tempfile::tempdir().unwrap();
        File::open(folder.path()).unwrap().lock().unwrap();
        let readable = folder.path().join(file_name());
        std::fs::write(&readable, "").unwrap();
        std::fs::set_permissions(&readable, std::fs::Permissions::from_mode(0o666)).unwrap();
        FolderLock::wait(folder.path(), SHORT).unwrap();
        assert_eq!(mode(&readable), 0o600);
    }

    #[test]
    fn planted_links_and_pipes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file_name());
        let target = folder.path().join("target");
        symlink(&target, &path).unwrap();
        let refused = || {
            let error = FolderLock::wait(folder.path(), SHORT).unwrap_err();
            assert!(matches!(&error, LockError::Foreign(_)), "{error}");
        };
        refused();
        assert!(!target.exists());
        std::fs::write(&target, "theirs").unwrap();
        refused();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        refused();
        std::fs::remove_dir(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        refused();
    }

    #[test]
    fn a_linked_file_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file_name());
        let other = folder.path().join("notes");
        std::fs::write(&other, "for all").unwrap();
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::hard_link(&other, &path).unwrap();
        let error = FolderLock::wait(folder.path(), SHORT).unwrap_err();
        assert!(matches!(&error, LockError::Foreign(_)), "{error}");
        assert_eq!(mode(&other), 0o644);
        // Backups may hard-link a lock file; a private one is accepted.
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
        FolderLock::wait(folder.path(), SHORT).unwrap();
    }

    #[test]
    fn a_missing_folder_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let error = FolderLock::wait(&folder.path().join("missing"), SHORT).unwrap_err();
        assert!(matches!(&error, LockError::Unusable { .. }), "{error}");
    }
}
