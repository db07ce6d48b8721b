//! Opens files for writing, without following links that appear in the meantime.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::access::Access;
use crate::advice::NoReader;
use crate::descriptor::{Need, duplicate_descriptor, own_descriptor};
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
/// its other users do, and may not be readable. A named pipe is opened for writing only, and must
/// have a reader: what is written into one that nobody reads is lost. A missing file is created,
/// with private parent folders; an existing one keeps its mode. The name is synced in both cases:
/// an interrupted run may have created the file without syncing it.
///
/// # Errors
///
/// The operating system's error; a [`DescriptorError`](crate::DescriptorError) or [`NoReader`]
/// inside [`io::Error`].
pub fn open_append(path: &Path, access: Access) -> io::Result<(File, PathBuf)> {
    let path = resolve(path)?;
    if let Some(number) = own_descriptor(&path) {
        return Ok((duplicate_descriptor(number, Need::Write)?, path));
    }
    if let Some(pipe) = open_named_pipe(&path)? {
        return Ok((pipe, path));
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

/// Opens a named pipe for writing, without waiting for a reader; `None` if the path leads to
/// anything else.
///
/// # Errors
///
/// [`NoReader`] inside [`io::Error`]; or the operating system's error.
#[cfg(unix)]
pub fn open_named_pipe(path: &Path) -> io::Result<Option<File>> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use rustix::io::Errno;
    use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
    if !std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return Ok(None);
    }
    let mut options = OpenOptions::new();
    options
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let pipe = options.open(path).map_err(|error| {
        if Errno::from_io_error(&error) == Some(Errno::NXIO) {
            NoReader.into()
        } else {
            error
        }
    })?;
    // Later writes wait for a slow reader.
    fcntl_setfl(&pipe, fcntl_getfl(&pipe)? - OFlags::NONBLOCK)?;
    Ok(Some(pipe))
}

/// Opens a named pipe for writing.
///
/// # Errors
///
/// None: there are no named pipes in this system's folders.
#[cfg(not(unix))]
pub fn open_named_pipe(_: &Path) -> io::Result<Option<File>> {
    Ok(None)
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
    fn a_named_pipe_must_have_a_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        let error = open_append(&path, Access::Private).unwrap_err();
        assert!(error.to_string().contains("nobody reads"), "{error}");
        let mut reader = OpenOptions::new();
        // Opened for both, it does not wait for a writer.
        let mut reader = reader.read(true).write(true).open(&path).unwrap();
        let (mut pipe, _) = open_append(&path, Access::Private).unwrap();
        pipe.write_all(b"line\n").unwrap();
        let mut line = [0; 5];
        std::io::Read::read_exact(&mut reader, &mut line).unwrap();
        assert_eq!(&line, b"line\n");
        drop(reader);
        let error = pipe.write_all(b"line\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
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
