//! What an output is: a file of its own, or what is written once and never read.

use std::fs;
use std::path::Path;

use ciphermq_files::{is_descriptor, resolve};

/// What `--output` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A file: locked, and known again by its checkpoint.
    File,
    /// Standard output, by whatever name.
    Stdout,
    /// A pipe, a terminal or a device, or another open descriptor.
    Stream,
}

impl Target {
    /// Looks at what a path leads to.
    ///
    /// A descriptor (`/dev/stdout`, `/dev/fd/3`, `/proc/self/fd/3`) is this run's own, and there is
    /// no place beside it: a file that it leads to is known again only if a checkpoint is named.
    pub(crate) fn of(output: &Path, has_checkpoint: bool) -> Self {
        if output == Path::new("-") {
            return Self::Stdout;
        }
        let is_file = match fs::metadata(output) {
            Ok(there) => there.is_file() || there.is_dir(),
            Err(_) => true,
        };
        match resolve(output) {
            Ok(place) if is_descriptor(&place) && !(is_file && has_checkpoint) => {
                match is_stdout(&place) {
                    true => Self::Stdout,
                    false => Self::Stream,
                }
            }
            _ if is_file => Self::File,
            _ => Self::Stream,
        }
    }
}

/// Whether a resolved path of a descriptor is this process's standard output.
fn is_stdout(place: &Path) -> bool {
    place.ends_with("fd/1") && place.starts_with(format!("/proc/{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn descriptors_have_no_place_of_their_own_unless_a_checkpoint_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        let open = fs::File::open(&path).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&open);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/stdout", &link).unwrap();
        let link = link.display().to_string();
        for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", &link] {
            assert_eq!(Target::of(Path::new(name), false), Target::Stdout, "{name}");
        }
        for name in [
            format!("/dev/fd/{number}"),
            format!("/proc/self/fd/{number}"),
            format!("/proc/thread-self/fd/{number}"),
        ] {
            assert_eq!(Target::of(name.as_ref(), false), Target::Stream, "{name}");
            assert_eq!(Target::of(name.as_ref(), true), Target::File, "{name}");
        }
        for has_checkpoint in [false, true] {
            let of = |path: &Path| Target::of(path, has_checkpoint);
            assert_eq!(of(Path::new("/dev/null")), Target::Stream);
            assert_eq!(of(&path), Target::File);
            assert_eq!(of(&folder.path().join("new")), Target::File);
            assert_eq!(of(folder.path()), Target::File);
        }
    }
}
