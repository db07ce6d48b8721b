//! Connections that are lost again and again: two receivers with copies of one checkpoint have the
//! same consumer id, so each takes the other's place.

use std::time::{Duration, Instant};

/// A connection that is lost within this time counts.
const SHORT: Duration = Duration::from_secs(30);

/// The number of short connections in succession at which the cause is reported.
const REPORTED: u32 = 2;

/// The number of further ones after which it is reported again.
const REPORTED_AGAIN: u32 = 20;

/// Counts short connections in succession.
#[derive(Debug)]
pub(super) struct RepeatedLosses {
    connected: Option<Instant>,
    count: u32,
}

impl RepeatedLosses {
    /// Creates a counter for a connection that was made at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            connected: Some(now),
            count: 0,
        }
    }

    /// Records that the connection is restored.
    pub(super) fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// Records that the connection is lost. Returns whether the likely cause is to be reported.
    pub(super) fn lost(&mut self, now: Instant) -> bool {
        let Some(connected) = self.connected.take() else {
            return false;
        };
        if now.saturating_duration_since(connected) > SHORT {
            self.count = 0;
            return false;
        }
        self.count = self.count.saturating_add(1);
        self.count % REPORTED_AGAIN == REPORTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns which of the losses are reported, after connections of these lengths in seconds.
    fn reports(seconds: &[u64]) -> Vec<bool> {
        let mut now = Instant::now();
        let mut losses = RepeatedLosses::new(now);
        let lost = |seconds: &u64| {
            now += Duration::from_secs(*seconds);
            let is_reported = losses.lost(now);
            losses.connected(now);
            is_reported
        };
        seconds.iter().map(lost).collect()
    }

    #[test]
    fn the_second_short_connection_in_succession_is_reported() {
        assert_eq!(reports(&[1, 1, 1]), [false, true, false]);
        assert_eq!(reports(&[1, 31, 1, 1]), [false, false, false, true]);
        assert_eq!(reports(&[600, 600]), [false, false]);
        let many = reports(&[1; 42]);
        assert_eq!(many.iter().filter(|reported| **reported).count(), 3);
    }

    #[test]
    fn attempts_without_a_connection_do_not_count() {
        let now = Instant::now();
        let mut losses = RepeatedLosses::new(now);
        assert!(!losses.lost(now) && !losses.lost(now));
    }
}
