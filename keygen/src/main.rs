//! `keygen`: receivers' key pairs, and certificates for CipherMQ.

mod console;

use std::process::ExitCode;
use std::sync::Arc;

use ciphermq_crypto::text;
use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use jiff::Timestamp;
use keygen::{Command, KeysArgs, arguments, keys};

/// Creates a receiver's key pair; with a command, replaces it, or creates and renews certificates
/// for the server and clients
#[derive(Debug, Parser)]
#[command(name = "keygen", version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(flatten)]
    keys: KeysArgs,
    #[command(subcommand)]
    command: Option<Command>,
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
        Some(command) => command.run(Timestamp::now()),
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
