//! The kinds of output: a regular file, or a stream, which is never read.

use std::fs;
use std::path::Path;

use ciphermq_files::{is_descriptor, own_descriptor, resolve};

/// The kind of output that `--output` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// A file: locked, with a checkpoint that knows it in later runs.
    File,
    /// Standard output, under any name.
    Stdout,
    /// A pipe, a terminal or a device, or another open descriptor.
    Stream,
}

impl OutputKind {
    /// Determines the kind of output that a path leads to.
    ///
    /// A descriptor (`/dev/stdout`, `/dev/fd/3`, `/proc/self/fd/3`) has a meaning in this run only,
    /// and no folder for a checkpoint: a file that it leads to is a [`File`](Self::File) only if
    /// `has_checkpoint`, that is, if one is named.
    pub(crate) fn of(output: &Path, has_checkpoint: bool) -> Self {
        if output == Path::new("-") {
            return Self::Stdout;
        }
        let is_file = match fs::metadata(output) {
            Ok(metadata) => metadata.is_file() || metadata.is_dir(),
            Err(_) => true,
        };
        match resolve(output) {
            Ok(path) if is_descriptor(&path) && !(is_file && has_checkpoint) => {
                match own_descriptor(&path) {
                    Some(1) => Self::Stdout,
                    _ => Self::Stream,
                }
            }
            _ if is_file => Self::File,
            _ => Self::Stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn descriptors_are_streams_unless_a_checkpoint_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        let open = fs::File::open(&path).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&open);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/stdout", &link).unwrap();
        let link = link.display().to_string();
        for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", &link] {
            assert_eq!(
                OutputKind::of(Path::new(name), false),
                OutputKind::Stdout,
                "{name}"
            );
        }
        for name in [
            format!("/dev/fd/{number}"),
            format!("/proc/self/fd/{number}"),
            format!("/proc/thread-self/fd/{number}"),
        ] {
            assert_eq!(
                OutputKind::of(name.as_ref(), false),
                OutputKind::Stream,
                "{name}"
            );
            assert_eq!(
                OutputKind::of(name.as_ref(), true),
                OutputKind::File,
                "{name}"
            );
        }
        for has_checkpoint in [false, true] {
            let of = |path: &Path| OutputKind::of(path, has_checkpoint);
            assert_eq!(of(Path::new("/dev/null")), OutputKind::Stream);
            assert_eq!(of(&path), OutputKind::File);
            assert_eq!(of(&folder.path().join("new")), OutputKind::File);
            assert_eq!(of(folder.path()), OutputKind::File);
        }
    }
}
