//! What a killed PostgreSQL server leaves behind: child processes, and a few bytes of System V
//! shared memory.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::PATIENCE;

/// A child process, held by a pidfd, because its process id could be reused.
pub(super) struct Child(OwnedFd);

/// The processes whose parent is `parent`.
pub(super) fn children(parent: Pid) -> Vec<Child> {
    let is_child = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // pid (name) state ppid ...: the name may contain any character, even parentheses.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields
            .split_whitespace()
            .nth(1)
            .and_then(|field| field.parse().ok())
            == Some(parent.as_raw_pid())
    };
    std::fs::read_dir("/proc")
        .expect("/proc can be read")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| is_child(*pid))
        .filter_map(|pid| {
            rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
        })
        .map(Child)
        .collect()
}

impl Child {
    /// Sends a signal, unless the process has already ended.
    pub(super) fn signal(&self, signal: Signal) {
        // It may already have ended by itself.
        let _ = rustix::process::pidfd_send_signal(&self.0, signal);
    }

    /// Sends SIGKILL, and blocks until the process has ended, which takes milliseconds.
    pub(super) fn kill(self) {
        // It may already have ended by itself.
        let _ = rustix::process::pidfd_send_signal(&self.0, Signal::KILL);
        let limit = Timespec::try_from(PATIENCE).expect("a limit of seconds");
        let ended = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit));
        assert_eq!(ended, Ok(1), "a killed child of PostgreSQL has not ended");
    }
}

/// Removes the shared memory of a server that was killed and not started again. It would otherwise
/// remain until the machine reboots, and the number of segments is limited. The id of the segment
/// is in `postmaster.pid`.
pub(super) fn remove_shared_memory(data: &Path) {
    let Ok(text) = std::fs::read_to_string(data.join("postmaster.pid")) else {
        return;
    };
    // Line 7 is "key id" (src/include/utils/pidfile.h of PostgreSQL).
    let id = text
        .lines()
        .nth(6)
        .and_then(|line| line.split_whitespace().nth(1));
    if let Some(id) = id {
        // Without the program a few bytes remain, on which no test depends.
        let _ = std::process::Command::new("ipcrm")
            .args(["-m", id])
            .status();
    }
}
