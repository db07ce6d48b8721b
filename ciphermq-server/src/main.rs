//! `ciphermq-server`: the program around the library.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use ciphermq_files::{Need, check_descriptor};
use ciphermq_protocol::text;
use ciphermq_server::config::{self, Config};
use ciphermq_server::signals::Signals;
use ciphermq_server::{backup, file_roles, server};
use clap::{Parser, Subcommand};

/// The CipherMQ broker: routes end-to-end encrypted messages through exchanges and queues over
/// mutual TLS.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file. Variables named CIPHERMQ_<SECTION>_<FIELD> override its
    /// settings.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "config.toml",
        global = true
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do instead of running.
#[derive(Clone, Subcommand)]
enum Command {
    /// Check the configuration and the files that it names, without starting or creating anything.
    ///
    /// Exit code 0 if the server can use them, and 1 with the error that its start would report, or
    /// if a certificate or a revocation list has ended. When each of them ends is printed.
    /// The database and the address are not connected to.
    Check,
    /// Back up the database of a running server, or of a stopped one, into a new folder.
    ///
    /// The backup holds one commit, and the server goes on meanwhile. Of PostgreSQL it holds the
    /// server's tables; pg_dump is not needed. The key of [encryption] is not in it: keep a copy in
    /// another place.
    Backup {
        /// The folder. It must not exist, or be empty.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Restore a backup into the configured database, which must not exist yet.
    ///
    /// The server must not run. All files of the backup are checked before anything is written.
    /// Nothing is restored halfway: an interrupted run leaves no database. A backup of an older
    /// version is brought up to date when the server starts.
    Restore {
        /// The folder of the backup.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Check the database of a running server, or of a stopped one, or a backup.
    ///
    /// Prints a line for each fault. Exit code 0 if there is none, and 1 if there are faults or
    /// it cannot be checked. Nothing is changed.
    Verify {
        /// The folder of a backup, to check that instead of the database.
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

/// The exit code for a command line that cannot be used, the same as clap's.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            print(&text::command_line_error(&error.render().to_string()));
            return ExitCode::from(USAGE);
        }
        Err(help) => return print_help(&help),
    };
    let result = match &arguments.command {
        None => run(&arguments).map(|()| true),
        Some(Command::Check) => check(&arguments),
        Some(command) => beside_a_server(&arguments, command),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report(&*error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    // Before anything else: a signal during the start must not interrupt the server halfway.
    let signals = {
        let _runtime = runtime.enter();
        Signals::listen().map_err(|error| {
            format!("cannot listen for signals: {error}\nCheck the system's configuration.")
        })?
    };
    let config = Config::load(&arguments.config, config::environment())?;
    file_roles::refuse_shared(&config, &arguments.config)?;
    let prepared = runtime.block_on(server::prepare(&config));
    // A server that cannot start creates no log files, but reports to an existing error log.
    if prepared.is_err() && !config.logging.error_file_path.exists() {
        return prepared.map(drop).map_err(Into::into);
    }
    let guard = ciphermq_logging::init(&config.logging, config.log_reserve(), config::WARNINGS)?;
    server::raise_file_limit();
    let result = prepared.and_then(|prepared| {
        runtime.block_on(server::run(config, prepared, guard.handle(), signals))
    });
    if let Err(error) = &result {
        // The console shows the error in full, and only once.
        guard.end_console();
        tracing::error!("{}", error.to_string().lines().next().unwrap_or_default());
    }
    // Tasks that still run hold nothing that matters.
    runtime.shutdown_background();
    drop(guard);
    result.map_err(Into::into)
}

/// Checks what a start would read, and reports the result on standard error, with warnings and the
/// ends of certificates. Returns whether all of these are valid.
fn check(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let config = Config::load(&arguments.config, config::environment())?;
    file_roles::refuse_shared(&config, &arguments.config)?;
    let ends = server::check(&config)?;
    for warning in &config.warnings {
        print(&format!("warning: {warning}"));
    }
    print(&ends.text);
    if ends.is_valid {
        let path = text::shown(&arguments.config);
        print(&format!(
            "{path} can be used, and so can the files that it names"
        ));
    }
    Ok(ends.is_valid)
}

/// Carries out a command on the database. Returns whether it found no fault.
fn beside_a_server(
    arguments: &Arguments,
    command: &Command,
) -> Result<bool, Box<dyn std::error::Error>> {
    check_descriptor(1, Need::Write).map_err(unwritable)?;
    let config = Config::load(&arguments.config, config::environment())?;
    file_roles::refuse_shared(&config, &arguments.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut written = Ok(());
    let mut show = |line: backup::Line| {
        if written.is_ok() {
            written = say(&line);
        }
    };
    let is_sound = runtime.block_on(async {
        let lines = match command {
            Command::Check => return Ok(true),
            Command::Backup { folder } => backup::create(&config, folder).await?,
            Command::Restore { folder } => backup::restore(&config, folder).await?,
            Command::Verify { folder } => {
                return backup::verify(&config, folder.as_deref(), &mut show).await;
            }
        };
        lines.into_iter().for_each(&mut show);
        Ok(true)
    })?;
    match written {
        // A reader that stops early is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritable(error).into()),
        _ => Ok(is_sound),
    }
}

/// Writes a line to standard output, with control characters escaped: it may quote the database.
#[expect(
    clippy::disallowed_methods,
    reason = "the way to standard output of the commands beside a server"
)]
fn say(line: &backup::Line) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text::lines(line).as_bytes())?;
    out.flush()
}

fn unwritable(error: impl std::fmt::Display) -> String {
    format!("standard output cannot be written: {error}\nName a file or a program that takes it.")
}

/// Prints the help or the version on standard output.
#[expect(
    clippy::disallowed_methods,
    reason = "flushes what clap has written there"
)]
fn print_help(help: &clap::Error) -> ExitCode {
    let printed = check_descriptor(1, Need::Write)
        .and_then(|()| help.print())
        .and_then(|()| io::stdout().flush());
    match printed {
        // A reader that stops early is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            print(&format!(
                "error: standard output cannot be written: {error}"
            ));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Reports an error and its advice on standard error, with the causes that it does not include.
fn report(error: &dyn std::error::Error) {
    let mut text = error.to_string();
    let mut report = format!("error: {text}");
    let mut source = error.source();
    while let Some(cause) = source {
        // Many errors already include their causes.
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            report.push_str(&format!("\n  because: {cause_text}"));
            text = cause_text;
        }
        source = cause.source();
    }
    print(&report);
}

/// Writes the lines of `text` to standard error, with control characters escaped: they may quote
/// the configuration or a database server. If that cannot be written, the exit code reports the
/// failure.
#[expect(
    clippy::disallowed_methods,
    reason = "the way to standard error before there is a log"
)]
fn print(text: &str) {
    let _ = std::io::stderr()
        .lock()
        .write_all(text::lines(text).as_bytes());
}
