//! The fault harness as a program: any number of random faults, and kills at every system call.
//!
//! ```sh
//! cargo build --workspace --bins
//! cargo run -p ciphermq-tests --bin faults -- --cycles 200 --seed 7 --database both
//! cargo run -p ciphermq-tests --bin faults -- points
//! cargo run -p ciphermq-tests --bin faults -- power
//! cargo run -p ciphermq-tests --bin faults -- memory
//! ```
//!
//! The exit code is 0 if no guarantee was violated, else 1.

use std::process::ExitCode;
use std::time::Duration;

use ciphermq_tests::Backend;
use ciphermq_tests::faults::campaign::Settings;
use ciphermq_tests::faults::points::{self, Points};
use ciphermq_tests::faults::power::{self, Scenario};
use ciphermq_tests::faults::{Campaign, backlog, tracing};
use clap::{Parser, Subcommand, ValueEnum};
use rand::RngExt as _;

/// Kills, stops and disconnects the real programs while messages flow, then checks every guarantee.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Number of faults
    #[arg(long, default_value_t = 50)]
    cycles: u32,
    /// Seed of the faults and of all other choices [default: a random number, which is printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Database of the server
    #[arg(long, value_enum, default_value_t = Choice::Both)]
    database: Choice,
    /// Approximate number of messages per second of each of the two raw senders; 0 for no limit
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Print each fault as it happens
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kill server and receiver at each of their system calls
    Points {
        /// Kill only at every n-th call
        #[arg(long, default_value_t = 1)]
        stride: u32,
        /// Start with the n-th call
        #[arg(long, default_value_t = 1)]
        first: u32,
        /// Time limit for each kind of call, in seconds
        #[arg(long, default_value_t = 3600)]
        seconds: u64,
    },
    /// Let the power fail at each sync, with many different losses; stops at the first violation
    Power {
        /// Number of random losses at each moment
        #[arg(long, default_value_t = 100)]
        losses: u64,
        /// Number of images on which all programs are started again
        #[arg(long, default_value_t = 500)]
        restarts: u64,
    },
    /// Measure the server's memory and start-up time with 10,000, 100,000 and 1,000,000 waiting
    /// messages
    Memory {
        /// Other numbers of waiting messages
        messages: Vec<u64>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    Sqlite,
    Postgres,
    Both,
}

impl Choice {
    async fn backends(self) -> Vec<Backend> {
        let mut backends = Vec::new();
        if self != Self::Postgres {
            backends.push(Backend::Sqlite);
        }
        if self != Self::Sqlite {
            backends.push(Backend::postgres().await);
        }
        backends
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let is_sound = match arguments.command {
        Some(Command::Power { losses, restarts }) => {
            let seed = arguments.seed.unwrap_or_else(|| rand::rng().random());
            power_failures(seed, losses, restarts).await
        }
        None => campaigns(&arguments).await,
        Some(Command::Points {
            stride,
            first,
            seconds,
        }) => {
            all_points(Points {
                first,
                stride,
                time: Duration::from_secs(seconds),
            })
            .await
        }
        Some(Command::Memory { messages }) => {
            let messages = if messages.is_empty() {
                vec![10_000, 100_000, 1_000_000]
            } else {
                messages
            };
            memory(arguments.database, &messages).await
        }
    };
    ExitCode::from(u8::from(!is_sound))
}

async fn campaigns(arguments: &Arguments) -> bool {
    let seed = arguments.seed.unwrap_or_else(|| rand::rng().random());
    println!("seed {seed}");
    let mut is_sound = true;
    for backend in arguments.database.backends().await {
        let settings = Settings {
            rate: arguments.rate,
            is_verbose: arguments.verbose,
            ..Settings::new(seed, arguments.cycles)
        };
        let report = Campaign::start(backend, settings).await.run().await;
        println!("{report}");
        is_sound &= report.violations.is_empty();
    }
    is_sound
}

async fn all_points(points: Points) -> bool {
    if let Err(reason) = tracing::allowed() {
        eprintln!("programs cannot be traced here: {reason}");
        return false;
    }
    let mut is_sound = true;
    for calls in points::SERVER_CALLS {
        let report = points::server(calls, points).await;
        println!("server, {calls}: {report}");
        is_sound &= report.violations.is_empty();
    }
    for calls in points::RECEIVER_CALLS {
        let report = points::receiver(calls, points).await;
        println!("receiver, {calls}: {report}");
        is_sound &= report.violations.is_empty();
    }
    is_sound
}

async fn power_failures(seed: u64, losses: u64, restarts: u64) -> bool {
    if let Err(reason) = tracing::allowed() {
        eprintln!("programs cannot be traced here: {reason}");
        return false;
    }
    println!("seed {seed}");
    let mut scenario = Scenario::new();
    let record = scenario.record().await;
    println!("{} images", record.check_all(power::losses(seed, losses)));
    scenario
        .restart_on_images(&record, record.moments(), seed, restarts)
        .await;
    println!("all programs started again on {restarts} images");
    let mut scenario = Scenario::new();
    let (record, kills) = scenario.record_interrupted().await;
    let images = record.check_all(power::losses(seed, losses));
    println!("{images} images after {} kills", kills.len());
    scenario
        .restart_on_images(&record, record.moments_of_repair(), seed, restarts)
        .await;
    println!("all programs started again on {restarts} images of a repair");
    true
}

async fn memory(database: Choice, messages: &[u64]) -> bool {
    println!("{}", backlog::Figures::HEADER);
    let mut is_sound = true;
    for count in messages {
        for backend in database.backends().await {
            let figures = backlog::measure(&backend, *count, *count).await;
            println!("{figures}");
            is_sound &= figures.is_sound();
        }
    }
    is_sound
}
