//! `completions`: prints a script that completes commands and flags in a shell.

use clap_complete::Shell;

use crate::exit::{Exit, Failure};
use crate::output::stdout;

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

/// Prints the script for `program`, the whole command line.
pub(crate) fn run(args: &Args, mut program: clap::Command) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    match args.shell {
        // clap_complete's script for bash treats the hyphen in the program's name inconsistently,
        // and would complete no subcommand. So it is generated for a name without hyphen, and then
        // bound to the real one.
        Shell::Bash => {
            let mut text = Vec::new();
            clap_complete::generate(Shell::Bash, &mut program, "ciphermq_cli", &mut text);
            let text = String::from_utf8_lossy(&text);
            script.extend(
                text.replace("default ciphermq_cli\n", "default ciphermq-cli\n")
                    .into_bytes(),
            );
        }
        shell => clap_complete::generate(shell, &mut program, "ciphermq-cli", &mut script),
    }
    stdout::print(script)?;
    Ok(Exit::Done)
}
