//! Whole files or none: written beside their place, synced, then moved into it.
//!
//! A crash leaves the old file or the new one, never half of one; at worst a temporary file with a
//! dot before its name, which is in nobody's way.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::access::Access;
use crate::folder::{parent, sync_parent};
use crate::open::create_new;
use crate::resolve::resolve;

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is kept, and nothing is written.
    Keep,
    /// It is replaced. A link stays, and what it leads to is replaced.
    Replace,
}

/// Why files were not written.
#[derive(thiserror::Error)]
pub enum FileError {
    /// There is a file already, and it was not to be replaced.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The file system refused.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// The same text: `main` prints an error that it returns by `Debug`.
impl fmt::Debug for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A file that is written and synced, and has no name of its own yet. Dropped, it is removed.
///
/// Its temporary name is one that nobody can foresee, made without following links.
#[derive(Debug)]
pub struct Draft(NamedTempFile);

impl Draft {
    /// Writes and syncs a file in the folder of its later place, which must be there.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn write(place: &Path, contents: &[u8], access: Access) -> io::Result<Self> {
        // Errors are the system's own: with the temporary name in them, people would look for that.
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .make_in(parent(place), |path| create_new(path, access))?;
        file.as_file_mut().write_all(contents)?;
        file.as_file().sync_all()?;
        Ok(Self(file))
    }

    /// The open file, to lock it or to change its mode.
    #[must_use]
    pub fn file(&self) -> &File {
        self.0.as_file()
    }

    /// Gives it its name, which nothing may have yet, and syncs the name.
    ///
    /// On a file system that can neither rename without replacing nor make hard links, two that do
    /// this in the same moment are not told apart.
    ///
    /// # Errors
    ///
    /// What the system says; [`io::ErrorKind::AlreadyExists`]. Then there is no such file, or the
    /// one that was.
    pub fn place_new(self, path: &Path) -> io::Result<File> {
        let placed = self.0.persist_noclobber(path);
        let file = match placed {
            Err(failed) if is_unsupported(&failed.error) && fs::symlink_metadata(path).is_err() => {
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

    /// Gives it its name in place of whatever has it, and syncs the name.
    ///
    /// # Errors
    ///
    /// What the system says. Then there is the old file or the new one.
    pub fn replace(self, path: &Path) -> io::Result<File> {
        let file = self.rename(path)?;
        sync_parent(path)?;
        Ok(file)
    }

    /// The same for whoever syncs the name itself, with [`sync_parent`], and works with the file
    /// even if that fails.
    ///
    /// # Errors
    ///
    /// What the system says. Then there is the old file.
    pub fn rename(self, path: &Path) -> io::Result<File> {
        self.0.persist(path).map_err(|failed| failed.error)
    }
}

/// Whether a file system says that it cannot do what keeps two from taking one name.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
    )
}

/// Files that belong together: all are written in full before the first stands in its place.
///
/// They take their places in the order in which they were staged, each one durably before the next:
/// after a power cut the first ones are there, and none of the others.
#[derive(Debug, Default)]
pub struct NewFiles {
    staged: Vec<Staged>,
}

#[derive(Debug)]
struct Staged {
    path: PathBuf,
    /// Where the path leads.
    place: PathBuf,
    draft: Draft,
    existing: Existing,
}

impl NewFiles {
    /// No files yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a file beside its place, which must be in a folder that exists.
    ///
    /// # Errors
    ///
    /// [`FileError`]; then nothing of the whole set is written, once the set is dropped.
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

    /// Moves all files into their places, and syncs the folders.
    ///
    /// # Errors
    ///
    /// [`FileError`]; then those that are new are taken away again. Files that were replaced stay
    /// replaced.
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

/// Writes one file.
///
/// # Errors
///
/// [`FileError`]; then the file is as it was.
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
    fn errors_do_not_speak_of_temporary_names() {
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
    fn keeps_what_is_there() {
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
    fn all_or_none() {
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
        // Somebody else makes the second one meanwhile.
        fs::write(folder.path().join("b"), b"theirs").unwrap();
        let error = files.commit().unwrap_err();
        assert!(matches!(error, FileError::Exists(path) if path.ends_with("b")));
        assert_eq!(names(folder.path()), ["b"]);
        assert_eq!(fs::read(folder.path().join("b")).unwrap(), b"theirs");
    }

    #[test]
    fn a_set_that_is_dropped_leaves_nothing() {
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
    fn private_files_are_the_owners_alone() {
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
    fn a_link_stays_and_its_target_is_replaced() {
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
    fn what_a_killed_run_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a");
        let draft = Draft::write(&place, b"half", Access::Private).unwrap();
        std::mem::forget(draft);
        write(&place, b"whole", Access::Private, Existing::Keep).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"whole");
        assert_eq!(names(folder.path()).len(), 2);
    }
}
