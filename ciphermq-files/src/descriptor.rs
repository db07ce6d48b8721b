//! This process's open descriptors, as paths such as `/dev/stderr` and `/dev/fd/3` name them.
//!
//! Opening such a path opens the file once more, with an offset of its own: what the descriptor's
//! other users write then overwrites the same bytes. So a descriptor is duplicated instead, and all
//! of its users share one offset.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

/// Returns the number of this process's descriptor that a [resolved](crate::resolve) path denotes;
/// `None` for files, and for descriptors of other processes.
///
/// Always `None` on systems without `/proc/self`: there, opening the path duplicates it.
#[must_use]
pub fn own_descriptor(resolved: &Path) -> Option<i32> {
    let below = resolved.strip_prefix("/proc").ok()?;
    let parts: Option<Vec<&str>> = below.iter().map(|part| part.to_str()).collect();
    let (process, number) = match parts?.as_slice() {
        [process, "fd", number] | [process, "task", _, "fd", number] => (*process, *number),
        _ => return None,
    };
    let own = std::fs::read_link("/proc/self").ok()?;
    (own == Path::new(process))
        .then(|| number.parse().ok())
        .flatten()
        .filter(|number| *number >= 0)
}

/// The purpose of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Reading.
    Read,
    /// Writing.
    Write,
}

/// The reason why a descriptor cannot be used; the text continues "cannot be opened:".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DescriptorError {
    /// The descriptor was not open when the program started.
    Closed,
    /// The descriptor is to be written, and is open for reading only.
    ReadOnly,
    /// The descriptor is to be read, and is open for writing only.
    WriteOnly,
}

impl fmt::Display for DescriptorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "it is closed",
            Self::ReadOnly => "it is open for reading only",
            Self::WriteOnly => "it is open for writing only",
        })
    }
}

impl std::error::Error for DescriptorError {}

impl From<DescriptorError> for io::Error {
    fn from(error: DescriptorError) -> Self {
        Self::other(error)
    }
}

/// Duplicates a descriptor that was open when the program started, for reading or for writing.
///
/// # Errors
///
/// A [`DescriptorError`] inside [`io::Error`] if it was closed then, or is open for the other
/// direction only; or the operating system's error.
#[cfg(unix)]
pub fn duplicate_descriptor(number: i32, need: Need) -> io::Result<File> {
    use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd};
    check_descriptor(number, need)?;
    let descriptor = borrowed(number);
    // The program's own files and sockets are not inherited by the programs that it starts, and
    // were not inherited by itself.
    if fcntl_getfd(descriptor)?.contains(FdFlags::CLOEXEC) {
        return Err(DescriptorError::Closed.into());
    }
    Ok(fcntl_dupfd_cloexec(descriptor, 0)?.into())
}

/// Checks that a descriptor was open when the program started, and for this use. A standard stream
/// that is open for the other direction would take or yield nothing, without an error.
///
/// # Errors
///
/// As [`duplicate_descriptor`].
#[cfg(unix)]
pub fn check_descriptor(number: i32, need: Need) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::io::Errno;
    if number < 0 || was_closed(number) {
        return Err(DescriptorError::Closed.into());
    }
    let flags = match fcntl_getfl(borrowed(number)) {
        Ok(flags) => flags,
        Err(Errno::BADF) => return Err(DescriptorError::Closed.into()),
        Err(error) => return Err(error.into()),
    };
    match (flags & OFlags::ACCMODE, need) {
        (OFlags::RDONLY, Need::Write) => Err(DescriptorError::ReadOnly.into()),
        (OFlags::WRONLY, Need::Read) => Err(DescriptorError::WriteOnly.into()),
        _ => Ok(()),
    }
}

/// Checks that a descriptor was open when the program started, and for this use.
///
/// # Errors
///
/// None on this system, where it is not known.
#[cfg(not(unix))]
pub fn check_descriptor(_: i32, _: Need) -> io::Result<()> {
    Ok(())
}

/// Duplicates a descriptor that was open when the program started.
///
/// # Errors
///
/// Always: paths denote no descriptors on this system.
#[cfg(not(unix))]
pub fn duplicate_descriptor(_: i32, _: Need) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns whether every write through a descriptor goes to the end of the file (`>>` in a shell).
#[must_use]
pub fn is_appending(file: &File) -> bool {
    #[cfg(unix)]
    {
        use rustix::fs::{OFlags, fcntl_getfl};
        fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::APPEND))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        false
    }
}

/// Returns whether a standard stream (0, 1 or 2) was closed when the program started.
///
/// Before `main`, Rust's runtime opens `/dev/null` in its place, which accepts everything and is
/// empty: data would be lost without an error. So the descriptors are checked before the runtime
/// starts. Always `false` on systems other than Linux.
#[must_use]
pub fn was_closed(number: i32) -> bool {
    #[cfg(target_os = "linux")]
    {
        let was_closed = usize::try_from(number)
            .ok()
            .and_then(|number| before_main::WAS_CLOSED.get(number));
        was_closed.is_some_and(|closed| closed.load(std::sync::atomic::Ordering::Relaxed))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = number;
        false
    }
}

