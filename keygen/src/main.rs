//! `keygen`: receivers' key pairs and development certificates for CipherMQ.

mod console;

use std::process::ExitCode;
use std::sync::Arc;

use ciphermq_crypto::text;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use jiff::Timestamp;
use keygen::{
    CertsArgs, KeysArgs, ListArgs, RevokeArgs, RotateArgs, arguments, certs, keys, revocation,
    rotate,
};

/// Creates a receiver's key pair; with `rotate`, replaces it; with `certs`, creates certificates
/// for the server and clients
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
    /// Creates new keys in place of the existing ones, which are kept for messages sealed for them
    Rotate(RotateArgs),
    /// Creates certificates: the authority's and the server's unless they exist, and the clients'
    Certs(CertsArgs),
    /// Revokes a client's or the server's certificate: adds it to the authority's revocation list
    Revoke(RevokeArgs),
    /// Signs the authority's revocation list anew, before it ends; creates it if there is none
    Crl(ListArgs),
}

/// Exit code for an invalid name on the command line, the same as clap's.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Reaching a limit on file sizes is an error of the write, and must not end the program.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
    let mut command = Args::command();
    let matches = match command.try_get_matches_from_mut(std::env::args_os()) {
        Ok(matches) => matches,
        Err(message) if message.use_stderr() => {
            console::lines(text::command_line_error(&message.render().to_string()));
            return ExitCode::from(USAGE);
        }
        Err(message) => {
            return console::printed(console::check_stdout().and_then(|()| message.print()));
        }
    };
    if let Some(held) = arguments::held_key(&command, &matches, &[]) {
        return usage(&held.problem(), held.advice());
    }
    let args = match Args::from_arg_matches(&matches) {
        Ok(args) => args,
        Err(error) => {
            return usage(&text::command_line_error(&error.to_string()), "See --help.");
        }
    };
    let result = match &args.command {
        None => keys::run(&args.keys),
        Some(Command::Rotate(args)) => rotate::run(args),
        Some(Command::Certs(args)) => certs::run(args, Timestamp::now()),
        Some(Command::Revoke(args)) => revocation::revoke(args, Timestamp::now()),
        Some(Command::Crl(args)) => revocation::renew(args, Timestamp::now()),
    };
    match result {
        // The files on standard output, the next steps on standard error.
        Ok(report) => {
            let printed = console::print(report.lines());
            report.next.iter().for_each(console::lines);
            console::printed(printed)
        }
        Err(error) => {
            console::lines(format_args!(
                "error: {error}\nwhat to do: {}",
                error.advice()
            ));
            ExitCode::from(if error.is_usage() { USAGE } else { 1 })
        }
    }
}

/// Reports a mistake on the command line.
fn usage(problem: &str, advice: &str) -> ExitCode {
    console::lines(format_args!("error: {problem}\nwhat to do: {advice}"));
    ExitCode::from(USAGE)
}
