//! The identity of files: whether two paths lead to the same one.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;

use crate::resolve::resolve;

/// The identity of a file, independent of its path: device and inode.
///
/// On systems other than Unix it is the resolved path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileId {
    #[cfg(unix)]
    device: u64,
    #[cfg(unix)]
    inode: u64,
    #[cfg(not(unix))]
    path: std::path::PathBuf,
}

#[cfg(unix)]
impl FileId {
    /// Returns the identity of the file that has this metadata.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

impl FileId {
    /// Returns the identity of the file or folder at a path; `None` if nothing exists there.
    ///
    /// # Errors
    ///
    /// The operating system's error, except that nothing exists there.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            #[cfg(unix)]
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            #[cfg(not(unix))]
            Ok(_) => Ok(Some(Self {
                path: resolve(path)?,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether a path leads to this open file; `false` if the system cannot determine it.
    #[must_use]
    pub fn leads_to(path: &Path, file: &File) -> bool {
        match (file.metadata(), fs::metadata(path)) {
            #[cfg(unix)]
            (Ok(opened), Ok(found)) => Self::of(&opened) == Self::of(&found),
            #[cfg(not(unix))]
            (Ok(_), Ok(_)) => true,
            _ => false,
        }
    }
}

/// Returns whether two paths lead to the same file or folder, through links of either kind.
///
/// Two missing files are the same if creating them would create one file: they have the same name
/// in the same folder, by whatever paths that is reached. Whether a file system treats two
/// spellings as one name is visible only once the file exists, so call this again then.
///
/// Devices and pipes are never the same: they store nothing that could be overwritten. Neither are
/// paths that cannot be examined, as they cannot be opened.
#[must_use]
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        #[cfg(unix)]
        (Ok(first), Ok(second)) => {
            (first.is_file() || first.is_dir()) && FileId::of(&first) == FileId::of(&second)
        }
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
        _ => match (future_location(one), future_location(other)) {
            (Some(one), Some(other)) => one == other,
            _ => false,
        },
    }
}

/// Returns where a missing file would be created: its deepest existing folder, and the names below
/// it, last first.
///
/// The folder is identified by its inode: with bind mounts it has several paths.
fn future_location(path: &Path) -> Option<(FileId, Vec<OsString>)> {
    let path = resolve(path).ok()?;
    let mut names = Vec::new();
    for folder in path.ancestors() {
        match FileId::at(folder) {
            Ok(Some(folder)) => return Some((folder, names)),
            Ok(None) => names.push(folder.file_name()?.to_owned()),
            Err(_) => return None,
        }
    }
    None
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_same_file_is_recognised_in_any_spelling_and_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "").unwrap();
        fs::write(at("b"), "").unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink("a", at("symbolic")).unwrap();
        fs::hard_link(at("a"), at("hard")).unwrap();
        symlink(folder.path(), at("round")).unwrap();
        for name in [
            "a",
            "./a",
            "folder/../a",
            "symbolic",
            "hard",
            "round/a",
            "round/hard",
        ] {
            assert!(is_same_file(&at("a"), &at(name)), "{name}");
            assert!(!is_same_file(&at("b"), &at(name)), "{name}");
        }
        symlink("new", at("to-new")).unwrap();
        for (name, other) in [
            ("new", "newer"),
            ("new/a", "new/b"),
            ("new/a", "new"),
            ("a/b", "b"),
        ] {
            assert!(!is_same_file(&at(name), &at(other)), "{name} {other}");
        }
        assert!(is_same_file(&at("new/a"), &at("round/folder/../new/a")));
        for name in ["new", "to-new", "folder/../new", "round/new"] {
            assert!(is_same_file(&at("new"), &at(name)), "{name}");
            assert!(!is_same_file(&at("a"), &at(name)), "{name}");
        }
        assert!(!is_same_file(
            Path::new("/dev/null"),
            Path::new("/dev/null")
        ));
    }

    /// Needs the permission to mount, as in a container; without it, nothing is tested.
    #[cfg(target_os = "linux")]
    #[test]
    fn missing_files_in_a_bind_mount_are_the_same_as_in_the_original_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        fs::create_dir_all(one.join("below")).unwrap();
        fs::create_dir(&other).unwrap();
        let mount = |arguments: &[&std::ffi::OsStr]| {
            let command = arguments.split_first().unwrap();
            std::process::Command::new(command.0)
                .args(command.1)
                .stderr(std::process::Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        if !mount(&[
            "mount".as_ref(),
            "--bind".as_ref(),
            one.as_ref(),
            other.as_ref(),
        ]) {
            return;
        }
        let same = ["new", "below/new", "new/deeper"]
            .map(|name| is_same_file(&one.join(name), &other.join(name)));
        let different = is_same_file(&one.join("new"), &other.join("below/new"));
        assert!(mount(&["umount".as_ref(), other.as_ref()]));
        assert_eq!((same, different), ([true; 3], false));
    }
}
