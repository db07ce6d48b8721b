//! `bench`: what a machine can do, so that people can size theirs.
//!
//! ```text
//!   plan ─► target: a server that runs, or one of its own ─► load: senders and receivers ─► report
//! ```
//!
//! - [`plan`]: what is asked for
//! - [`target`]: the server, who speaks to it, and what it costs
//! - [`load`]: the course of a run
//! - [`lane`], [`surroundings`]: receivers and their queues, and what else is there
//! - [`sending`], [`receiving`], [`payload`]: senders, receivers, and messages that say when they
//!   were sent
//! - [`stopwatch`], [`latencies`], [`acknowledgements`]: how long everything took
//! - [`report`]: a table for people, JSON for programs

mod acknowledgements;
mod lane;
mod latencies;
mod load;
mod payload;
mod plan;
mod receiving;
mod report;
mod sending;
mod stopwatch;
mod surroundings;
mod target;

use crate::connection::{ConnectionArgs, Identity, PrivateKeyArgs};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::stdout;
use crate::signals::Signals;

use self::plan::{PlanArgs, SpawnArgs};
use self::target::Target;

/// Measure throughput and latency, on a server that runs or on one of its own
///
/// Senders seal messages and publish them, receivers open and acknowledge them, all in this process
/// and over mutual TLS: what an application would do. Without --spawn it uses the server of the
/// connection options, as the client of --cert in both roles, through the exchange `ciphermq_bench`
/// and queues of that name, which it leaves empty. Latencies are from the moment when a message was
/// to be sent until it was opened, so a server that falls behind --rate is not excused.
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
    /// The process id of the running server, if it runs on this machine: its CPU time and memory
    /// are then told, too
    #[arg(long, value_name = "PID", conflicts_with = "spawn")]
    server_pid: Option<u32>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()?;
    // Dropping what is under way ends the server that it has started.
    tokio::select! {
        done = measure(args, console) => done,
        signal = signals.received() => Ok(Exit::Signalled(signal)),
    }
}

async fn measure(args: Args, console: Console) -> Result<Exit, Failure> {
    if cfg!(debug_assertions) {
        console.warn("This is a debug build: its figures say nothing. Build with --release.");
    }
    let plan = args.plan;
    let target = match args.spawn.database() {
        Some(database) => Target::spawn(database, &args.spawn, &plan).await?,
        None => {
            let settings = args
                .connection
                .resolve(Identity::Receiver, args.private_key)?;
            Target::running(settings, args.server_pid)?
        }
    };
    let measured = load::run(&target, &plan, &args.spawn, &console).await?;
    let report = report::Report::new(&plan, &args.spawn, &target, measured);
    if args.json {
        stdout::print(report.json()?)?;
    } else {
        report.table().print()?;
    }
    target.end().await?;
    Ok(Exit::Done)
}
