//! Whether two paths lead to one file.

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

/// Whether two paths lead to the same file, by links of either kind, or would if it were made.
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
        _ => match (resolve(one), resolve(other)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        },
    }
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
        for name in ["new", "to-new", "folder/../new", "round/new"] {
            assert!(is_same_file(&at("new"), &at(name)), "{name}");
            assert!(!is_same_file(&at("a"), &at(name)), "{name}");
        }
        assert!(!is_same_file(
            Path::new("/dev/null"),
            Path::new("/dev/null")
        ));
    }
}
