//! Measures a time, and the resources used in it.

use std::time::Duration;

use super::payload::RunClock;
use super::processes::{Processes, Usages};

/// A running measurement.
pub(super) struct Stopwatch {
    processes: Processes,
    run: RunClock,
    start: Duration,
    before: Usages,
}

impl Stopwatch {
    pub(super) fn start(processes: Processes, run: RunClock) -> Self {
        Self {
            processes,
            run,
            before: processes.usages(),
            start: run.elapsed(),
        }
    }

    /// Ends the measurement. Returns the time, and the resources that were used in it.
    pub(super) fn stop(self) -> (Duration, Usages) {
        let time = self.run.elapsed() - self.start;
        (time, self.processes.usages().since(self.before))
    }
}
