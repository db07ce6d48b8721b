//! The timer of `--idle-exit`.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Measures the time since the last message.
#[derive(Debug)]
pub(super) struct IdleTimer {
    limit: Duration,
    since: Instant,
    /// The number of skipped duplicates, which count as activity.
    duplicates: u64,
}

impl IdleTimer {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: Instant::now(),
            duplicates: 0,
        }
    }

    pub(super) fn restart(&mut self) {
        self.since = Instant::now();
    }

    /// Completes when the time limit is reached; never if there is no timer.
    pub(super) async fn expired(timer: Option<&Self>) {
        match timer {
            Some(timer) => sleep_until(timer.since + timer.limit).await,
            None => std::future::pending().await,
        }
    }

    /// Whether no duplicates have arrived either; if some have, the timer restarts. To be called
    /// when the time limit is reached.
    pub(super) fn confirm_expired(&mut self, duplicates: u64) -> bool {
        if self.duplicates == duplicates {
            return true;
        }
        self.duplicates = duplicates;
        self.restart();
        false
    }
}
