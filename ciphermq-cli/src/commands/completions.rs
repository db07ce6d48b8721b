//! `completions`: a script that completes the commands and flags in a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::output::sink;

/// Print a script that completes these commands in a shell
///
/// For bash, for example:
///
/// ciphermq-cli completions bash > ~/.local/share/bash-completion/completions/ciphermq-cli
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ciphermq-cli", &mut script);
    sink::print(script)?;
    Ok(Exit::Done)
}
