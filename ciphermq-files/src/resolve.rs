//! What a path leads to.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// As many links as Linux follows.
const MAX_LINKS: usize = 40;

/// The absolute path without links that a path leads to, whether its end is there or not.
///
/// A file that is made at the resolved path stands where one that is opened at the given path
/// would; a link stays a link. The entries of `/proc/<process>/fd`, where `/dev/stdout` leads, stay
/// as they are: they are no names of files.
///
/// # Errors
///
/// What the system says: links in a circle, a folder that may not be searched. And
/// [`io::ErrorKind::PermissionDenied`] for a link of another user in a folder where everybody may
/// put one, as `/tmp`: it may be a trap.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut real = PathBuf::new();
    let mut rest: Vec<Part> = Vec::new();
    push(&mut rest, &path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        match part {
            Part::Root(root) => real = root.into(),
            Part::Parent => {
                real.pop();
            }
            Part::Name(name) => {
                real.push(name);
                let Some(target) = link_target(&real)? else {
                    continue;
                };
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::other("too many levels of symbolic links"));
                }
                real.pop();
                push(&mut rest, &target);
            }
        }
    }
    Ok(real)
}

/// Whether a resolved path names an open file of a process, not a file by its name.
#[must_use]
pub fn is_descriptor(resolved: &Path) -> bool {
    resolved.starts_with("/proc")
        && resolved
            .parent()
            .is_some_and(|folder| folder.ends_with("fd"))
}

enum Part {
    /// Of an absolute path; with the drive where there are drives.
    Root(OsString),
    Parent,
    Name(OsString),
}

/// Puts a path's parts on the pile, the first on top.
fn push(rest: &mut Vec<Part>, path: &Path) {
    let mut root = OsString::new();
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Prefix(_) => root.push(component),
            Component::RootDir => {
                root.push(component);
                parts.push(Part::Root(std::mem::take(&mut root)));
            }
            Component::CurDir => {}
            Component::ParentDir => parts.push(Part::Parent),
            Component::Normal(name) => parts.push(Part::Name(name.to_owned())),
        }
    }
    rest.extend(parts.into_iter().rev());
}

/// Where a link leads; `None` if there is none.
fn link_target(path: &Path) -> io::Result<Option<PathBuf>> {
    match std::fs::read_link(path) {
        Ok(_) if is_descriptor(path) => Ok(None),
        Ok(target) => {
            refuse_trap(path)?;
            Ok(Some(target))
        }
        // It is no link, or nothing at all.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Linux's rule for links in folders that everybody may write to (`fs.protected_symlinks`), which
/// holds for opening only.
fn refuse_trap(link: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        const STICKY_AND_OPEN_TO_ALL: u32 = 0o1002;
        let folder = std::fs::metadata(crate::folder::parent(link))?;
        let owner = std::fs::symlink_metadata(link)?.uid();
        let is_shared = folder.mode() & STICKY_AND_OPEN_TO_ALL == STICKY_AND_OPEN_TO_ALL;
        if is_shared && owner != folder.uid() && owner != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "{} is another user's link in a folder that all may write to",
                    link.display()
                ),
            ));
        }
    }
    #[cfg(not(unix))]
    let _ = link;
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_dots_and_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/file"), "").unwrap();
        symlink("a/b", root.join("to-b")).unwrap();
        symlink(root.join("a/new"), root.join("to-new")).unwrap();
        symlink("to-new", root.join("to-to-new")).unwrap();
        for (path, target) in [
            ("a/file", "a/file"),
            ("./a/../a/./file", "a/file"),
            ("to-b/../file", "a/file"),
            ("to-new", "a/new"),
            ("to-to-new", "a/new"),
            ("to-b/x/y", "a/b/x/y"),
            ("missing/../a/file", "a/file"),
        ] {
            assert_eq!(
                resolve(&root.join(path)).unwrap(),
                root.join(target),
                "{path}"
            );
        }
        assert_eq!(resolve(Path::new("/../..")).unwrap(), Path::new("/"));
        symlink("circle", root.join("circle")).unwrap();
        assert!(resolve(&root.join("circle")).is_err());
        assert!(resolve(&root.join("a/file/below")).is_err());
    }

    #[test]
    fn open_files_are_no_names() {
        let file = tempfile::tempfile().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        for path in [
            format!("/dev/fd/{number}"),
            format!("/proc/self/fd/{number}"),
        ] {
            let path = resolve(Path::new(&path)).unwrap();
            assert!(is_descriptor(&path), "{}", path.display());
            assert!(fs::metadata(&path).unwrap().is_file());
        }
        assert!(!is_descriptor(Path::new("/home/fd/1")));
        assert!(!is_descriptor(&resolve(Path::new("/dev/null")).unwrap()));
    }
}
