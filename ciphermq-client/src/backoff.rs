//! Pauses between attempts to connect: exponential, with jitter, bounded.

use std::time::Duration;

/// Pauses between attempts to connect: the n-th is drawn uniformly between `min` and the lesser of
/// `max` and `min × 2ⁿ`.
///
/// This "full jitter" keeps a thousand clients that lost the same server from reconnecting in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

/// Why two durations are no valid [`Backoff`].
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackoff {
    /// The minimum is zero: a client would retry without a pause.
    #[error("the shortest pause must be longer than zero")]
    ZeroMinimum,
    /// The minimum exceeds the maximum.
    #[error("the shortest pause must not be longer than the longest")]
    MinimumAboveMaximum,
}

ciphermq_protocol::debug_as_report!(InvalidBackoff);

impl Backoff {
    /// Creates pauses between `min` and `max`.
    ///
    /// # Errors
    ///
    /// [`InvalidBackoff`] if `min` is zero or greater than `max`.
    pub const fn new(min: Duration, max: Duration) -> Result<Self, InvalidBackoff> {
        if min.is_zero() {
            return Err(InvalidBackoff::ZeroMinimum);
        }
        if min.as_nanos() > max.as_nanos() {
            return Err(InvalidBackoff::MinimumAboveMaximum);
        }
        Ok(Self { min, max })
    }

    /// Returns the longest possible pause.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.max
    }

    /// Returns the upper bound of the pause before attempt `attempt`, counted from 0.
    #[must_use]
    pub fn bound(&self, attempt: u32) -> Duration {
        let factor = 1u32
            .checked_shl(attempt.saturating_add(1))
            .filter(|&factor| factor > 0)
            .unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max)
    }

    /// Returns the pause before attempt `attempt`, counted from 0. `draw` is uniformly distributed
    /// in `0.0..1.0`.
    #[must_use]
    pub fn pause(&self, attempt: u32, draw: f64) -> Duration {
        let spread = self.bound(attempt).saturating_sub(self.min);
        self.min + spread.mul_f64(draw.clamp(0.0, 1.0))
    }
}

impl Default for Backoff {
    /// Returns pauses from 100 ms to 10 s.
    fn default() -> Self {
        Self {
            min: Duration::from_millis(100),
            max: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn invalid_bounds_are_refused() {
        let second = Duration::from_secs(1);
        assert_eq!(
            Backoff::new(Duration::ZERO, second),
            Err(InvalidBackoff::ZeroMinimum)
        );
        assert_eq!(
            Backoff::new(second * 2, second),
            Err(InvalidBackoff::MinimumAboveMaximum)
        );
        assert!(Backoff::new(second, second).is_ok());
    }

    #[test]
    fn bounds_double_up_to_the_longest() {
        let backoff = Backoff::default();
        let bounds: Vec<_> = (0..8)
            .map(|attempt| backoff.bound(attempt).as_millis())
            .collect();
        assert_eq!(bounds, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    proptest! {
        #[test]
        fn pauses_stay_within_their_bounds(
            min in 1u64..10_000_000, more in 0u64..10_000_000, attempt: u32, draw in 0.0f64..1.0,
        ) {
            let (min, max) = (Duration::from_micros(min), Duration::from_micros(min + more));
            let backoff = Backoff::new(min, max).unwrap();
            let pause = backoff.pause(attempt, draw);
            prop_assert!(pause >= min && pause <= max && pause <= backoff.bound(attempt));
            prop_assert!(backoff.bound(attempt) <= backoff.bound(attempt.saturating_add(1)));
        }
    }
}
