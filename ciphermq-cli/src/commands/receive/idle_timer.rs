//! When nothing has come for long enough.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// See the module.
#[derive(Debug)]
pub(super) struct Idle {
    limit: Duration,
    since: Instant,
    /// Duplicates that are left out are signs of life, too.
    duplicates: u64,
}

impl Idle {
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

    /// Returns when the time is over; never if there is no limit.
    pub(super) async fn over(idle: Option<&Self>) {
        match idle {
            Some(idle) => sleep_until(idle.since + idle.limit).await,
            None => std::future::pending().await,
        }
    }

    /// Whether nothing has come meanwhile, duplicates included; else the time begins anew.
    pub(super) fn is_over(&mut self, duplicates: u64) -> bool {
        if self.duplicates == duplicates {
            return true;
        }
        self.duplicates = duplicates;
        self.restart();
        false
    }
}
