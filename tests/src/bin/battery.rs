//! The battery as a program: attacks on the service of others, and figures of what remains of it.
//!
//! ```sh
//! cargo build --release --workspace --bins
//! cargo run --release -p ciphermq-tests --bin battery -- --database both
//! cargo run --release -p ciphermq-tests --bin battery -- --attack handshakes --server OTHER
//! ```
//!
//! The exit code is 0 if no bound is violated, otherwise 1.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ciphermq_tests::Backend;
use ciphermq_tests::battery::attack::{Attack, Extent};
use ciphermq_tests::battery::target::{Target, TargetArgs};
use ciphermq_tests::battery::{Figures, Settings, attacks, round};
use clap::{Parser, Subcommand, ValueEnum};

/// Attacks a server while another client uses it, and prints what the other client keeps.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Database of the server
    #[arg(long, value_enum, default_value_t = Choice::Both)]
    database: Choice,
    /// Make only this attack; may be repeated [default: each attack, then four simultaneously]
    #[arg(long, value_enum)]
    attack: Vec<Attack>,
    /// Make the attacks of --attack simultaneously
    #[arg(long)]
    at_once: bool,
    /// Number of messages with which the victim measures its rate
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Limit on each of the victim's measurements, in seconds
    #[arg(long, default_value_t = 60)]
    limit: u64,
    /// The extent of the attacks
    #[arg(long, value_enum, default_value_t = Extent::Full)]
    extent: Extent,
    /// The server program, in place of the built one
    #[arg(long)]
    server: Option<PathBuf>,
    /// The ciphermq-cli that is the victim, in place of the built one
    #[arg(long)]
    cli: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attack until the process is killed
    #[command(hide = true)]
    Attack {
        attack: Attack,
        #[command(flatten)]
        target: TargetArgs,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    Sqlite,
    Postgres,
    Both,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Attack { attack, target }) = arguments.command {
        attacks::run(attack, Target::new(target)).await;
        return ExitCode::SUCCESS;
    }
    ExitCode::from(u8::from(!battery(arguments).await))
}

/// Makes a path absolute, because each program runs in its own folder.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

async fn battery(arguments: Arguments) -> bool {
    let settings = Settings {
        server: arguments.server.map(absolute),
        cli: arguments.cli.map(absolute),
        messages: arguments.messages,
        limit: Duration::from_secs(arguments.limit),
        extent: arguments.extent,
    };
    let mut rounds: Vec<Vec<Attack>> = Vec::new();
    if arguments.at_once {
        rounds.push(arguments.attack);
    } else if arguments.attack.is_empty() {
        rounds.extend(Attack::value_variants().iter().map(|attack| vec![*attack]));
        rounds.push(Attack::AT_ONCE.to_vec());
    } else {
        rounds.extend(arguments.attack.into_iter().map(|attack| vec![attack]));
    }
    println!("{}", Figures::header());
    let mut holds = true;
    for choice in [Choice::Sqlite, Choice::Postgres] {
        if ![choice, Choice::Both].contains(&arguments.database) {
            continue;
        }
        for attacks in &rounds {
            let backend = match choice {
                Choice::Postgres => Backend::postgres().await,
                _ => Backend::Sqlite,
            };
            let figures = round::run(&backend, attacks, &settings).await;
            println!("{figures}");
            holds &= figures.violations().is_empty()
                && figures.log_growth().is_none()
                && figures.slowness().is_empty();
        }
    }
    holds
}
