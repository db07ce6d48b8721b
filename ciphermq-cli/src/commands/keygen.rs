//! `keygen`: a receiver's key pair, as the program `keygen` makes it.

use keygen::{KeysArgs, Report};

use crate::connection::sentence;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::sink;

/// Make a receiver's key pair
///
/// The files are receiver_private.key, which only its owner can read, and receiver_public.key. Nothing that exists is
/// overwritten without --force.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    keys: KeysArgs,
}

pub(crate) fn run(args: Args, console: &Console) -> Result<Exit, Failure> {
    let report = keygen::keys::run(&args.keys).map_err(failure)?;
    print(&report, console)
}

/// The files on standard output, what to do next on standard error.
pub(super) fn print(report: &Report, console: &Console) -> Result<Exit, Failure> {
    sink::print(report.lines().map(|line| line + "\n").collect::<String>())?;
    for next in &report.next {
        console.hint(next);
    }
    Ok(Exit::Done)
}

pub(super) fn failure(error: keygen::Error) -> Failure {
    Failure::new(sentence(&error.to_string()), sentence(&error.help()))
}
