//! Atomic creation and replacement of files: written to a temporary file, synced, then renamed.
//!
//! A crash leaves the old file or the new one, never a part of one; at worst it also leaves a
//! hidden temporary file, which does not affect later runs.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::access::Access;
use crate::folder::sync_parent;
use crate::open::create_new;
use crate::resolve::{parent, resolve};

/// The treatment of a file that already exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Keeps it, and fails.
    Keep,
    /// Replaces it; a link is kept, and its target is replaced.
    Replace,
}

/// The reason why files were not written.
#[derive(thiserror::Error)]
pub enum FileError {
    /// A file with this name already exists, and may not be replaced.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The file system reported an error.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
}

/// Formats as [`Display`](fmt::Display): `main` prints a returned error with `Debug`.
impl fmt::Debug for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A file that is written and synced under a temporary name, and removed on drop.
///
/// The temporary name is unpredictable, and creating it follows no link.
#[derive(Debug)]
pub struct Draft(NamedTempFile);

impl Draft {
    /// Writes and syncs a file in the folder of its final path, which must exist.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn write(place: &Path, contents: &[u8], access: Access) -> io::Result<Self> {
        // `make_in` does not add the temporary name to errors: users would look for that file.
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .make_in(parent(place), |path| create_new(path, access))?;
        file.as_file_mut().write_all(contents)?;
        file.as_file().sync_all()?;
        Ok(Self(file))
    }

    /// Returns the open file, to lock it or to change its mode.
    #[must_use]
    pub fn file(&self) -> &File {
        self.0.as_file()
    }

    /// Renames the file to a name that is not in use, and syncs the name.
    ///
    /// On a file system that supports neither renaming without replacing nor hard links, one of two
    /// simultaneous calls for the same name may replace the other's file.
    ///
    /// # Errors
    ///
    /// The operating system's error; [`io::ErrorKind::AlreadyExists`] if the name is in use. An
    /// existing file is unchanged, and no new one is left.
    pub fn place_new(self, path: &Path) -> io::Result<File> {
        let placed = self.0.persist_noclobber(path);
        let file = match placed {
            Err(failed)
                if is_noclobber_unsupported(&failed.error)
                    && fs::symlink_metadata(path).is_err() =>
            {
                Self(failed.file).rename(path)?
            }
            placed => placed.map_err(|failed| failed.error)?,
        };
        sync_parent(path).inspect_err(|_| {
            // Best effort: the error is the one to report.
            let _ = fs::remove_file(path);
        })?;
        Ok(file)
    }

    /// Renames the file, replacing an existing one, and syncs the name.
    ///
    /// # Errors
    ///
    /// The operating system's error. The path then leads to the old file or to the new one.
    pub fn replace(self, path: &Path) -> io::Result<File> {
        let file = self.rename(path)?;
        sync_parent(path)?;
        Ok(file)
    }

    /// Renames the file, replacing an existing one, and leaves syncing the name to the caller.
    ///
    /// It is for callers that use the file even if [`sync_parent`] fails.
    ///
    /// # Errors
    ///
    /// The operating system's error. The path then leads to the old file.
    pub fn rename(self, path: &Path) -> io::Result<File> {
        self.0.persist(path).map_err(|failed| failed.error)
    }
}

/// Returns whether the error means that the file system cannot rename without replacing.
fn is_noclobber_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
    )
}

/// A set of files that are all written and synced before the first one is renamed into place.
///
/// They are renamed in the order in which they were staged, each durably before the next: a power
/// failure leaves a prefix of that order.
#[derive(Debug, Default)]
pub struct NewFiles {
    staged: Vec<Staged>,
}

#[derive(Debug)]
struct Staged {
    path: PathBuf,
    /// The resolved path.
    place: PathBuf,
    draft: Draft,
    existing: Existing,
}

impl NewFiles {
    /// Creates an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a file under a temporary name; the folder of `path` must exist.
    ///
    /// # Errors
    ///
    /// [`FileError`]. Dropping the set then removes all of its temporary files.
    pub fn stage(
        &mut self,
        path: impl Into<PathBuf>,
        contents: &[u8],
        access: Access,
        existing: Existing,
    ) -> Result<(), FileError> {
        let path = path.into();
        let place = match existing {
            Existing::Keep if fs::symlink_metadata(&path).is_ok() => {
                return Err(FileError::Exists(path));
            }
            Existing::Keep => Ok(path.clone()),
            Existing::Replace => resolve(&path),
        };
        match place.and_then(|place| Ok((Draft::write(&place, contents, access)?, place))) {
            Ok((draft, place)) => self.staged.push(Staged {
                path,
                place,
                draft,
                existing,
            }),
            Err(source) => return Err(FileError::Io { path, source }),
        }
        Ok(())
    }

