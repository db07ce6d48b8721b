//! The workload of `ciphermq-cli bench` with other brokers: a sender seals messages with one
//! session key and publishes them with confirms, with at most a window of them in flight; a
//! receiver opens and acknowledges them. The time is measured from the first publish until the last
//! message was opened and acknowledged.
//!
//! `scripts/compare` starts the brokers and runs this program, which prints one JSON object for
//! each run.

mod cost;
mod nats;
mod plot;
mod rabbitmq;
mod redis_streams;
mod summary;
mod workload;

use std::path::PathBuf;
use std::sync::Arc;

use async_nats::jetstream::stream::RetentionPolicy;
use clap::{Parser, ValueEnum};
use serde_json::json;

use workload::{MessageCipher, Settings};

#[derive(Debug, Parser)]
enum Command {
    /// Run the workload once, and print the measurements
    Run(Args),
    /// Print medians and ratios of the runs in a file of JSON lines
    Summary { file: PathBuf },
    /// Plot the measurements of `scripts/measure`
    Plot { file: PathBuf, folder: PathBuf },
}

#[derive(Debug, clap::Args)]
struct Args {
    #[arg(long)]
    broker: Broker,
    /// TLS port of the broker on localhost
    #[arg(long)]
    port: u16,
    /// Folder with `ca.crt`, `client.crt` and `client.key`
    #[arg(long)]
    certs: PathBuf,
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Size of a payload before it is sealed, in bytes
    #[arg(long, default_value_t = 256)]
    size: usize,
    #[arg(long, default_value_t = 1000)]
    window: usize,
    /// Process id of the broker, for measuring its CPU time and memory
    #[arg(long)]
    server_pid: Option<u32>,
    #[arg(long, default_value = "")]
    server_version: String,
    /// Name in the report, if other than the broker's
    #[arg(long)]
    system: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Broker {
    RabbitmqQuorum,
    RabbitmqClassic,
    /// The stream keeps acknowledged messages
    Nats,
    /// The stream removes acknowledged messages, like a queue
    NatsWorkqueue,
    Redis,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = match Command::parse() {
        Command::Run(args) => args,
        Command::Summary { file } => return summary::print(&file),
        Command::Plot { file, folder } => return plot::draw(&file, &folder),
    };
    // Several of the clients bring rustls providers; one has to be chosen.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let settings = Settings {
        port: args.port,
        certs: args.certs.clone(),
        messages: args.messages,
        window: args.window,
        server_pid: args.server_pid,
    };
    let cipher = Arc::new(MessageCipher::new(args.size)?);
    let measured = match args.broker {
        Broker::Nats => nats::run(&settings, &cipher, RetentionPolicy::Limits).await?,
        Broker::NatsWorkqueue => nats::run(&settings, &cipher, RetentionPolicy::WorkQueue).await?,
        Broker::Redis => redis_streams::run(&settings, &cipher).await?,
        Broker::RabbitmqQuorum => rabbitmq::run(&settings, &cipher, "quorum").await?,
        Broker::RabbitmqClassic => rabbitmq::run(&settings, &cipher, "classic").await?,
    };
    let name = args.system.or_else(|| {
        let value = args.broker.to_possible_value()?;
        Some(value.get_name().to_owned())
    });
    let (latency, seconds) = (&measured.latencies, measured.seconds);
    let millis = |nanos: u64| nanos as f64 / 1e6;
    let line = json!({
        "system": name,
        "server_version": args.server_version,
        "mode": "end-to-end",
        "messages": args.messages,
        "size": args.size,
        "window": args.window,
        "seconds": seconds,
        "messages_per_second": args.messages as f64 / seconds,
        "payload_bytes_per_second": args.messages as f64 * args.size as f64 / seconds,
        "latency_ms": {
            "min": millis(latency.min()),
            "mean": latency.mean() / 1e6,
            "p50": millis(latency.value_at_quantile(0.5)),
            "p90": millis(latency.value_at_quantile(0.9)),
            "p99": millis(latency.value_at_quantile(0.99)),
            "p999": millis(latency.value_at_quantile(0.999)),
            "max": millis(latency.max()),
        },
        "server_cpu_seconds": measured.server.map(|cost| cost.cpu.as_secs_f64()),
        "server_peak_memory_bytes": measured.server.map(|cost| cost.peak_memory),
        "client_cpu_seconds": measured.client.map(|cost| cost.cpu.as_secs_f64()),
        "client_peak_memory_bytes": measured.client.map(|cost| cost.peak_memory),
    });
    println!("{line}");
    Ok(())
}
