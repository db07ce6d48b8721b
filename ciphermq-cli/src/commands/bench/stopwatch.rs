//! Time, and what was spent in it.

use std::time::Duration;

use super::payload::Run;
use super::target::{Cost, Target, own_cost};

/// See the module.
pub(super) struct Stopwatch<'a> {
    target: &'a Target,
    run: Run,
    start: Duration,
    server: Option<Cost>,
    client: Option<Cost>,
}

impl<'a> Stopwatch<'a> {
    pub(super) fn start(target: &'a Target, run: Run) -> Self {
        Self {
            target,
            run,
            server: target.cost(),
            client: own_cost(),
            start: run.elapsed(),
        }
    }

    /// The time, and what server and clients have spent in it.
    pub(super) fn stop(self) -> (Duration, Option<Cost>, Option<Cost>) {
        let time = self.run.elapsed() - self.start;
        let since = |before: Option<Cost>, now: Option<Cost>| {
            let (before, now) = (before?, now?);
            Some(Cost {
                cpu: now.cpu - before.cpu,
                ..now
            })
        };
        (
            time,
            since(self.server, self.target.cost()),
            since(self.client, own_cost()),
        )
    }
}