    /// Renames all files into place, syncs their folders, and returns their paths.
    ///
    /// # Errors
    ///
    /// [`FileError`]. New files of the set are then removed again; replaced ones remain replaced.
    pub fn commit(self) -> Result<Vec<PathBuf>, FileError> {
        let mut written = Vec::with_capacity(self.staged.len());
        let mut new: Vec<PathBuf> = Vec::new();
        for Staged {
            path,
            place,
            draft,
            existing,
        } in self.staged
        {
            let placed = match existing {
                Existing::Keep => draft.place_new(&place),
                Existing::Replace => draft.replace(&place),
            };
            if let Err(source) = placed {
                for path in new.iter().rev() {
                    // Best effort: the error below is the one to report.
                    let _ = fs::remove_file(path);
                }
                return Err(match source.kind() {
                    io::ErrorKind::AlreadyExists => FileError::Exists(path),
                    _ => FileError::Io { path, source },
                });
            }
            if existing == Existing::Keep {
                new.push(place);
            }
            written.push(path);
        }
        Ok(written)
    }
}

/// Writes one file atomically and durably.
///
/// # Errors
///
/// [`FileError`]. An existing file is then unchanged, or replaced as a whole.
pub fn write(
    path: impl Into<PathBuf>,
    contents: &[u8],
    access: Access,
    existing: Existing,
) -> Result<(), FileError> {
    let mut files = NewFiles::new();
    files.stage(path, contents, access, existing)?;
    files.commit().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_do_not_name_temporary_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/file");
        let error = write(&path, b"", Access::Private, Existing::Replace).unwrap_err();
        assert!(!error.to_string().contains(".new-"), "{error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn existing_files_are_kept_unless_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, b"one", Access::Public, Existing::Keep).unwrap();
        let error = write(&path, b"two", Access::Public, Existing::Keep).unwrap_err();
        assert!(
            matches!(&error, FileError::Exists(at) if *at == path),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(&path, b"two", Access::Public, Existing::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_failed_commit_removes_the_new_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = NewFiles::new();
        for name in ["a", "b", "c"] {
            files
                .stage(
                    folder.path().join(name),
                    b"new",
                    Access::Public,
                    Existing::Keep,
                )
                .unwrap();
        }
        // Another process creates the second one in the meantime.
        fs::write(folder.path().join("b"), b"theirs").unwrap();
        let error = files.commit().unwrap_err();
        assert!(matches!(error, FileError::Exists(path) if path.ends_with("b")));
        assert_eq!(names(folder.path()), ["b"]);
        assert_eq!(fs::read(folder.path().join("b")).unwrap(), b"theirs");
    }

    #[test]
    fn a_dropped_set_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = NewFiles::new();
        files
            .stage(
                folder.path().join("a"),
                b"new",
                Access::Private,
                Existing::Keep,
            )
            .unwrap();
        assert!(
            files
                .stage(
                    folder.path().join("no/folder"),
                    b"",
                    Access::Public,
                    Existing::Keep
                )
                .is_err()
        );
        drop(files);
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[cfg(unix)]
    #[test]
    fn private_files_are_closed_to_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, b"open to all").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        write(&path, b"secret", Access::Private, Existing::Replace).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_kept_and_its_target_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::create_dir(folder.path().join("disk")).unwrap();
        std::os::unix::fs::symlink("disk/b", &path).unwrap();
        assert!(matches!(
            write(&path, b"x", Access::Private, Existing::Keep),
            Err(FileError::Exists(_))
        ));
        for contents in [b"x", b"y"] {
            write(&path, contents, Access::Private, Existing::Replace).unwrap();
            assert_eq!(fs::read(folder.path().join("disk/b")).unwrap(), contents);
        }
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(names(&folder.path().join("disk")), ["b"]);
    }

    #[test]
    fn leftovers_of_a_killed_run_do_not_interfere() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a");
        let draft = Draft::write(&place, b"half", Access::Private).unwrap();
        std::mem::forget(draft);
        write(&place, b"whole", Access::Private, Existing::Keep).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"whole");
        assert_eq!(names(folder.path()).len(), 2);
    }
}
