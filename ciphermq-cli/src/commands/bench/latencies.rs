//! Histograms of latencies.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::exit::Failure;

/// A histogram of latencies in nanoseconds.
pub(super) type Latencies = Histogram<u64>;

/// The precision of a histogram, in significant digits.
const DIGITS: u8 = 3;

/// Creates an empty histogram, from a microsecond to an hour.
pub(super) fn empty() -> Result<Latencies, Failure> {
    let hour = nanoseconds(Duration::from_secs(3600));
    Histogram::new_with_bounds(1_000, hour, DIGITS).map_err(unmeasured)
}

pub(super) fn record(latencies: &mut Latencies, age: Duration) {
    latencies.saturating_record(nanoseconds(age));
}

pub(super) fn add(all: &mut Latencies, some: Latencies) -> Result<(), Failure> {
    all.add(some).map_err(unmeasured)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn unmeasured(error: impl std::fmt::Display) -> Failure {
    Failure::plain(format!("Latencies cannot be recorded: {error}."))
}
