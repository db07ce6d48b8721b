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

/// The time over which failures are counted, and after which an address is like any other.
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

#[derive(Debug)]
struct Failures {
    since: Instant,
    count: u32,
    last: Instant,
}

impl FailingSources {
    /// Records a failed handshake.
    pub(super) fn failed(&self, source: Source, now: Instant) {
        let mut sources = self.0.lock();
        if sources.len() >= MOST_SOURCES && !sources.contains_key(&source) {
            sources.retain(|_, failures| !failures.is_over(now));
            if sources.len() >= MOST_SOURCES {
                return;
            }
        }
        let failures = sources.entry(source).or_insert(Failures {
            since: now,
            count: 0,
            last: now,
        });
        if failures.is_over(now) {
            (failures.since, failures.count) = (now, 0);
        }
        failures.last = now;
        failures.count = failures.count.saturating_add(1);
    }

    /// Returns how long a handshake of this address has to wait.
    pub(super) fn pause(&self, source: Source, now: Instant) -> Duration {
        let mut sources = self.0.lock();
        match sources.get(&source) {
            Some(failures) if failures.is_over(now) => {
                sources.remove(&source);
                Duration::ZERO
            }
            Some(failures) if failures.count > TOLERATED => PAUSE,
            _ => Duration::ZERO,
        }
    }
}

impl Failures {
    /// Whether they no longer count: too few came in the period, or none has come since.
    fn is_over(&self, now: Instant) -> bool {
        let since = match self.count > TOLERATED {
            true => self.last,
            false => self.since,
        };
        now.saturating_duration_since(since) >= PERIOD
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
        // It goes on for as long as some fail.
        failing.failed(bad, at(18));
        assert_eq!(failing.pause(bad, at(27)), PAUSE);
        assert_eq!(failing.pause(bad, at(28)), Duration::ZERO);
        assert!(failing.0.lock().is_empty());
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
        let later = start + PERIOD;
        failing.failed(source(10_000), later);
        assert_eq!(failing.0.lock().len(), 1);
    }
}
