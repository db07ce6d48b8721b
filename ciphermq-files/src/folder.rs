//! Creates folders, and makes the names in them durable.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::access::Access;
use crate::resolve::{parent, resolve};
use crate::sync::is_sync_unsupported;

/// Creates a folder and its missing parents, and returns those that were created, topmost first.
///
/// The name of each is synced in its parent before the next level is created. The deepest existing
/// folder is synced in its parent as well: an interrupted run may have created it without syncing
/// it. Because every level is synced before the next, at most one such folder exists.
///
/// # Errors
///
/// The operating system's error, or [`io::ErrorKind::NotADirectory`] if a component of the path is
/// not a folder.
pub fn create_folder(path: &Path, access: Access) -> io::Result<Vec<PathBuf>> {
    let path = resolve(path)?;
    let mut missing = Vec::new();
    for folder in path.ancestors() {
        match fs::metadata(folder) {
            Ok(metadata) if metadata.is_dir() => {
                sync_existing_name(folder)?;
                break;
            }
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(folder),
            Err(error) => return Err(error),
        }
    }
    let mut created = Vec::new();
    for folder in missing.into_iter().rev() {
        if create_if_missing(folder, access)? {
            created.push(folder.to_owned());
        }
        sync_folder(parent(folder))?;
    }
    Ok(created)
}

/// Creates one folder, and returns `false` if another process has created it in the meantime.
fn create_if_missing(folder: &Path, access: Access) -> io::Result<bool> {
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

/// Makes the names in a folder durable; does nothing on systems that cannot sync folders.
///
/// # Errors
///
/// The operating system's error, unless it reports that this folder does not support syncing.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match open(folder) {
        Ok(Some(folder)) => accept_unsyncable_folder(folder.sync_all()),
        Ok(None) => Ok(()),
        #[cfg(unix)]
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // A folder that may be written but not read cannot be opened: sync all file systems.
            rustix::fs::sync();
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Makes a path's last component durable, by syncing the folder that contains it.
///
/// # Errors
///
/// As for [`sync_folder`].
pub fn sync_parent(path: &Path) -> io::Result<()> {
    sync_folder(parent(path))
}

/// Syncs the name of a file that was found and is going to be relied on: the process that made it
/// may have been killed before it did. A link's target is synced.
///
/// # Errors
///
/// As for [`sync_folder`]. A folder as for [`sync_existing_name`] is skipped.
pub fn sync_found_name(path: &Path) -> io::Result<()> {
    sync_existing_name(&resolve(path)?)
}

/// Syncs the name of an existing file or folder, in case an interrupted run has created it.
///
/// A parent that may not be read, or is on a read-only file system, is skipped: such a run cannot
/// have created the name there.
///
/// # Errors
///
/// As for [`sync_folder`].
pub fn sync_existing_name(path: &Path) -> io::Result<()> {
    let outcome = match open(parent(path)) {
        Ok(Some(parent)) => accept_unsyncable_folder(parent.sync_all()),
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

/// Opens a folder for syncing; `None` on systems that cannot open folders.
fn open(folder: &Path) -> io::Result<Option<File>> {
    if cfg!(unix) {
        File::open(folder).map(Some)
    } else {
        Ok(None)
    }
}

/// Turns the error of a folder that does not support syncing into success.
fn accept_unsyncable_folder(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if is_sync_unsupported(&error) || is_bad_descriptor(&error) => Ok(()),
        outcome => outcome,
    }
}

/// Returns whether the error is EBADF, with which some systems refuse to sync folders that are open
/// for reading.
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
    fn folders_are_created_once_and_private_ones_are_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let created = create_folder(&root.join("a/b/c"), Access::Private).unwrap();
        assert_eq!(
            created,
            [root.join("a"), root.join("a/b"), root.join("a/b/c")]
        );
        assert!(created.iter().all(|folder| mode(folder) == 0o700));
        assert!(
            create_folder(&root.join("a/b/c"), Access::Public)
                .unwrap()
                .is_empty()
        );
        assert_eq!(mode(&root.join("a/b")), 0o700);
    }

    #[test]
    fn a_link_to_a_missing_folder_is_kept_and_its_target_is_created() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("disk/data", &link).unwrap();
        create_folder(&link.join("logs"), Access::Private).unwrap();
        assert!(folder.path().join("disk/data/logs").is_dir());
        assert!(link.symlink_metadata().unwrap().is_symlink());
    }

    #[test]
    fn a_path_through_a_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for path in ["file", "file/below", "file/below/more"] {
            let error = create_folder(&folder.path().join(path), Access::Private).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{path}");
        }
    }

    #[test]
    fn disk_errors_are_not_mistaken_for_an_unsupported_sync() {
        use rustix::io::Errno;
        for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT] {
            assert!(
                accept_unsyncable_folder(Err(errno.into())).is_err(),
                "{errno}"
            );
        }
        for errno in [Errno::INVAL, Errno::NOTSUP, Errno::BADF] {
            accept_unsyncable_folder(Err(errno.into())).unwrap();
        }
    }
}
