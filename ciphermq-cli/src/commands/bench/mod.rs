//! `bench`: measures throughput, latency and resource usage of a server.
//!
//! ```text
//!   plan ─► server: a running one, or a temporary one ─► run: senders and receivers ─► report
//! ```
//!
//! - [`plan`]: the options of a benchmark
//! - [`server`]: the server, and its clients
//! - [`load`]: the course of a benchmark
//! - [`receiver_route`], [`background`]: receivers with their queues, and additional queues,
//!   messages and connections
//! - [`warm_up`]: sessions that exist before the clock starts
//! - [`sending`], [`sender_window`], [`receiving`], [`payload`]: senders, the messages that one of
//!   them has in flight, receivers, and payloads with the time of sending
//! - [`stopwatch`], [`processes`], [`latencies`], [`ack_latencies`]: measurements
//! - [`report`]: a table for people, JSON for programs

mod ack_latencies;
mod background;
mod latencies;
mod load;
mod payload;
mod plan;
mod processes;
mod receiver_route;
mod receiving;
mod report;
mod sender_window;
mod sending;
mod server;
mod stopwatch;
mod warm_up;

use crate::connection::{ConnectionArgs, Identity, PrivateKeyArgs};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::stdout;
use crate::signals::Signals;

use self::plan::{PlanArgs, SpawnArgs};
use self::processes::Processes;
use self::server::BenchServer;

/// Measure throughput and latency of a running server, or of a temporary one
///
/// Senders seal messages and publish them, receivers open and acknowledge them, all in this process
/// and over mutual TLS, as an application would. Without --spawn it uses the server of the
/// connection options, as the client of --cert in both roles, through the exchange `ciphermq_bench`
/// and queues of that name, which it leaves empty. Latencies count from the moment when a message
/// was due until it was opened, so that a server that falls behind --rate cannot hide it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    spawn: SpawnArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    private_key: PrivateKeyArgs,
    /// The process id of the running server, if it runs on this machine, to report its CPU time and
    /// memory, too
    #[arg(long, value_name = "PID", conflicts_with = "spawn")]
    server_pid: Option<u32>,
    /// The process id of the database's server, if it runs on this machine, to report its CPU time,
    /// too, with that of its children
    #[arg(long, value_name = "PID")]
    database_pid: Option<u32>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()?;
    // Dropping the benchmark ends the server that it has started.
    tokio::select! {
        result = measure(args, console) => result,
        signal = signals.received() => Ok(Exit::Signalled(signal)),
    }
}

async fn measure(args: Args, console: Console) -> Result<Exit, Failure> {
    if cfg!(debug_assertions) {
        console.warn("This is a debug build: its figures mean nothing. Build with --release.");
    }
    let plan = args.plan;
    plan.check()?;
    processes::check(args.server_pid, "--server-pid")?;
    processes::check(args.database_pid, "--database-pid")?;
    let server = match args.spawn.database() {
        Some(database) => BenchServer::spawn(database, &args.spawn, &plan).await?,
        None => {
            let settings = args
                .connection
                .resolve(Identity::Receiver, args.private_key)?;
            BenchServer::running(settings, args.server_pid)
        }
    };
    let processes = Processes {
        server: server.pid(),
        database: args.database_pid,
    };
    let measurement = load::run(&server, &plan, &args.spawn, processes, &console).await?;
    let report = report::Report::new(&plan, &args.spawn, &server, measurement);
    if args.json {
        stdout::print(report.json()?)?;
    } else {
        report.table().print()?;
    }
    server.end().await?;
    Ok(Exit::Done)
}
