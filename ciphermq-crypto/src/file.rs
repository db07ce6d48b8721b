//! Whole files or none: written beside their place, synced, then moved into it.
//!
//! A crash leaves the old file or the new one, never half of one; at worst a temporary file with a dot
//! before its name.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The owner alone: mode 0600.
    Private,
    /// Everybody, mode 0644.
    Public,
}

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is kept, and nothing is written.
    Keep,
    /// It is replaced.
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

ciphermq_protocol::debug_as_report!(FileError);

/// Files that belong together: all are written in full before the first stands in its place.
#[derive(Debug, Default)]
pub struct NewFiles {
    staged: Vec<Staged>,
}

#[derive(Debug)]
struct Staged {
    path: PathBuf,
    file: NamedTempFile,
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
        if existing == Existing::Keep && fs::symlink_metadata(&path).is_ok() {
            return Err(FileError::Exists(path));
        }
        match temporary(folder(&path), contents, access) {
            Ok(file) => self.staged.push(Staged { path, file, existing }),
            Err(source) => return Err(FileError::Io { path, source }),
        }
        Ok(())
    }

    /// Moves all files into their places and syncs the folders.
    ///
    /// # Errors
    ///
    /// [`FileError`]; then those that are new are taken away again. Files that were replaced stay replaced.
    pub fn commit(self) -> Result<Vec<PathBuf>, FileError> {
        let mut written = Vec::with_capacity(self.staged.len());
        let mut new = Vec::new();
        for Staged { path, file, existing } in self.staged {
            let moved = match existing {
                Existing::Keep => file.persist_noclobber(&path),
                Existing::Replace => file.persist(&path),
            };
            if let Err(error) = moved {
                for path in new {
                    // Best effort: the error below is the one to report.
                    let _ = fs::remove_file(path);
                }
                return Err(match error.error.kind() {
                    io::ErrorKind::AlreadyExists => FileError::Exists(path),
                    _ => FileError::Io {
                        path,
                        source: error.error,
                    },
                });
            }
            if existing == Existing::Keep {
                new.push(path.clone());
            }
            written.push(path);
        }
        for path in &written {
            sync_folder(folder(path)).map_err(|source| FileError::Io {
                path: path.clone(),
                source,
            })?;
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

/// The permission bits of a file with a private key, if they let others than its owner do anything with it. Asks the
/// open file, not its name: it cannot be exchanged in between. `None` on other systems than Unix.
///
/// # Errors
///
/// What the system says if it cannot tell.
#[cfg_attr(not(unix), expect(unused_variables))]
pub fn exposed_mode(file: &fs::File) -> io::Result<Option<u32>> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        Ok((mode & 0o077 != 0).then_some(mode))
    }
    #[cfg(not(unix))]
    Ok(None)
}

fn temporary(folder: &Path, contents: &[u8], access: Access) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".new-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = match access {
            Access::Private => 0o600,
            Access::Public => 0o644,
        };
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = access;
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes the names in a folder durable. Only Unix can, and needs to.
fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    fs::File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(matches!(&error, FileError::Exists(at) if *at == path), "{error}");
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
                .stage(folder.path().join(name), b"new", Access::Public, Existing::Keep)
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
            .stage(folder.path().join("a"), b"new", Access::Private, Existing::Keep)
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
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(
            write(&path, b"x", Access::Private, Existing::Keep),
            Err(FileError::Exists(_))
        ));
        write(&path, b"x", Access::Private, Existing::Replace).unwrap();
        assert_eq!(names(folder.path()), ["a"]);
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }
}
