//! The time during which messages arrived, for the rate in the summary.

use std::time::{Duration, Instant};

/// The longest interval without a message, and with nothing to write, that does not count as a
/// pause.
const PAUSE: Duration = Duration::from_secs(1);

/// The time during which messages arrived and were written, without pauses.
#[derive(Debug, Default)]
pub(super) struct ActiveTime {
    time: Duration,
    /// The time of the last event.
    last: Option<Instant>,
}

impl ActiveTime {
    /// Records that a message has arrived; `is_busy` if earlier ones were not yet written.
    pub(super) fn message_received(&mut self, now: Instant, is_busy: bool) {
        let since = self
            .last
            .map_or(Duration::ZERO, |last| now.duration_since(last));
        if is_busy || since <= PAUSE {
            self.time += since;
        }
        self.last = Some(now);
    }

    /// Records that messages were written.
    pub(super) fn messages_written(&mut self, now: Instant) {
        self.message_received(now, true);
    }

    /// The time so far.
    pub(super) fn time(&self) -> Duration {
        self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_do_not_count_and_slow_writes_do() {
        let (mut active_time, start) = (ActiveTime::default(), Instant::now());
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        active_time.message_received(at(0.0), false);
        active_time.messages_written(at(2.0));
        active_time.message_received(at(2.5), false);
        active_time.messages_written(at(2.75));
        assert_eq!(active_time.time(), Duration::from_secs_f64(2.75));
        // A minute without messages.
        active_time.message_received(at(62.75), false);
        active_time.message_received(at(65.75), true);
        active_time.messages_written(at(66.75));
        assert_eq!(active_time.time(), Duration::from_secs_f64(6.75));
    }
}
