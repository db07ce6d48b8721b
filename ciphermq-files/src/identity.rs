//! Whether two paths lead to one file.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;

use crate::resolve::resolve;

/// Which file it is, whatever it is called: device and inode. On other systems than Unix its
/// resolved path.
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
    /// Of a file's metadata.
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
    /// Of what a path leads to; `None` if there is nothing.
    ///
    /// # Errors
    ///
    /// What the system says.
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

    /// Whether a path leads to this open file. What cannot be told counts as no.
    #[must_use]
    pub fn leads_to(path: &Path, file: &File) -> bool {
        match (file.metadata(), fs::metadata(path)) {
            #[cfg(unix)]
            (Ok(ours), Ok(there)) => Self::of(&ours) == Self::of(&there),
            #[cfg(not(unix))]
            (Ok(_), Ok(_)) => true,
            _ => false,
        }
    }
}

/// Whether two paths lead to the same file, by links of either kind, or would if it were made: in
/// the same folder, however that is reached.
///
/// Whether a folder takes two spellings for one name shows only once there is a file: look again
/// then.
///
/// Devices and pipes hold nothing that could be lost, and are nobody's: they are never the same.
/// What cannot be looked at is not the same either, as it cannot be opened.
#[must_use]
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        #[cfg(unix)]
        (Ok(first), Ok(second)) => {
            (first.is_file() || first.is_dir()) && FileId::of(&first) == FileId::of(&second)
        }
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
        _ => match (missing(one), missing(other)) {
            (Some(one), Some(other)) => one == other,
            _ => false,
        },
    }
}

/// Where a file that is not there would be: in which folder that is there, and by what names from
/// there. A folder can have several paths, as with bind mounts.
fn missing(path: &Path) -> Option<(FileId, Vec<OsString>)> {
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
    fn however_it_is_spelt_or_linked() {
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

    /// Needs the right to mount, as in a container: without it nothing is tested.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_that_is_mounted_a_second_time_is_the_same_for_files_that_are_not_there_yet() {
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
