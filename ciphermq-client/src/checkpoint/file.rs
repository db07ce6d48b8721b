//! A file that is replaced as a whole, by one process at a time.
//!
//! The lock is on the file itself, and a replacement is locked before it takes the file's name: whoever opens the
//! name meets a lock. Whoever got hold of the old file sees that the name leads elsewhere now, and opens it anew.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
#[cfg(unix)]
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// So often a file that is replaced again and again is opened anew.
const TRIES: usize = 100;

/// A checkpoint's file, locked. The lock ends with the value, or with the process, however that ends.
#[derive(Debug)]
pub struct CheckpointFile {
    path: PathBuf,
    file: File,
}

impl CheckpointFile {
    /// Opens and locks the file, and reads it whole; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Open`, `Locked`.
    pub fn open(path: &Path) -> Result<Option<(Self, Vec<u8>)>, CheckpointError> {
        let failed = |source| CheckpointError::Open {
            path: path.to_owned(),
            source,
        };
        for _ in 0..TRIES {
            let mut file = match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(error)),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(CheckpointError::Locked(path.to_owned())),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            if !leads_to(path, &file) {
                continue;
            }
            let mut content = Vec::new();
            file.read_to_end(&mut content).map_err(failed)?;
            let path = path.to_owned();
            return Ok(Some((Self { path, file }, content)));
        }
        Err(CheckpointError::Locked(path.to_owned()))
    }

    /// Makes the file, with its folder if need be, and locks it; `None` if somebody else has just made it.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Open`, `Write`.
    pub fn create(path: &Path, content: &[u8]) -> Result<Option<Self>, CheckpointError> {
        let failed = |source| CheckpointError::Open {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(folder(path)).map_err(failed)?;
        // Whole and locked before it has its name. Two that make it at once must not share what they write.
        let fresh = beside(path, &format!(".{}.new", std::process::id()));
        let made = write_locked(&fresh, content).and_then(|file| {
            match std::fs::hard_link(&fresh, path) {
                Err(error) if is_unsupported(&error) && !path.exists() => std::fs::rename(&fresh, path)?,
                linked => linked?,
            }
            Ok(file)
        });
        let _ = std::fs::remove_file(&fresh);
        let file = match made {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        sync_folder(path).map_err(failed)?;
        let path = path.to_owned();
        Ok(Some(Self { path, file }))
    }

    /// Replaces the content, and syncs file and folder: after a crash there is the old content or the new one.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Write`, `Moved`.
    pub fn replace(&mut self, content: &[u8]) -> Result<(), CheckpointError> {
        if !leads_to(&self.path, &self.file) {
            return Err(CheckpointError::Moved(self.path.clone()));
        }
        let fresh = beside(&self.path, ".new");
        let written = write_locked(&fresh, content).and_then(|file| {
            std::fs::rename(&fresh, &self.path)?;
            Ok(file)
        });
        match written {
            // The old file's lock ends here; the name leads to the new one's already.
            Ok(file) => self.file = file,
            Err(source) => {
                let _ = std::fs::remove_file(&fresh);
                return Err(self.unwritten(source));
            }
        }
        sync_folder(&self.path).map_err(|source| self.unwritten(source))
    }

    /// Moves the file to `<path>.damaged`, in place of an earlier one. The lock is given up.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Write`].
    pub fn set_aside(self) -> Result<PathBuf, CheckpointError> {
        let aside = beside(&self.path, ".damaged");
        std::fs::rename(&self.path, &aside)
            .and_then(|()| sync_folder(&self.path))
            .map_err(|source| self.unwritten(source))?;
        Ok(aside)
    }

    /// Where it stands.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn unwritten(&self, source: io::Error) -> CheckpointError {
        CheckpointError::Write {
            path: self.path.clone(),
            source,
        }
    }
}

/// Some file systems have no hard links. There, two that make the file in the same moment are not told apart.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}

/// Writes a file, locks it, and syncs it.
fn write_locked(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.try_lock().map_err(io::Error::from)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(file)
}

/// Whether the path leads to this very file.
fn leads_to(path: &Path, file: &File) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        #[cfg(unix)]
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        #[cfg(not(unix))]
        (Ok(_), Ok(_)) => true,
        _ => false,
    }
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Syncs the folder, or a crash could take the new file's name.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// The same path with something at its end.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_was_written_is_read_again_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/c");
        assert!(CheckpointFile::open(&path).unwrap().is_none());
        let mut file = CheckpointFile::create(&path, b"one").unwrap().unwrap();
        file.replace(b"two").unwrap();
        file.replace(b"three").unwrap();
        drop(file);
        assert_eq!(CheckpointFile::open(&path).unwrap().unwrap().1, b"three");
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_second_process_is_kept_away_over_every_replacement() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let mut first = CheckpointFile::create(&path, b"one").unwrap().unwrap();
        for content in [b"two", b"six"] {
            assert!(matches!(
                CheckpointFile::open(&path),
                Err(CheckpointError::Locked(_))
            ));
            assert!(CheckpointFile::create(&path, b"mine").unwrap().is_none());
            first.replace(content).unwrap();
        }
        assert!(matches!(
            CheckpointFile::open(&path),
            Err(CheckpointError::Locked(_))
        ));
        drop(first);
        assert_eq!(CheckpointFile::open(&path).unwrap().unwrap().1, b"six");
    }

    #[test]
    fn of_many_that_race_one_has_the_lock_and_none_sees_a_half_written_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        drop(CheckpointFile::create(&path, &[b'x'; 4096]).unwrap());
        let held = std::sync::atomic::AtomicUsize::new(0);
        let replaced = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for letter in [b'a', b'b', b'c', b'd'] {
                let (path, held, replaced) = (&path, &held, &replaced);
                scope.spawn(move || {
                    use std::sync::atomic::Ordering::SeqCst;
                    while replaced.load(SeqCst) < 200 {
                        let Ok(Some((mut file, content))) = CheckpointFile::open(path) else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert_eq!(held.fetch_add(1, SeqCst), 0, "two hold the lock");
                        assert!(content.len() == 4096 && content.iter().all(|&byte| byte == content[0]));
                        file.replace(&[letter; 4096]).unwrap();
                        replaced.fetch_add(1, SeqCst);
                        held.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn what_was_moved_away_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let mut file = CheckpointFile::create(&path, b"one").unwrap().unwrap();
        fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        assert!(matches!(file.replace(b"two"), Err(CheckpointError::Moved(_))));
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = CheckpointFile::create(&file.join("c"), b"x").unwrap_err();
        assert!(matches!(error, CheckpointError::Open { .. }), "{error}");
        assert!(error.advice().contains("yours to write"));
    }
}
