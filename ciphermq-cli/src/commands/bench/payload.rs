//! Payloads with the time at which the message was due, and the run that it belongs to.

use std::time::{Duration, Instant};

use rand::RngExt as _;

/// The clock of a run, shared by senders and receivers, with the run's id.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunClock {
    id: u64,
    start: Instant,
}

impl RunClock {
    pub(super) fn start() -> Self {
        Self {
            id: rand::random(),
            start: Instant::now(),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The time since a message was due; `None` if it belongs to another run.
    pub(super) fn age(&self, payload: &[u8]) -> Option<Duration> {
        let (id, rest) = payload.split_first_chunk()?;
        let (sent, _) = rest.split_first_chunk()?;
        let sent = Duration::from_nanos(u64::from_be_bytes(*sent));
        (u64::from_be_bytes(*id) == self.id).then(|| self.elapsed().saturating_sub(sent))
    }
}

/// A reusable payload.
#[derive(Debug)]
pub(super) struct Payload(Vec<u8>);

impl Payload {
    /// Creates an incompressible payload of at least 24 bytes: run id, time and number, then random
    /// bytes.
    pub(super) fn new(run: &RunClock, size: u32) -> Self {
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        rand::rng().fill(&mut bytes[..]);
        let mut payload = Self(bytes);
        payload.write(0, run.id);
        payload
    }

    /// The payload of a message that is due at this time of the run.
    pub(super) fn stamped(&mut self, time: Duration, number: u64) -> &[u8] {
        self.write(8, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.write(16, number);
        &self.0
    }

    /// The payload of a message that is not measured.
    pub(super) fn warm_up(&mut self) -> &[u8] {
        self.stamped(Duration::ZERO, u64::MAX)
    }

    fn write(&mut self, at: usize, number: u64) {
        if let Some(place) = self.0.get_mut(at..at + 8) {
            place.copy_from_slice(&number.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_an_age_only_in_its_own_run() {
        let (run, other) = (RunClock::start(), RunClock::start());
        let mut payload = Payload::new(&run, 24);
        let first = payload.stamped(Duration::ZERO, 1).to_vec();
        assert_eq!(first.len(), 24);
        assert!(run.age(&first).unwrap() <= run.elapsed());
        assert_eq!(
            run.age(payload.stamped(Duration::from_secs(3600), 2)),
            Some(Duration::ZERO)
        );
        assert_eq!(other.age(&first), None);
        assert_eq!(run.age(&first[..15]), None);
    }
}
