//! Temporary folders and files.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use tempfile::TempDir;

/// Creates a temporary folder that only its owner can access, removed when the value is dropped.
pub(crate) fn folder(what: &str) -> TempDir {
    folder_in(&std::env::temp_dir(), what)
}

/// Creates a folder like [`folder`] inside `place`.
pub(crate) fn folder_in(place: &Path, what: &str) -> TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .prefix(&format!("ciphermq-{what}-"))
        .tempdir_in(place)
        .unwrap_or_else(|error| {
            panic!(
                "a temporary folder cannot be created in {}: {error}",
                place.display()
            )
        })
}

/// Creates a file with the mode `mode`.
pub(crate) fn create(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_ref()))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
