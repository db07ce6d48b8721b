//! Addresses whose handshakes fail again and again.
//!
//! A failed handshake costs the server a key exchange and a signature, and its sender no
//! certificate. So the handshakes of such an address wait a moment before they are worked on: a
//! client that is among them connects a little later, and one that tries in a circle has less of
//! the server's processor time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::source::Source;

/// The time over which failures are counted.
const PERIOD: Duration = Duration::from_secs(10);
/// The failures of an address in that time that have no consequence.
const TOLERATED: u32 = 20;
/// How long each further handshake of the address waits.
const PAUSE: Duration = Duration::from_millis(100);
/// The most addresses that are remembered; of IPv6, /64 networks.
const MOST_SOURCES: usize = 4096;

/// The failures of each address.
#[derive(Debug, Default)]
pub(super) struct FailingSources(Mutex<HashMap<Source, Failures>>);

/// The failures of an address in the current period and in the one before.
#[derive(Debug)]
struct Failures {
    since: Instant,
    count: u32,
    before: u32,
}

impl FailingSources {
    /// Records a failed handshake.
    pub(super) fn failed(&self, source: Source, now: Instant) {
        let mut sources = self.0.lock();
        if sources.len() >= MOST_SOURCES && !sources.contains_key(&source) {
            sources.retain(|_, failures| failures.goes_on(now));
            if sources.len() >= MOST_SOURCES {
                return;
            }
        }
        let failures = sources.entry(source).or_insert(Failures {
            since: now,
            count: 0,
            before: 0,
        });
        failures.goes_on(now);
        failures.count = failures.count.saturating_add(1);
    }

    /// Returns how long a handshake of this address has to wait.
    pub(super) fn pause(&self, source: Source, now: Instant) -> Duration {
        let mut sources = self.0.lock();
        let Some(failures) = sources.get_mut(&source) else {
            return Duration::ZERO;
        };
        if !failures.goes_on(now) {
            sources.remove(&source);
            return Duration::ZERO;
        }
        match failures.count.max(failures.before) > TOLERATED {
            true => PAUSE,
            false => Duration::ZERO,
        }
    }
}

impl Failures {
    /// Begins the next period if it is time. Returns whether there were failures in the last two.
    fn goes_on(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= PERIOD {
            let next_to_last = elapsed >= 2 * PERIOD;
            self.before = if next_to_last { 0 } else { self.count };
            self.count = 0;
            self.since = now;
        }
        self.count > 0 || self.before > 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn source(number: u32) -> Source {
        IpAddr::V4(Ipv4Addr::from(number)).into()
    }

    #[test]
    fn an_address_waits_while_its_handshakes_fail() {
        let failing = FailingSources::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (bad, good) = (source(1), source(2));
        for _ in 0..TOLERATED {
            failing.failed(bad, at(0));
        }
        assert_eq!(failing.pause(bad, at(1)), Duration::ZERO);
        failing.failed(bad, at(9));
        assert_eq!(failing.pause(bad, at(9)), PAUSE);
        assert_eq!(failing.pause(good, at(9)), Duration::ZERO);
        // For another period, in which few fail.
        failing.failed(bad, at(18));
        assert_eq!(failing.pause(bad, at(19)), PAUSE);
        failing.failed(bad, at(20));
        assert_eq!(failing.pause(bad, at(27)), PAUSE);
        assert_eq!(failing.pause(bad, at(28)), Duration::ZERO);
        assert_eq!(failing.pause(bad, at(48)), Duration::ZERO);
        assert!(failing.0.lock().is_empty());
    }

    #[test]
    fn an_address_waits_for_as_long_as_many_fail() {
        let failing = FailingSources::default();
        let start = Instant::now();
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            for _ in 0..5 {
                failing.failed(source(1), now);
            }
            let expected = if second < 4 { Duration::ZERO } else { PAUSE };
            assert_eq!(failing.pause(source(1), now), expected, "{second}");
        }
    }

    #[test]
    fn a_failure_now_and_then_has_no_consequence() {
        let failing = FailingSources::default();
        let start = Instant::now();
        for seconds in 0..200 {
            let now = start + Duration::from_secs(seconds);
            failing.failed(source(1), now);
            assert_eq!(failing.pause(source(1), now), Duration::ZERO);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let failing = FailingSources::default();
        let start = Instant::now();
        for number in 0..10_000 {
            failing.failed(source(number), start);
        }
        assert_eq!(failing.0.lock().len(), MOST_SOURCES);
        let later = start + 2 * PERIOD;
        failing.failed(source(10_000), later);
        assert_eq!(failing.0.lock().len(), 1);
    }
}
