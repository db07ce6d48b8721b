//! Paths: the folder of a file, and the target through links.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The limit on links in one path, the same as Linux's.
const MAX_LINKS: usize = 40;

/// Returns the folder that contains a path's last component; `.` for a bare name.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Resolves a path to an absolute one without links, whether its target exists or not.
///
/// Creating a file at the resolved path has the same effect as at the given one, and leaves the
/// links in place. The entries of `/proc/<process>/fd`, to which `/dev/stdout` leads, are not
/// resolved: their targets are not necessarily names of files.
///
/// # Errors
///
/// The operating system's error, such as for a folder that may not be searched; an error for a
/// cycle of links; [`io::ErrorKind::PermissionDenied`] for another user's link in a sticky folder
/// that everybody may write to, such as `/tmp`, where it may be planted.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut real = PathBuf::new();
    let mut rest: Vec<Part> = Vec::new();
    push_components(&mut rest, &path);
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
                push_components(&mut rest, &target);
            }
        }
    }
    Ok(real)
}

/// Returns whether a resolved path denotes a process's file descriptor rather than a named file.
#[must_use]
pub fn is_descriptor(resolved: &Path) -> bool {
    resolved.starts_with("/proc")
        && resolved
            .parent()
            .is_some_and(|folder| folder.ends_with("fd"))
}

/// A component of a path that is still to be resolved.
enum Part {
    /// The root of an absolute path, with the drive on systems that have drives.
    Root(OsString),
    Parent,
    Name(OsString),
}

/// Pushes the components of a path onto a stack, the first on top.
fn push_components(rest: &mut Vec<Part>, path: &Path) {
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

/// Returns the target of a link; `None` if the path is not a link.
fn link_target(path: &Path) -> io::Result<Option<PathBuf>> {
    match std::fs::read_link(path) {
        Ok(_) if is_descriptor(path) => Ok(None),
        Ok(target) => {
            refuse_foreign_link(path)?;
            Ok(Some(target))
        }
        // It is not a link (EINVAL), or does not exist.
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

/// Refuses another user's link in a sticky folder that everybody may write to.
///
/// It is Linux's rule `fs.protected_symlinks`, which the kernel does not apply to reading a link.
fn refuse_foreign_link(link: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        const STICKY_AND_OPEN_TO_ALL: u32 = 0o1002;
        let folder = std::fs::metadata(parent(link))?;
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
    fn links_dots_and_missing_targets_are_resolved() {
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
    fn descriptors_are_not_resolved() {
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
