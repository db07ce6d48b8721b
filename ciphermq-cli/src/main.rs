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
//! - [`commands`]: one command, one file
//! - [`local`]: a server of one's own, throwaway
//! - [`output`]: where received messages are written
//! - [`console`]: what people read meanwhile
//! - [`signals`]: SIGINT and SIGTERM
//! - [`exit`]: exit codes, and errors of two parts

mod args;
mod commands;
mod connection;
mod console;
mod exit;
mod local;
mod output;
mod signals;

use std::io::{Write as _, stderr};
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::args::Cli;
use crate::console::Verbosity;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let verbosity = cli.verbosity();
    log_to_stderr(verbosity);
    let exit = commands::run(cli.command, verbosity).unwrap_or_else(|failure| {
        // A closed stderr must not turn an error into a panic.
        let _ = writeln!(stderr().lock(), "error: {failure}");
        failure.exit()
    });
    exit.into()
}

/// What the SDK logs is for those who look for trouble: `RUST_LOG` says what is wanted, or `-vv` and more.
fn log_to_stderr(verbosity: Verbosity) {
    let default = match verbosity {
        Verbosity::Quiet | Verbosity::Normal | Verbosity::Messages => "off",
        Verbosity::Payloads => "ciphermq_client=debug",
        Verbosity::Trace => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .init();
}
