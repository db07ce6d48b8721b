//! `keygen`: makes key pairs and certificates, with all commands of the program `keygen`.

use ciphermq_client::Timestamp;
use keygen::{Command, KeysArgs, Report};

use crate::console::Console;
use crate::exit::{Exit, Failure, sentence};
use crate::output::stdout;

/// Make a receiver's key pair or replace it, or make, sign and renew certificates
///
/// The files are receiver_private.key, which only its owner can read, and receiver_public.key; with
/// --post-quantum also receiver_xwing_private.key and receiver_xwing_public.key. Existing files are
/// not overwritten without --force.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(flatten)]
    keys: KeysArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

pub(crate) fn run(args: Args, console: &Console) -> Result<Exit, Failure> {
    let report = match &args.command {
        None => keygen::keys::run(&args.keys),
        Some(command) => command.run(Timestamp::now()),
    };
    print(&report.map_err(failure)?, console)
}

/// Prints the files on standard output, and hints on standard error.
pub(super) fn print(report: &Report, console: &Console) -> Result<Exit, Failure> {
    stdout::print(report.lines().map(|line| line + "\n").collect::<String>())?;
    for next in &report.next {
        console.hint(next);
    }
    Ok(Exit::Done)
}

/// Converts an error of key generation, with its advice.
pub(crate) fn failure(error: keygen::Error) -> Failure {
    let failure = Failure::new(sentence(&error.to_string()), sentence(&error.advice()));
    match error.is_usage() {
        true => failure.with_exit(Exit::Usage),
        false => failure,
    }
}
