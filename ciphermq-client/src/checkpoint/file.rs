//! A file that is replaced as a whole, by one process at a time.
//!
//! The lock is on the file itself, and a replacement is locked before it takes the file's name:
//! whoever opens the name finds a locked file. A process that opened the old file notices that the
//! name now leads elsewhere, and opens it again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ciphermq_files::{
    Access, Draft, FileId, NotRegular, beside, create_folder, is_descriptor, parent, resolve,
    sync_parent,
};

use super::{CheckpointError, Kind};

/// Attempts to open a file that is replaced again and again.
const TRIES: usize = 100;
/// The most damaged checkpoints that are kept aside, where other files have the first names.
const MAX_ASIDE: usize = 1000;

/// A checkpoint's locked file. The lock ends when the value is dropped or the process ends in any
/// way.
///
/// A symbolic link remains a link: the file that it leads to is the checkpoint.
#[derive(Debug)]
pub struct CheckpointFile {
    /// The path as it was given.
    path: PathBuf,
    /// The path with symbolic links resolved.
    place: PathBuf,
    file: File,
}

impl CheckpointFile {
    /// Opens and locks the file, and reads it whole; `None` if there is no such file.
    ///
    /// Syncs its name in its folder: a process that created it may have been killed before that.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Open`, `Locked`.
    pub fn open(path: &Path) -> Result<Option<(Self, Vec<u8>)>, CheckpointError> {
        let failed = |source| CheckpointError::Open {
            path: path.to_owned(),
            source,
        };
        let place = resolve(path).map_err(failed)?;
        for _ in 0..TRIES {
            let mut file = match open_regular(&place) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(error)),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(CheckpointError::Locked(path.to_owned()));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            if !FileId::leads_to(&place, &file) {
                continue;
            }
            create_folder(parent(&place), Access::Private).map_err(failed)?;
            sync_parent(&place).map_err(failed)?;
            let mut content = Vec::new();
            file.read_to_end(&mut content).map_err(failed)?;
            let path = path.to_owned();
            return Ok(Some((Self { path, place, file }, content)));
        }
        Err(CheckpointError::Locked(path.to_owned()))
    }

    /// Creates the file, readable by its owner alone, and its folder if necessary, and locks it;
    /// `None` if another process has just created it.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Open`, `Write`.
    pub fn create(path: &Path, content: &[u8]) -> Result<Option<Self>, CheckpointError> {
        let failed = |source| CheckpointError::Open {
            path: path.to_owned(),
            source,
        };
        let place = resolve(path).map_err(failed)?;
        create_folder(parent(&place), Access::Private).map_err(failed)?;
        // Complete and locked before it gets its name.
        match write_locked(&place, content).and_then(|draft| draft.place_new(&place)) {
            Ok(file) => {
                let path = path.to_owned();
                Ok(Some(Self { path, place, file }))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(source) => Err(CheckpointError::Write {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Replaces the content, and syncs file and folder: after a crash the file has the old or the
    /// new content. The file keeps its mode.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Write`, `Replaced`, `Removed`.
    pub fn replace(&mut self, content: &[u8]) -> Result<(), CheckpointError> {
        if !FileId::leads_to(&self.path, &self.file) {
            return Err(match std::fs::metadata(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    CheckpointError::Removed(self.path.clone())
                }
                _ => CheckpointError::Replaced(self.path.clone()),
            });
        }
        let written = write_locked(&self.place, content).and_then(|draft| {
            draft
                .file()
                .set_permissions(self.file.metadata()?.permissions())?;
            draft.rename(&self.place)
        });
        // The old file's lock ends here; the name already leads to the new one.
        self.file = written.map_err(|source| self.unwritten(source))?;
        sync_parent(&self.place).map_err(|source| self.unwritten(source))
    }

    /// Moves the file to `<path>.damaged`, replacing an earlier one of this kind, or to
    /// `<path>.damaged.1` and so on where that name is taken. Releases the lock.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Write`].
    pub fn set_aside(self, kind: Kind) -> Result<PathBuf, CheckpointError> {
        let aside = (0..MAX_ASIDE)
            .map(|number| match number {
                0 => beside(&self.place, ".damaged"),
                number => beside(&self.place, &format!(".damaged.{number}")),
            })
            .find(|aside| is_free_or_ours(aside, kind))
            .ok_or_else(|| self.unwritten(io::ErrorKind::AlreadyExists.into()))?;
        std::fs::rename(&self.place, &aside)
            .and_then(|()| sync_parent(&self.place))
            .map_err(|source| self.unwritten(source))?;
        Ok(aside)
    }

    /// Returns the path as it was given.
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

/// Opens a regular file only: a device in a checkpoint's place would be replaced by it, and a
/// descriptor has no folder in which it could be replaced.
fn open_regular(place: &Path) -> io::Result<File> {
    if is_descriptor(place) || !std::fs::metadata(place)?.is_file() {
        return Err(NotRegular.into());
    }
    OpenOptions::new().read(true).write(true).open(place)
}

/// Whether a file may take this place without destroying anything else.
fn is_free_or_ours(place: &Path, kind: Kind) -> bool {
    match std::fs::symlink_metadata(place) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(there) => {
            there.is_file() && std::fs::read(place).is_ok_and(|bytes| kind.recognises(&bytes))
        }
    }
}

/// Writes a locked draft.
fn write_locked(place: &Path, content: &[u8]) -> io::Result<Draft> {
    let draft = Draft::write(place, content, Access::Private)?;
    draft.file().try_lock().map_err(io::Error::from)?;
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_replacement_is_read_back_and_leaves_no_draft() {
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
    fn the_lock_lasts_across_replacements() {
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
    fn racing_openers_see_one_lock_holder_and_whole_files() {
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
                        assert!(
                            content.len() == 4096 && content.iter().all(|&byte| byte == content[0])
                        );
                        file.replace(&[letter; 4096]).unwrap();
                        replaced.fetch_add(1, SeqCst);
                        held.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn a_moved_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let mut file = CheckpointFile::create(&path, b"one").unwrap().unwrap();
        fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        assert!(matches!(
            file.replace(b"two"),
            Err(CheckpointError::Removed(_))
        ));
        assert!(!path.exists());
        fs::write(&path, "theirs").unwrap();
        assert!(matches!(
            file.replace(b"two"),
            Err(CheckpointError::Replaced(_))
        ));
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
    }

    #[test]
    fn an_unwritable_folder_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = CheckpointFile::create(&file.join("c"), b"x").unwrap_err();
        assert!(matches!(error, CheckpointError::Open { .. }), "{error}");
        assert!(error.advice().contains("not a folder"));
    }
}
