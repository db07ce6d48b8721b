//! `keygen`: a receiver's key pairs, as the program `keygen` makes them.

use clap::Subcommand;
use keygen::{KeysArgs, Report, RotateArgs};

use crate::connection::sentence;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// Make a receiver's key pair, or a new one in place of it
///
/// The files are receiver_private.key, which only its owner can read, and receiver_public.key; with
/// --post-quantum also receiver_xwing_private.key and receiver_xwing_public.key. Nothing that
/// exists is overwritten without --force.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(flatten)]
    keys: KeysArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make new keys in place of those that are there, which are kept for what was sealed for them
    Rotate(RotateArgs),
}

pub(crate) fn run(args: Args, console: &Console) -> Result<Exit, Failure> {
    let report = match &args.command {
        None => keygen::keys::run(&args.keys),
        Some(Command::Rotate(args)) => keygen::rotate::run(args),
    };
    print(&report.map_err(failure)?, console)
}

/// The files on standard output, what to do next on standard error.
pub(super) fn print(report: &Report, console: &Console) -> Result<Exit, Failure> {
    stdout::print(report.lines().map(|line| line + "\n").collect::<String>())?;
    for next in &report.next {
        console.hint(next);
    }
    Ok(Exit::Done)
}

pub(crate) fn failure(error: keygen::Error) -> Failure {
    let failure = Failure::new(sentence(&error.to_string()), sentence(&error.advice()));
    match error.is_usage() {
        true => failure.with_exit(Exit::Usage),
        false => failure,
    }
}
