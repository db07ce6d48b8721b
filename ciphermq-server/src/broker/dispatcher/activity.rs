//! The activity of a connection, recorded without locking its inbox.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time when something was last received on a connection.
#[derive(Debug)]
pub struct Activity {
    start: Instant,
    millis: AtomicU64,
    silent: AtomicBool,
    /// Whether it has left messages unanswered.
    lapsed: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            millis: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            lapsed: AtomicBool::new(false),
        }
    }

    /// Records that something was received. Returns whether the connection had been considered
    /// silent.
    pub fn received(&self) -> bool {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
        self.silent.load(Ordering::Relaxed) && self.silent.swap(false, Ordering::Relaxed)
    }

    /// Records that the client asks to keep its leases. Returns whether it has lost some of them
    /// before.
    pub fn keep_leases(&self) -> bool {
        self.lapsed.load(Ordering::Relaxed) && self.lapsed.swap(false, Ordering::Relaxed)
    }

    /// Returns when something was last received.
    pub(super) fn last_received(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }

    /// Records that the connection was silent, and that its leases have lapsed.
    pub(super) fn mark_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
        self.lapsed.store(true, Ordering::Relaxed);
    }
}
