//! Rates and remaining times, for progress bars.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// The window of a rate: long enough not to flicker, short enough to show a stall.
const WINDOW: Duration = Duration::from_secs(5);

/// Measures the rate of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct RateMeter {
    /// Times and counts; the first sample is about one window old.
    samples: VecDeque<(Instant, u64)>,
}

impl RateMeter {
    /// Adds a sample of the total count, and returns the rate per second.
    pub(crate) fn per_second(&mut self, now: Instant, total: u64) -> f64 {
        self.samples.push_back((now, total));
        let is_old = |(at, _): &(Instant, u64)| now.duration_since(*at) >= WINDOW;
        while self.samples.get(1).is_some_and(is_old) {
            self.samples.pop_front();
        }
        match self.samples.front() {
            Some(&(since, before)) => rate(total.saturating_sub(before), now.duration_since(since)),
            None => 0.0,
        }
    }
}

/// Computes a rate per second; 0 for an empty time.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    count as f64 / time.as_secs_f64()
}

/// Formats the remaining time: `, 5s left`, `, 3m 20s left`, `, 2h 5m left`. Empty if the rate is
/// 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLeft {
    pub(crate) rest: u64,
    pub(crate) per_second: f64,
}

impl fmt::Display for TimeLeft {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time for people; casts saturate"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.per_second <= 0.0 {
            return Ok(());
        }
        let seconds = (self.rest as f64 / self.per_second).ceil() as u64;
        let unit = if seconds < 3600 { 1 } else { 60 };
        let left = Duration::from_secs(seconds / unit * unit);
        write!(f, ", {} left", humantime::format_duration(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (mut meter, start) = (RateMeter::default(), Instant::now());
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert!(meter.per_second(at(0.0), 0).abs() < 1e-9);
        assert!((meter.per_second(at(1.0), 100) - 100.0).abs() < 1e-9);
        // A stall shows within the window.
        for tenth in 11..=70 {
            meter.per_second(at(f64::from(tenth) / 10.0), 100);
        }
        assert!(meter.per_second(at(7.1), 100).abs() < 1e-9);
        assert!(meter.samples.len() < 60, "{}", meter.samples.len());
    }

    #[test]
    fn rates_are_finite() {
        assert!(rate(5, Duration::ZERO).abs() < 1e-9);
        assert!((rate(5, Duration::from_secs(2)) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn the_remaining_time_has_no_seconds_above_an_hour() {
        let left = |rest, per_second| TimeLeft { rest, per_second }.to_string();
        assert_eq!(left(50, 10.0), ", 5s left");
        assert_eq!(left(2000, 10.0), ", 3m 20s left");
        assert_eq!(left(75_590, 10.0), ", 2h 5m left");
        assert_eq!(left(10, 0.0), "");
        assert!(left(u64::MAX, 1e-300).contains("years"));
    }
}
