//! The space that a log leaves on a disk.

use std::{fs, io, path::Path};

use super::line;
use crate::settings::Reserve;

/// The space beyond the reserve at which a log stops, and that at which it goes on. The logs can
/// write so much between two looks at the disk.
const STOPS_AT: u64 = 8 << 20;
const GOES_ON_AT: u64 = 16 << 20;
/// How much is written between two looks at the disk.
const LOOK_AFTER: usize = 256 << 10;

/// The space of a log on a disk of which a part is kept for others.
///
/// If the disk fills, what stops first is the log, then publishes, and last the acknowledgements,
/// which free space.
#[derive(Debug)]
pub(super) struct Room {
    reserve: Reserve,
    stopped: bool,
    /// The bytes written since the last look at the disk.
    written: usize,
    free: fn(&Path) -> Option<u64>,
}

/// What a log may do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Write.
    Write,
    /// Write its last line, and then stop.
    LastLine,
    /// Nothing.
    Stopped,
}

impl Room {
    /// Creates the space of a log in `folder`; `None` if that is on another disk than the
    /// reserve.
    pub(super) fn new(reserve: &Reserve, folder: &Path) -> Option<Self> {
        (reserve.bytes > 0 && device(&reserve.path)? == device(folder)?).then(|| Self {
            reserve: reserve.clone(),
            stopped: false,
            written: LOOK_AFTER,
            free: free_bytes,
        })
    }

    /// Says whether `bytes` more may be written.
    pub(super) fn verdict(&mut self, folder: &Path, bytes: usize) -> Verdict {
        self.written = self.written.saturating_add(bytes);
        if self.written < LOOK_AFTER && !self.stopped {
            return Verdict::Write;
        }
        self.written = 0;
        let margin = if self.stopped { GOES_ON_AT } else { STOPS_AT };
        let needed = self.reserve.bytes.saturating_add(margin);
        // If that cannot be determined, the write finds out.
        let has_room =
            (self.free)(folder).is_none_or(|free| free >= needed.saturating_add(bytes as u64));
        let was_stopped = std::mem::replace(&mut self.stopped, !has_room);
        match (was_stopped, has_room) {
            (_, true) => Verdict::Write,
            (false, false) => Verdict::LastLine,
            (true, false) => Verdict::Stopped,
        }
    }

    /// Returns the line with which a log ends, in the form of the file of `level`.
    pub(super) fn last_line(&self, now: std::time::Duration, level: &str) -> String {
        line::own_line(now, level, self.reserve.last_line)
    }

    /// Returns the error of a log that has stopped.
    pub(super) fn error(&self) -> io::Error {
        io::Error::new(io::ErrorKind::StorageFull, self.reserve.last_line)
    }
}

/// Returns the disk of a file, or that of its nearest folder if it does not exist yet.
fn device(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let existing = |path: &Path| {
        let here = path.as_os_str().is_empty().then_some(Path::new("."));
        fs::metadata(here.unwrap_or(path)).ok()
    };
    let metadata = path.ancestors().find_map(existing)?;
    Some(metadata.dev())
}

fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static FREE: Cell<u64> = const { Cell::new(0) };
    }

    #[test]
    fn a_log_stops_before_the_reserve_and_goes_on_when_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve {
            // It is created after the logs.
            path: folder.path().join("data/mq.db"),
            bytes: 64 << 20,
            last_line: "full",
        };
        let mut room = Room::new(&reserve, folder.path()).unwrap();
        room.free = |_| Some(FREE.get());
        let mut look = |free: u64| {
            FREE.set(free << 20);
            room.verdict(folder.path(), LOOK_AFTER)
        };
        assert_eq!(look(100), Verdict::Write);
        assert_eq!(look(73), Verdict::Write);
        assert_eq!(look(72), Verdict::LastLine);
        assert_eq!(look(65), Verdict::Stopped);
        // A little more room does not make it write a line a second.
        assert_eq!(look(79), Verdict::Stopped);
        assert_eq!(look(81), Verdict::Write);
        assert_eq!(look(70), Verdict::LastLine);
    }

    #[test]
    fn a_log_on_another_disk_has_no_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve {
            path: folder.path().join("data.db"),
            bytes: 64 << 20,
            last_line: "full",
        };
        assert!(Room::new(&reserve, Path::new("/proc")).is_none());
        let none = Reserve {
            bytes: 0,
            ..reserve
        };
        assert!(Room::new(&none, folder.path()).is_none());
    }
}
