//! How fast something goes, and how long the rest takes, for progress bars.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// What a rate is taken over: long enough not to flicker, short enough to show a stall.
const WINDOW: Duration = Duration::from_secs(5);

/// The rate of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When, and how much was done by then; the first one lies about a window back.
    looks: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// So much is done by now; how much a second that is.
    pub(crate) fn per_second(&mut self, now: Instant, done: u64) -> f64 {
        self.looks.push_back((now, done));
        let is_old = |(at, _): &(Instant, u64)| now.duration_since(*at) >= WINDOW;
        while self.looks.get(1).is_some_and(is_old) {
            self.looks.pop_front();
        }
        match self.looks.front() {
            Some(&(since, before)) => rate(done.saturating_sub(before), now.duration_since(since)),
            None => 0.0,
        }
    }
}

/// So many in this time, a second. In no time at all it is none.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    count as f64 / time.as_secs_f64()
}

/// How long the rest takes at this rate: `5 s left`, `3 min 20 s left`, `2 h 5 min left`. Nothing
/// if that is unknown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    pub(crate) rest: u64,
    pub(crate) per_second: f64,
}

impl fmt::Display for Left {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time for people; casts of what is too large stay at the largest"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.per_second <= 0.0 {
            return Ok(());
        }
        let seconds = (self.rest as f64 / self.per_second).ceil() as u64;
        match (seconds / 3600, seconds % 3600 / 60, seconds % 60) {
            (0, 0, seconds) => write!(f, ", {seconds} s left"),
            (0, minutes, seconds) => write!(f, ", {minutes} min {seconds} s left"),
            (hours, minutes, _) => write!(f, ", {hours} h {minutes} min left"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert!(pace.per_second(at(0.0), 0).abs() < 1e-9);
        assert!((pace.per_second(at(1.0), 100) - 100.0).abs() < 1e-9);
        // A stall shows within the window.
        for tenth in 11..=70 {
            pace.per_second(at(f64::from(tenth) / 10.0), 100);
        }
        assert!(pace.per_second(at(7.1), 100).abs() < 1e-9);
        assert!(pace.looks.len() < 60, "{}", pace.looks.len());
    }

    #[test]
    fn rates_are_finite() {
        assert!(rate(5, Duration::ZERO).abs() < 1e-9);
        assert!((rate(5, Duration::from_secs(2)) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn what_is_left_is_told_in_two_units_at_most() {
        let left = |rest, per_second| Left { rest, per_second }.to_string();
        assert_eq!(left(50, 10.0), ", 5 s left");
        assert_eq!(left(2000, 10.0), ", 3 min 20 s left");
        assert_eq!(left(75_000, 10.0), ", 2 h 5 min left");
        assert_eq!(left(10, 0.0), "");
        assert!(left(u64::MAX, 1e-300).contains(" h "));
    }
}
