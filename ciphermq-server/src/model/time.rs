//! The server's clock.

use std::fmt;
use std::time::{Duration, Instant};

/// A point in time, displayed as the database stores it: RFC 3339 in UTC with microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(jiff::Timestamp);

impl Time {
    /// Reads the system clock.
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now())
    }

    /// Returns the time that was a duration ago; `None` if there was no such time.
    #[must_use]
    pub fn before(self, ago: Duration) -> Option<Self> {
        let ago = jiff::SignedDuration::try_from(ago).ok()?;
        self.0.checked_sub(ago).ok().map(Self)
    }

    /// Returns the timestamp for arithmetic.
    #[must_use]
    pub fn timestamp(self) -> jiff::Timestamp {
        self.0
    }
}

/// The present by both clocks: one to measure durations, one for dates.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The monotonic clock.
    pub instant: Instant,
    /// The system clock, which may be set.
    pub time: Time,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        Self {
            instant: Instant::now(),
            time: Time::now(),
        }
    }
}

impl From<jiff::Timestamp> for Time {
    fn from(timestamp: jiff::Timestamp) -> Self {
        Self(timestamp)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
