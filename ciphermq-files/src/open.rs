//! Opens files for writing, without following links that appear in the meantime.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::access::Access;
use crate::descriptor::{duplicate_descriptor, own_descriptor};
use crate::folder::{create_folder, sync_parent};
use crate::resolve::{is_descriptor, parent, resolve};

/// Creates a new file for reading and writing; a link in its place counts as an existing file.
///
/// The name is not synced, which is useful only after the contents are: see [`sync_parent`].
///
/// # Errors
///
/// The operating system's error; [`io::ErrorKind::AlreadyExists`] if the name is in use.
pub fn create_new(path: &Path, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, access.file_mode());
    #[cfg(not(unix))]
    let _ = access;
    options.open(path)
}

/// Opens a file for appending and reading, and returns it with its resolved path.
///
/// Links are resolved first. A descriptor of this process is duplicated instead: it writes where
/// its other users do, and may not be readable. A missing file is created, with private parent
/// folders; an existing one keeps its mode. The name is synced in both cases: an interrupted run
/// may have created the file without syncing it.
///
/// # Errors
///
/// The operating system's error.
pub fn open_append(path: &Path, access: Access) -> io::Result<(File, PathBuf)> {
    let path = resolve(path)?;
    if let Some(number) = own_descriptor(&path) {
        return Ok((duplicate_descriptor(number)?, path));
    }
    let mut options = OpenOptions::new();
    options.read(true).append(true);
    if is_descriptor(&path) {
        return Ok((options.open(&path)?, path));
    }
    create_folder(parent(&path), Access::Private)?;
    options.create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(access.file_mode());
        options.custom_flags(no_follow());
    }
    #[cfg(not(unix))]
    let _ = access;
    let file = options.open(&path)?;
    if file.metadata()?.is_file() {
        sync_parent(&path)?;
    }
    Ok((file, path))
}

#[cfg(unix)]
fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        symlink(&target, &link).unwrap();
        let error = create_new(&link, Access::Private).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(!target.exists());
    }

    #[test]
    fn new_files_are_private_and_existing_ones_keep_their_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/file");
        open_append(&path, Access::Private)
            .unwrap()
            .0
            .write_all(b"one")
            .unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        open_append(&path, Access::Private)
            .unwrap()
            .0
            .write_all(b"two")
            .unwrap();
        assert_eq!(mode(&path), 0o640);
        assert_eq!(fs::read(&path).unwrap(), b"onetwo");
    }

    #[test]
    fn the_users_own_link_is_kept_and_its_target_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("disk/target", &link).unwrap();
        let (mut file, path) = open_append(&link, Access::Private).unwrap();
        file.write_all(b"x").unwrap();
        assert!(path.ends_with("disk/target"));
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read(&link).unwrap(), b"x");
        open_append(Path::new("/dev/null"), Access::Private).unwrap();
    }
}
