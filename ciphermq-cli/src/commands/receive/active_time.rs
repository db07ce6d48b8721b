//! For how long messages were coming.

use std::time::{Duration, Instant};

/// Longer than that without a message, and nothing to be written, is a pause.
const PAUSE: Duration = Duration::from_secs(1);

/// The time in which messages came and were written, pauses left out: what a rate is taken over.
#[derive(Debug, Default)]
pub(super) struct Busy {
    time: Duration,
    /// When something happened last.
    last: Option<Instant>,
}

impl Busy {
    /// A message has come. `works`: those before it were not written yet.
    pub(super) fn came(&mut self, now: Instant, works: bool) {
        let since = self
            .last
            .map_or(Duration::ZERO, |last| now.duration_since(last));
        if works || since <= PAUSE {
            self.time += since;
        }
        self.last = Some(now);
    }

    /// Messages were written.
    pub(super) fn wrote(&mut self, now: Instant) {
        self.came(now, true);
    }

    /// All of it so far.
    pub(super) fn time(&self) -> Duration {
        self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_left_out_and_slow_writes_are_not() {
        let (mut busy, start) = (Busy::default(), Instant::now());
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        busy.came(at(0.0), false);
        busy.wrote(at(2.0));
        busy.came(at(2.5), false);
        busy.wrote(at(2.75));
        assert_eq!(busy.time(), Duration::from_secs_f64(2.75));
        // A minute in which nothing came.
        busy.came(at(62.75), false);
        busy.came(at(65.75), true);
        busy.wrote(at(66.75));
        assert_eq!(busy.time(), Duration::from_secs_f64(6.75));
    }
}
