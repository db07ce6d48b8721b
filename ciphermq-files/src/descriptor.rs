//! This process's open descriptors, as paths such as `/dev/stderr` and `/dev/fd/3` name them.
//!
//! Opening such a path opens the file once more, with an offset of its own: what the descriptor's
//! other users write then overwrites the same bytes. So a descriptor is duplicated instead, and all
//! of its users share one offset.

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

/// Duplicates a descriptor that was open when the program started.
///
/// # Errors
///
/// An error if it was closed then; or the operating system's error.
#[cfg(unix)]
pub fn duplicate_descriptor(number: i32) -> io::Result<File> {
    use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd};
    let closed = || io::Error::other("it is closed");
    if number < 0 || was_closed(number) {
        return Err(closed());
    }
    let descriptor = borrowed(number);
    match fcntl_getfd(descriptor) {
        // The program's own files and sockets are not inherited by the programs that it starts,
        // and were not inherited by itself.
        Ok(flags) if flags.contains(FdFlags::CLOEXEC) => Err(closed()),
        Err(Errno::BADF) => Err(closed()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(fcntl_dupfd_cloexec(descriptor, 0)?.into()),
    }
}

/// Duplicates a descriptor that was open when the program started.
///
/// # Errors
///
/// Always: paths denote no descriptors on this system.
#[cfg(not(unix))]
pub fn duplicate_descriptor(_: i32) -> io::Result<File> {
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
        let mut duplicate = duplicate_descriptor(descriptor.as_raw_fd()).unwrap();
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
    fn descriptors_that_were_not_inherited_are_refused() {
        let file = tempfile::tempfile().unwrap();
        for number in [file.as_raw_fd(), 1_000_000, -1] {
            assert!(duplicate_descriptor(number).is_err(), "{number}");
        }
        assert!(!was_closed(2) && !was_closed(3) && !was_closed(-1));
    }
}
