//! `keygen`: receivers' key pairs and development certificates for CipherMQ.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use jiff::Timestamp;
use keygen::{CertsArgs, Error, KeysArgs, Report, RotateArgs, certs, keys, rotate};

/// Makes a receiver's key pair; with `rotate` a new one in place of it; with `certs` certificates for server and clients
#[derive(Debug, Parser)]
#[command(name = "keygen", version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    keys: KeysArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes new keys in place of those that are there, which are kept for what was sealed for them
    Rotate(RotateArgs),
    /// Makes certificates: an authority's unless it is there, the server's unless it is there, and the clients'
    Certs(CertsArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.command {
        None => keys::run(&args.keys),
        Some(Command::Rotate(args)) => rotate::run(args),
        Some(Command::Certs(args)) => certs::run(args, Timestamp::now()),
    };
    // Whoever reads may stop reading: that the files are made is not less true.
    match result {
        Ok(report) => {
            let _ = print(&report);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// The files on standard output, what to do next on standard error.
fn print(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    report.lines().try_for_each(|line| writeln!(out, "{line}"))?;
    out.flush()?;
    let mut err = io::stderr().lock();
    report.next.iter().try_for_each(|line| writeln!(err, "{line}"))
}

fn print_error(error: &Error) -> io::Result<()> {
    let mut err = io::stderr().lock();
    writeln!(err, "error: {error}")?;
    writeln!(err, "what to do: {}", error.help())
}