/// Borrows a descriptor by its number, for system calls that report whether it is open.
#[cfg(unix)]
#[expect(
    unsafe_code,
    reason = "there is no safe way from a number to a descriptor"
)]
fn borrowed(number: i32) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: the number is not -1. If it is not open, the calls that it is used for fail with
    // EBADF, and nothing else happens; the program closes no descriptor that it has not opened.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(number.max(0)) }
}

#[cfg(target_os = "linux")]
mod before_main {
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Whether each standard stream was closed when the program started.
    pub(super) static WAS_CLOSED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

    /// A function that the loader calls before Rust's runtime starts.
    // SAFETY: the section holds pointers to functions of exactly this type. This one gets the
    // flags of descriptors from the system and sets atomics: it does not depend on the runtime.
    #[expect(unsafe_code, reason = "there is no safe way to run before the runtime")]
    #[unsafe(link_section = ".init_array")]
    #[used]
    static BEFORE_MAIN: extern "C" fn() = {
        extern "C" fn check_descriptors() {
            for (number, was_closed) in (0..).zip(&WAS_CLOSED) {
                let flags = rustix::io::fcntl_getfd(super::borrowed(number));
                was_closed.store(flags == Err(rustix::io::Errno::BADF), Ordering::Relaxed);
            }
        }
        check_descriptors
    };
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};
    use std::os::fd::{AsRawFd as _, OwnedFd};

    /// A descriptor as a shell passes it on.
    fn inherited(file: &File) -> OwnedFd {
        let descriptor = rustix::io::dup(file).unwrap();
        rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::empty()).unwrap();
        descriptor
    }

    fn number_of(path: &str) -> Option<i32> {
        own_descriptor(&crate::resolve(Path::new(path)).unwrap())
    }

    #[test]
    fn own_descriptors_are_recognised_under_every_name() {
        let file = tempfile::tempfile().unwrap();
        let number = file.as_raw_fd();
        for path in [
            format!("/dev/fd/{number}"),
            format!("/proc/self/fd/{number}"),
            format!("/proc/thread-self/fd/{number}"),
            format!("/proc/{}/fd/{number}", std::process::id()),
        ] {
            assert_eq!(number_of(&path), Some(number), "{path}");
        }
        assert_eq!(number_of("/dev/stderr"), Some(2));
        for path in [
            "/proc/1/fd/2",
            "/proc/self/status",
            "/dev/null",
            "/tmp/fd/1",
        ] {
            assert_eq!(own_descriptor(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn a_duplicate_shares_the_offset_of_the_other_users() {
        let mut file = tempfile::tempfile().unwrap();
        let descriptor = inherited(&file);
        file.write_all(b"header\n").unwrap();
        let mut duplicate = duplicate_descriptor(descriptor.as_raw_fd(), Need::Write).unwrap();
        duplicate.write_all(b"record\n").unwrap();
        file.write_all(b"footer\n").unwrap();
        file.rewind().unwrap();
        assert_eq!(
            io::read_to_string(&file).unwrap(),
            "header\nrecord\nfooter\n"
        );
        assert!(!is_appending(&duplicate));
    }

    #[test]
    fn a_descriptor_is_refused_for_the_other_direction() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = |read, write| {
            let mut options = std::fs::OpenOptions::new();
            let file = options.read(read).write(write).open(file.path()).unwrap();
            inherited(&file)
        };
        for (read, write) in [(true, false), (false, true), (true, true)] {
            let descriptor = open(read, write);
            let number = descriptor.as_raw_fd();
            for (need, fits, error) in [
                (Need::Read, read, DescriptorError::WriteOnly),
                (Need::Write, write, DescriptorError::ReadOnly),
            ] {
                let result = duplicate_descriptor(number, need);
                assert_eq!(result.is_ok(), fits, "{read} {write} {need:?}");
                if let Err(found) = result {
                    assert_eq!(found.to_string(), error.to_string());
                    assert!(crate::advice(&found).is_some());
                }
                assert_eq!(check_descriptor(number, need).is_ok(), fits);
            }
        }
        let (reader, writer) = io::pipe().unwrap();
        let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
        let (reader, writer) = (File::from(reader), File::from(writer));
        for (end, need) in [(reader, Need::Write), (writer, Need::Read)] {
            assert!(duplicate_descriptor(inherited(&end).as_raw_fd(), need).is_err());
        }
    }

    #[test]
    fn descriptors_that_were_not_inherited_are_refused() {
        let file = tempfile::tempfile().unwrap();
        for number in [file.as_raw_fd(), 1_000_000, -1] {
            assert!(
                duplicate_descriptor(number, Need::Read).is_err(),
                "{number}"
            );
        }
        assert!(!was_closed(2) && !was_closed(3) && !was_closed(-1));
    }
}
