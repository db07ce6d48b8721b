//! The results of a benchmark: a table for people, one JSON object for programs.

use std::time::Duration;

use serde::Serialize;

use super::latencies::Latencies;
use super::plan::{Mode, PlanArgs, SpawnArgs};
use super::processes::{ResourceUsage, Usages};
use super::server::BenchServer;
use crate::console::table::Table;
use crate::exit::Failure;

/// The measured values of a run.
#[derive(Debug)]
pub(super) struct Measurement {
    pub(super) time: Duration,
    pub(super) latencies: Latencies,
    pub(super) suite: String,
    pub(super) server_version: String,
    /// CPU times within `time`, and peak memory.
    pub(super) usages: Usages,
}

/// The fields of the JSON object; documented in docs/cli.md.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    mode: Mode,
    messages: u64,
    size: u32,
    window: u32,
    #[serde(skip)]
    window_of_pair: u32,
    batch: u32,
    senders: u32,
    receivers: u32,
    rate: Option<f64>,
    suite: String,
    /// `sqlite` or `postgres`; `null` for a running server.
    database: Option<&'static str>,
    log_messages: Option<bool>,
    backlog: u64,
    idle_queues: u32,
    idle_connections: u32,
    server_version: String,
    seconds: f64,
    messages_per_second: f64,
    payload_bytes_per_second: f64,
    latency_ms: Latency,
    server_cpu_seconds: Option<f64>,
    server_peak_memory_bytes: Option<u64>,
    database_cpu_seconds: Option<f64>,
    client_cpu_seconds: Option<f64>,
    client_peak_memory_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Report {
    #[expect(
        clippy::cast_precision_loss,
        reason = "figures for people, with three digits that count"
    )]
    pub(super) fn new(
        plan: &PlanArgs,
        spawn: &SpawnArgs,
        server: &BenchServer,
        measurement: Measurement,
    ) -> Self {
        let seconds = measurement.time.as_secs_f64().max(1e-9);
        let latencies = &measurement.latencies;
        let milliseconds = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        let at = |quantile| milliseconds(latencies.value_at_quantile(quantile));
        let usages = measurement.usages;
        let seconds_of = |usage: Option<ResourceUsage>| usage.map(|usage| usage.cpu.as_secs_f64());
        let is_spawned = matches!(server, BenchServer::Spawned(_));
        Self {
            mode: plan.mode,
            messages: plan.messages,
            size: plan.size,
            window: plan.window.get(),
            window_of_pair: plan.window_of_pair(),
            batch: plan.batch.get(),
            senders: plan.senders.get(),
            receivers: plan.receivers.get(),
            rate: plan.rate,
            suite: measurement.suite,
            database: spawn.kind(),
            log_messages: is_spawned.then_some(!spawn.no_log_messages),
            backlog: spawn.backlog,
            idle_queues: spawn.idle_queues,
            idle_connections: spawn.idle_connections,
            server_version: measurement.server_version,
            seconds,
            messages_per_second: plan.messages as f64 / seconds,
            payload_bytes_per_second: plan.messages as f64 * f64::from(plan.size) / seconds,
            latency_ms: Latency {
                min: milliseconds(latencies.min()),
                mean: latencies.mean() / 1e6,
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: milliseconds(latencies.max()),
            },
            server_cpu_seconds: seconds_of(usages.server),
            server_peak_memory_bytes: usages.server.map(|usage| usage.peak_memory),
            database_cpu_seconds: seconds_of(usages.database),
            client_cpu_seconds: seconds_of(usages.client),
            client_peak_memory_bytes: usages.client.map(|usage| usage.peak_memory),
        }
    }

    pub(super) fn json(&self) -> Result<String, Failure> {
        let json = serde_json::to_string(self)
            .map_err(|error| Failure::plain(format!("The report cannot be written: {error}.")))?;
        Ok(json + "\n")
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(15);
        let mut line = |name: &str, value: String| table.row(name, value);
        let mode = match self.mode {
            Mode::EndToEnd => "end to end",
            Mode::Publish => "published",
            Mode::Drain => "drained",
        };
        line(
            "messages",
            format!(
                "{} of {} bytes, {mode}, sealed with {}",
                self.messages, self.size, self.suite
            ),
        );
        line(
            "load",
            format!(
                "{} sending, {} receiving, a window of {} for each sender, at most {} of it for \
                 each receiver, batches of {}",
                self.senders, self.receivers, self.window, self.window_of_pair, self.batch
            ),
        );
        line("time", format!("{:.3} s", self.seconds));
        line(
            "throughput",
            format!(
                "{} messages/s, {:.1} MB/s of payloads",
                whole(self.messages_per_second),
                self.payload_bytes_per_second / 1e6
            ),
        );
        let Latency {
            min,
            p50,
            p99,
            p999,
            max,
            ..
        } = self.latency_ms;
        line(
            "latency",
            format!(
                "{min:.3} ms at least, p50 {p50:.3}, p99 {p99:.3}, p99.9 {p999:.3}, {max:.3} at \
                 most"
            ),
        );
        let per_message =
            |seconds: f64| seconds * 1e6 * self.messages_per_second.recip() / self.seconds;
        let mut process = |name: &str, cpu: Option<f64>, memory: Option<u64>| {
            if let Some(cpu) = cpu {
                let memory = memory.map_or_else(String::new, |memory| {
                    format!("; {:.1} MB of memory at most", whole_megabytes(memory))
                });
                line(
                    name,
                    format!(
                        "{cpu:.2} s of CPU, {:.2} µs a message{memory}",
                        per_message(cpu)
                    ),
                );
            }
        };
        process(
            "server",
            self.server_cpu_seconds,
            self.server_peak_memory_bytes,
        );
        process("database", self.database_cpu_seconds, None);
        process(
            "clients",
            self.client_cpu_seconds,
            self.client_peak_memory_bytes,
        );
        table
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people"
)]
fn whole(rate: f64) -> u64 {
    rate as u64
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn whole_megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
