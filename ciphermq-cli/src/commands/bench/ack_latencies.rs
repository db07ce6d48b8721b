//! The latencies of the server's acknowledgements.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use super::latencies::{self, Latencies};
use super::payload::RunClock;
use crate::exit::Failure;

/// Measures the time from sending a message until its acknowledgement, for several publishers. The
/// server must acknowledge each publisher's messages in order.
pub(super) struct AckLatencies(Mutex<State>);

struct State {
    /// The times at which each publisher sent its unacknowledged messages, oldest first.
    unacknowledged: Vec<VecDeque<Duration>>,
    run: RunClock,
    latencies: Latencies,
}

impl AckLatencies {
    pub(super) fn new(run: RunClock) -> Result<Self, Failure> {
        Ok(Self(Mutex::new(State {
            unacknowledged: Vec::new(),
            run,
            latencies: latencies::empty()?,
        })))
    }

    /// Adds a publisher, and returns its number.
    pub(super) fn add_publisher(&self) -> usize {
        let unacknowledged = &mut self.0.lock().unacknowledged;
        unacknowledged.push(VecDeque::new());
        unacknowledged.len() - 1
    }

    /// Records that a publisher sends a message at `time` of the run.
    pub(super) fn sent(&self, publisher: usize, time: Duration) {
        if let Some(times) = self.0.lock().unacknowledged.get_mut(publisher) {
            times.push_back(time);
        }
    }

    /// Records the acknowledgement of a publisher's oldest message.
    pub(super) fn acknowledged(&self, publisher: usize) {
        let mut state = self.0.lock();
        let times = state.unacknowledged.get_mut(publisher);
        if let Some(sent) = times.and_then(VecDeque::pop_front) {
            let age = state.run.elapsed().saturating_sub(sent);
            latencies::record(&mut state.latencies, age);
        }
    }

    pub(super) fn take(&self) -> Result<Latencies, Failure> {
        Ok(std::mem::replace(
            &mut self.0.lock().latencies,
            latencies::empty()?,
        ))
    }
}
