//! The workload of `ciphermq-cli bench` with other brokers: senders seal messages with a session
//! key for each receiver and publish them with confirms, with at most a window of them in flight;
//! receivers open and acknowledge them. Connections, queues and keys are made, and each pair has
//! exchanged a message, before the clock starts. The time is measured from the first publish until
//! the last message was opened and acknowledged.
//!
//! `scripts/compare` starts the brokers and runs this program, which prints one JSON object for
//! each run.

mod broker;
mod cost;
mod inbox;
mod nats;
mod plan;
mod plot;
mod rabbitmq;
mod redis_streams;
mod sealing;
mod summary;
mod workload;

use std::path::PathBuf;

use async_nats::jetstream::stream::RetentionPolicy;
use clap::{Parser, ValueEnum};
use serde_json::json;

use broker::Address;
use nats::Nats;
use plan::Plan;
use rabbitmq::RabbitMq;
use redis_streams::Redis;

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
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    plan: Plan,
    /// Process id of the broker, for measuring its CPU time, with that of its children, and its
    /// memory
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
    let (address, plan, pid) = (&args.address, &args.plan, args.server_pid);
    plan.check()?;
    let nats = async |retention| {
        let broker = Nats::new(address, plan, retention).await?;
        workload::run(broker, plan, pid).await
    };
    let rabbitmq = async |kind| {
        let broker = RabbitMq::new(address, plan, kind).await?;
        workload::run(broker, plan, pid).await
    };
    let measured = match args.broker {
        Broker::Nats => nats(RetentionPolicy::Limits).await?,
        Broker::NatsWorkqueue => nats(RetentionPolicy::WorkQueue).await?,
        Broker::Redis => workload::run(Redis::new(address, plan).await?, plan, pid).await?,
        Broker::RabbitmqQuorum => rabbitmq("quorum").await?,
        Broker::RabbitmqClassic => rabbitmq("classic").await?,
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
        "messages": plan.messages,
        "size": plan.size,
        "window": plan.window,
        "senders": plan.senders,
        "receivers": plan.receivers,
        "seconds": seconds,
        "messages_per_second": plan.messages as f64 / seconds,
        "payload_bytes_per_second": plan.messages as f64 * f64::from(plan.size) / seconds,
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
