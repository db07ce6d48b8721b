//! File descriptors: how many connections they suffice for, and what happens when none is left.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// The file descriptors that are left to the database, the logs and the runtime.
const OWN: usize = 128;
/// How long accepting must have worked before another failure is a new one.
const QUIET: Duration = Duration::from_secs(60);

/// Raises the limit of open files to the highest value that the system permits, one for each
/// connection.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_err() {
        tracing::debug!("Cannot raise the limit of open files");
    }
}

/// Returns how many files this process may open; `None` for no limit.
pub(super) fn limit() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile).current?;
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// The numbers of connections that there are file descriptors for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) handshakes: usize,
    pub(super) connections: usize,
    pub(super) reserved: usize,
}

impl Capacity {
    fn configured(limits: &Limits) -> Self {
        Self {
            handshakes: limits.max_handshakes,
            connections: limits.max_connections,
            reserved: limits.reserved_connections,
        }
    }

    fn total(self) -> usize {
        self.handshakes + self.connections + self.reserved
    }

    /// Returns the configured numbers, reduced to what `descriptors` permit, with a warning then.
    pub(super) fn fit(limits: &Limits, descriptors: Option<usize>) -> (Self, Option<String>) {
        let configured = Self::configured(limits);
        let Some(descriptors) = descriptors else {
            return (configured, None);
        };
        let available = descriptors - OWN.min(descriptors / 4);
        if configured.total() <= available {
            return (configured, None);
        }
        let handshakes = configured.handshakes.min(available / 4).max(1);
        let reserved = configured.reserved.min(available / 8);
        let connections = available.saturating_sub(handshakes + reserved);
        let fitting = Self {
            handshakes,
            reserved,
            connections: connections.clamp(1, configured.connections),
        };
        let warning = format!(
            "[limits] max_connections ({}), max_handshakes ({}) and reserved_connections ({}) need \
             {} open files, and the system allows this process {descriptors}: {} connections and \
             {} handshakes are accepted at once. Raise the limit (ulimit -Hn; LimitNOFILE= in a \
             systemd unit), or lower max_connections",
            configured.connections,
            configured.handshakes,
            configured.reserved,
            configured.total() + OWN,
            fitting.connections,
            fitting.handshakes,
        );
        (fitting, Some(warning))
    }
}

/// The advice for an error of accepting a connection.
pub(super) fn advice(error: &io::Error) -> &'static str {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            "This process has no file descriptor left. Raise its limit of open files (ulimit -n; \
             LimitNOFILE= in a systemd unit), or lower limits.max_connections."
        }
        Some(Errno::NFILE) => {
            "The system has no file descriptor left. Raise fs.file-max, or end what holds so many."
        }
        _ => "The system lacks memory or another resource for connections.",
    }
}

/// Whether the error is that of one connection, which broke before it was accepted.
pub(super) fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    // See accept(2), "Error handling".
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::TimedOut
            | Kind::PermissionDenied
    ) || rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::PROTO)
}

/// The failures of accepting connections, of which a row of many is reported once.
#[derive(Debug, Default)]
pub(super) struct AcceptFailures {
    last: Option<Instant>,
    count: u64,
}

impl AcceptFailures {
    /// Records a failure. Returns whether it is to be reported.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.count += 1;
        self.last.replace(now).is_none()
    }

    /// Records a success. Returns the number of failures of a row that has ended.
    pub(super) fn accepted(&mut self, now: Instant) -> Option<u64> {
        self.last
            .take_if(|last| now.duration_since(*last) >= QUIET)?;
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_reduced_to_what_there_are_descriptors_for() {
        let limits = Limits::default();
        for unlimited in [None, Some(1 << 20)] {
            let (capacity, warning) = Capacity::fit(&limits, unlimited);
            assert_eq!(capacity, Capacity::configured(&limits));
            assert_eq!(warning, None);
        }
        for few in [0, 1, 7, 64, 256, 1024, 4096, 10_000] {
            let (capacity, warning) = Capacity::fit(&limits, Some(few));
            assert!(capacity.connections > 0 && capacity.handshakes > 0);
            assert!(few < 8 || capacity.total() <= few, "{few}: {capacity:?}");
            let warning = warning.unwrap();
            assert!(warning.contains("ulimit -Hn"), "{warning}");
        }
    }

    #[test]
    fn a_row_of_failures_is_reported_once() {
        let mut failures = AcceptFailures::default();
        let start = Instant::now();
        assert_eq!(failures.accepted(start), None);
        assert!(failures.failed(start));
        for second in 1..100 {
            let now = start + Duration::from_secs(second);
            // Descriptors that become free for a moment do not end it.
            assert_eq!(failures.accepted(now), None);
            assert!(!failures.failed(now));
        }
        let later = start + Duration::from_secs(99) + QUIET;
        assert_eq!(failures.accepted(later), Some(100));
        assert!(failures.failed(later));
    }

    #[test]
    fn a_lack_of_descriptors_comes_with_advice() {
        for (error, text) in [
            (rustix::io::Errno::MFILE, "ulimit -n"),
            (rustix::io::Errno::NFILE, "fs.file-max"),
            (rustix::io::Errno::NOMEM, "memory"),
        ] {
            let error = io::Error::from(error);
            assert!(advice(&error).contains(text));
            assert!(!concerns_one_connection(&error));
        }
        let aborted = io::Error::from(rustix::io::Errno::CONNABORTED);
        assert!(concerns_one_connection(&aborted));
    }
}
