//! The CipherMQ command line.
//!
//! ```text
//!   arguments ─► Cli ─► commands/<command>.rs ─► the SDK (ciphermq-client), the key maker (keygen)
//!                          │
//!                          ├─► data ─► stdout, or an output file
//!                          ├─► what happens ─► console ─► stderr
//!                          └─► Exit, or a Failure of two parts ─► exit code
//! ```
//!
//! Modules in reading order:
//!
//! - [`args`]: the command line as it is typed
//! - [`connection`]: how to reach the server: flags, environment, file, defaults
//! - [`own_files`]: no file that is written is another one that is in use
//! - [`commands`]: one command, one file
//! - [`local`]: a server of one's own, throwaway
//! - [`output`]: where received messages are written
//! - [`console`]: what people read meanwhile
//! - [`signals`]: what asks the program to end
//! - [`exit`]: exit codes, and errors of two parts

mod args;
mod commands;
mod connection;
mod console;
mod exit;
mod local;
mod output;
mod own_files;
mod signals;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::args::Cli;
use crate::console::{Verbosity, stderr};
use crate::exit::{Exit, Failure};
use crate::output::stdout;

fn main() -> ExitCode {
    signals::outlive_file_size_limits();
    let result = match Cli::try_parse() {
        Ok(cli) => {
            let verbosity = cli.verbosity();
            log_to_stderr(verbosity);
            commands::run(cli.command, verbosity)
        }
        Err(said) => answer(&said),
    };
    let exit = result.unwrap_or_else(|failure| {
        console::error(&failure);
        failure.exit()
    });
    stderr::clear_bar();
    exit.into()
}

/// What clap has to say: help and version on standard output, with its colours on a terminal; what
/// is wrong with the command line on standard error.
fn answer(said: &clap::Error) -> Result<Exit, Failure> {
    if said.use_stderr() {
        stderr::lines(said.render());
        return Ok(Exit::Usage);
    }
    stdout::check()?;
    #[expect(
        clippy::disallowed_methods,
        reason = "clap has written there, in parts"
    )]
    let printed = said.print().and_then(|()| io::stdout().flush());
    match printed.map_err(|error| Failure::stdout(&error)) {
        Err(Some(failure)) => Err(failure),
        Ok(()) | Err(None) => Ok(Exit::Done),
    }
}

/// What the SDK logs is for those who look for trouble: `RUST_LOG` says what is wanted, or `-vv`
/// and more.
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
