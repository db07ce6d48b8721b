//! The messages that a receiver has opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::sealing::Opener;

/// The time without any message after which a run fails.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Opens a receiver's messages, and counts them.
pub struct Inbox {
    opener: Opener,
    expected: u64,
    /// Times from sealing a message to having opened it, in nanoseconds.
    latencies: Histogram<u64>,
    progress: Progress,
}

impl Inbox {
    pub fn new(opener: Opener, expected: u64, progress: Progress) -> anyhow::Result<Self> {
        Ok(Self {
            opener,
            expected,
            latencies: histogram()?,
            progress,
        })
    }

    pub fn open(&mut self, message: &[u8]) -> anyhow::Result<()> {
        let age = self.opener.open(message)?;
        self.latencies
            .record(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX))?;
        self.progress.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub fn is_complete(&self) -> bool {
        self.latencies.len() >= self.expected
    }

    /// Ends a phase of the run: the inbox expects this many messages from now on. Returns the
    /// latencies until now.
    pub fn restart(&mut self, expected: u64) -> anyhow::Result<Histogram<u64>> {
        anyhow::ensure!(
            self.latencies.len() == self.expected,
            "{} of {} messages were received",
            self.latencies.len(),
            self.expected
        );
        self.expected = expected;
        Ok(std::mem::replace(&mut self.latencies, histogram()?))
    }
}

/// The number of messages that all receivers have opened.
#[derive(Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Returns an error as soon as nothing has arrived for a minute.
    pub async fn stalls(self) -> anyhow::Error {
        let mut before = None;
        loop {
            let now = self.0.load(Ordering::Relaxed);
            if before == Some(now) {
                let seconds = STALL_TIMEOUT.as_secs();
                return anyhow::anyhow!("no message has arrived for {seconds} s, after {now}");
            }
            before = Some(now);
            tokio::time::sleep(STALL_TIMEOUT).await;
        }
    }
}

pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}
