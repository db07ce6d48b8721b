//! The CipherMQ command line.
//!
//! ```text
//!   arguments ─► Cli ─► commands/<command>.rs ─► the SDK (ciphermq-client), key generation (keygen)
//!                          │
//!                          ├─► data ─► stdout, or an output file
//!                          ├─► progress and warnings ─► console ─► stderr
//!                          └─► Exit, or a Failure with advice ─► exit code
//! ```
//!
//! Modules in reading order:
//!
//! - [`args`]: the command line as a whole
//! - [`connection`]: connection options from flags, environment, file and defaults
//! - [`file_roles`]: the check that no file that is written is in use otherwise
//! - [`commands`]: one module per command
//! - [`local`]: a temporary server of one's own
//! - [`output`]: the destinations of received messages, and standard output
//! - [`console`]: standard error
//! - [`signals`]: the signals that ask the program to end
//! - [`exit`]: exit codes, and errors with advice
//! - [`value_parsers`]: parsers of values that several options have

mod args;
mod commands;
mod connection;
mod console;
mod exit;
mod file_roles;
mod local;
mod output;
mod signals;
mod value_parsers;

use std::io::{self, Write as _};
use std::process::ExitCode;

use ciphermq_client::text;
use clap::{CommandFactory as _, FromArgMatches as _};
use keygen::arguments;
use tracing_subscriber::EnvFilter;

use crate::args::Cli;
use crate::console::{Verbosity, stderr};
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// The arguments that may have the form of a key: messages, and the password in a database's URL.
const MAY_BE_KEYS: [&str; 2] = ["message", "database"];

fn main() -> ExitCode {
    signals::ignore_file_size_signal();
    let mut command = Cli::command();
    let parsed = command
        .try_get_matches_from_mut(std::env::args_os())
        .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let result = match parsed {
        Ok((cli, matches)) => {
            let verbosity = cli.verbosity();
            log_to_stderr(verbosity);
            match arguments::held_key(&command, &matches, &MAY_BE_KEYS) {
                Some(held) => Err(Failure::usage(
                    format!("{}.", held.problem()),
                    held.advice(),
                )),
                None => commands::run(cli.command, verbosity, Cli::command),
            }
        }
        Err(error) => print_clap(&error),
    };
    let exit = result.unwrap_or_else(|failure| {
        console::error(&failure);
        failure.exit()
    });
    stderr::clear_bar();
    exit.into()
}

/// Prints clap's output: help and version on standard output, in colour on a terminal; usage errors
/// on standard error.
fn print_clap(error: &clap::Error) -> Result<Exit, Failure> {
    if error.use_stderr() {
        stderr::lines(text::command_line_error(&error.render().to_string()));
        return Ok(Exit::Usage);
    }
    stdout::check()?;
    #[expect(
        clippy::disallowed_methods,
        reason = "flushes what clap has written there"
    )]
    let printed = error.print().and_then(|()| io::stdout().flush());
    match printed.map_err(|error| Failure::stdout(&error)) {
        Err(Some(failure)) => Err(failure),
        Ok(()) | Err(None) => Ok(Exit::Done),
    }
}

/// Sets up the SDK's log on standard error. `RUST_LOG` sets its level, or `-vv` and above do.
fn log_to_stderr(verbosity: Verbosity) {
    let default = match verbosity {
        Verbosity::Quiet | Verbosity::Normal | Verbosity::Messages => "off",
        Verbosity::Payloads => "ciphermq_client=debug",
        Verbosity::Trace => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .fmt_fields(stderr::fields())
        .with_ansi(stderr::has_colours())
        .with_writer(stderr::Log)
        .init();
}
