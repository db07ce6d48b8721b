//! Folders, and the names in them.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::access::Access;
use crate::resolve::resolve;
use crate::sync::has_no_meaning;

/// The folder that holds a path's last name: `.` for a bare name.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes a folder with all those above it, and syncs the name of each in the folder that holds it;
/// returns those that were made, the upper ones first.
///
/// The deepest folder that is there already has its name synced, too: the one that was made by a
/// run that was cut before it could do so. As each level is synced before the next one is made,
/// there is no more than one of those.
///
/// # Errors
///
/// What the system says, or [`io::ErrorKind::NotADirectory`] if something else is in the way.
pub fn create_folder(path: &Path, access: Access) -> io::Result<Vec<PathBuf>> {
    let path = resolve(path)?;
    let mut missing = Vec::new();
    for folder in path.ancestors() {
        match fs::metadata(folder) {
            Ok(there) if there.is_dir() => {
                sync_found_name(folder)?;
                break;
            }
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(folder),
            Err(error) => return Err(error),
        }
    }
    let mut made = Vec::new();
    for folder in missing.into_iter().rev() {
        if make(folder, access)? {
            made.push(folder.to_owned());
        }
        sync_folder(parent(folder))?;
    }
    Ok(made)
}

/// `false`: somebody else has just made it.
fn make(folder: &Path, access: Access) -> io::Result<bool> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, access.folder_mode());
    #[cfg(not(unix))]
    let _ = access;
    match builder.create(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the names in a folder durable. Where folders cannot be synced nothing is done.
///
/// # Errors
///
/// What the system says, but that syncing this folder has no meaning.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match open(folder) {
        Ok(Some(folder)) => settle(folder.sync_all()),
        Ok(None) => Ok(()),
        #[cfg(unix)]
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // A folder that one may write to and not read: all that is left is to sync everything.
            rustix::fs::sync();
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Makes the name that a path ends with durable: syncs the folder that holds it.
///
/// # Errors
///
/// As for [`sync_folder`].
pub fn sync_parent(path: &Path) -> io::Result<()> {
    sync_folder(parent(path))
}

/// Syncs the name of a file or folder that was there, in case a run that was cut has made it.
///
/// As far as it may: where the folder above may not be read, or is on a file system that cannot be
/// written, somebody else has made it.
///
/// # Errors
///
/// As for [`sync_folder`].
pub fn sync_found_name(path: &Path) -> io::Result<()> {
    let outcome = match open(parent(path)) {
        Ok(Some(above)) => settle(above.sync_all()),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    match outcome {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}

/// `None` on systems that don't open folders.
fn open(folder: &Path) -> io::Result<Option<File>> {
    if cfg!(unix) {
        File::open(folder).map(Some)
    } else {
        Ok(None)
    }
}

fn settle(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if has_no_meaning(&error) || is_bad_descriptor(&error) => Ok(()),
        outcome => outcome,
    }
}

/// How some systems say that they don't sync folders that are open for reading.
fn is_bad_descriptor(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::BADF)
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn folders_are_made_once_and_private_ones_are_the_owners() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let made = create_folder(&root.join("a/b/c"), Access::Private).unwrap();
        assert_eq!(made, [root.join("a"), root.join("a/b"), root.join("a/b/c")]);
        assert!(made.iter().all(|folder| mode(folder) == 0o700));
        assert!(
            create_folder(&root.join("a/b/c"), Access::Public)
                .unwrap()
                .is_empty()
        );
        assert_eq!(mode(&root.join("a/b")), 0o700);
    }

    #[test]
    fn a_link_to_a_folder_that_is_missing_stays_and_its_target_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("disk/data", &link).unwrap();
        create_folder(&link.join("logs"), Access::Private).unwrap();
        assert!(folder.path().join("disk/data/logs").is_dir());
        assert!(link.symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn what_is_in_the_way_is_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for path in ["file", "file/below", "file/below/more"] {
            let error = create_folder(&folder.path().join(path), Access::Private).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{path}");
        }
    }

    #[test]
    fn errors_of_the_disk_are_not_taken_for_a_sync_without_meaning() {
        use rustix::io::Errno;
        for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT] {
            assert!(settle(Err(errno.into())).is_err(), "{errno}");
        }
        for errno in [Errno::INVAL, Errno::NOTSUP, Errno::BADF] {
            settle(Err(errno.into())).unwrap();
        }
    }
}
