//! Measures a time, and the resources used in it.

use std::time::Duration;

use super::payload::RunClock;
use super::server::{BenchServer, ResourceUsage, own_usage};

/// A running measurement.
pub(super) struct Stopwatch<'a> {
    server: &'a BenchServer,
    run: RunClock,
    start: Duration,
    server_usage: Option<ResourceUsage>,
    client_usage: Option<ResourceUsage>,
}

impl<'a> Stopwatch<'a> {
    pub(super) fn start(server: &'a BenchServer, run: RunClock) -> Self {
        Self {
            server,
            run,
            server_usage: server.usage(),
            client_usage: own_usage(),
            start: run.elapsed(),
        }
    }

    /// Ends the measurement. Returns the time, and the resources that the server and this process
    /// have used in it.
    pub(super) fn stop(self) -> (Duration, Option<ResourceUsage>, Option<ResourceUsage>) {
        let time = self.run.elapsed() - self.start;
        let since = |before: Option<ResourceUsage>, now: Option<ResourceUsage>| {
            let (before, now) = (before?, now?);
            Some(ResourceUsage {
                cpu: now.cpu - before.cpu,
                ..now
            })
        };
        (
            time,
            since(self.server_usage, self.server.usage()),
            since(self.client_usage, own_usage()),
        )
    }
}
