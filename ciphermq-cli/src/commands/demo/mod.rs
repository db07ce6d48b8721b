//! `demo`: a complete run of the real programs, with temporary keys, certificates and database.
//!
//! ```text
//!   certs, keygen ─► ciphermq-server ─► ciphermq-cli receive
//!                          ▲                    │
//!   the messages ─► ciphermq-cli send     received_messages.jsonl ─► compared with the messages
//! ```

mod compare;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ciphermq_files::{Access, advice, create_folder};
use keygen::KeysArgs;
use tokio::process::Command;

use self::compare::Expected;
use super::keygen::failure as keygen_failure;
use crate::console::rate::rate;
use crate::console::table::Table;
use crate::console::{Console, Verbosity};
use crate::exit::{Exit, Failure};
use crate::local::{self, Child, END_TIMEOUT, Logging, START_TIMEOUT};
use crate::signals::Signals;

/// Run a complete example once: certificates, server, receiver, sender and messages
///
/// Makes certificates and keys, starts a server on SQLite, a receiver and a sender, sends real
/// messages from a file, and compares the received messages with the file. Everything is made for
/// this run, in its own folder, and stays there for inspection. The server listens on a free port
/// of this machine only. Several demos can run at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The messages, one per line [default: the sample readings in tests/data]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The folder to work in; it must be new or empty [default: a new one in the system's temporary
    /// folder]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// The sample messages in the source tree.
const SAMPLE: &str = "tests/data/sensor-readings.jsonl";
const SENDER: &str = "sender_1";
const RECEIVER: &str = "receiver_1";
const OUTPUT: &str = "received_messages.jsonl";
/// The time without any message after which the receiver gives up, in seconds.
const IDLE_SECONDS: &str = "60";

pub(crate) async fn run(
    args: Args,
    console: Console,
    verbosity: Verbosity,
) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()?;
    let demo = Demo::prepare(&args, console, verbosity)?;
    // Dropping the demo ends the programs that it has started.
    tokio::select! {
        result = demo.run() => result,
        signal = signals.received() => Ok(Exit::Signalled(signal)),
    }
}

struct Demo {
    folder: PathBuf,
    file: PathBuf,
    expected: Expected,
    own_program: PathBuf,
    console: Console,
    verbosity: Verbosity,
}

/// The times of a run.
struct Measurement {
    sending: Duration,
    whole: Duration,
}

impl Demo {
    /// Finds the programs and the messages, and makes certificates and keys.
    ///
    /// # Errors
    ///
    /// [`Failure`] if a program, the messages or the folder cannot be used.
    fn prepare(args: &Args, console: Console, verbosity: Verbosity) -> Result<Self, Failure> {
        let own_program = local::own_program()?;
        // Checked before anything is made.
        local::server_program()?;
        let file = match &args.file {
            Some(file) => file.clone(),
            None => sample(&own_program)?,
        };
        let file = std::path::absolute(&file).unwrap_or(file);
        let expected = Expected::read(&file)?;
        if expected.is_empty() {
            return Err(Failure::new(
                format!("The file {} holds no messages.", file.display()),
                "Name a file with one message per line, with --file.",
            ));
        }
        let folder = folder(args.out.as_deref())?;
        console.info(format_args!(
            "Making certificates and keys in {}",
            folder.display()
        ));
        let certs = folder.join("certs");
        local::certificates(&folder, &[SENDER, RECEIVER])?;
        keygen::keys::run(&KeysArgs {
            out: certs,
            force: false,
            post_quantum: false,
        })
        .map_err(keygen_failure)?;
        Ok(Self {
            folder,
            file,
            expected,
            own_program,
            console,
            verbosity,
        })
    }

    async fn run(self) -> Result<Exit, Failure> {
        let (mut server, address) =
            local::start_server(&self.folder, local::SQLITE, Logging { messages: true }).await?;
        self.console
            .info(format_args!("The server listens on {address}"));
        let mut receiver = self.start_receiver(&address).await?;
        self.console.info(format_args!(
            "Sending {} messages of {}",
            self.expected.count(),
            self.file.display()
        ));
        let started = Instant::now();
        let mut sender = self.start_sender(&address)?;
        sender.wait_success(None).await?;
        let sending = started.elapsed();
        receiver.wait_success(None).await?;
        let measurement = Measurement {
            sending,
            whole: started.elapsed(),
        };
        server.terminate()?;
        server.wait_success(Some(END_TIMEOUT)).await?;
        self.expected.compare(&self.folder.join(OUTPUT))?;
        self.result(&measurement).print()?;
        Ok(Exit::Done)
    }

    async fn start_receiver(&self, address: &str) -> Result<Child, Failure> {
        let mut command = self.own_command("receive", address, RECEIVER);
        command.args([
            "--private-key",
            "certs/receiver_private.key",
            "--output",
            OUTPUT,
            "--idle-exit",
            IDLE_SECONDS,
        ]);
        command.args(["--count", &self.expected.count().to_string()]);
        let mut receiver = Child::start("ciphermq-cli receive", command, &self.folder)?;
        receiver
            .wait_for_line("Receiving from ", START_TIMEOUT)
            .await?;
        Ok(receiver)
    }

    fn start_sender(&self, address: &str) -> Result<Child, Failure> {
        let mut command = self.own_command("send", address, SENDER);
        command.args(["--to", RECEIVER, "--file"]).arg(&self.file);
        // Beside the file it would conflict with the next demo, which has another server.
        command.args(["--checkpoint", "sent.ciphermq-send"]);
        // At the default verbosity the sender's progress bar is shown.
        if self.verbosity == Verbosity::Normal {
            Child::start_sharing_stderr("ciphermq-cli send", command, &self.folder)
        } else {
            Child::start("ciphermq-cli send", command, &self.folder)
        }
    }

    /// This program with a subcommand, as one of the two clients.
    fn own_command(&self, subcommand: &str, address: &str, client: &str) -> Command {
        let mut command = Command::new(&self.own_program);
        command.args([subcommand, "--server", address, "--ca", "certs/ca.crt"]);
        command.args([
            "--cert",
            &format!("certs/{client}/client.crt"),
            "--key",
            &format!("certs/{client}/client.key"),
        ]);
        command
    }

    fn result(&self, measurement: &Measurement) -> Table {
        let count = self.expected.count();
        let (sending, whole) = (measurement.sending, measurement.whole);
        let mut table = Table::new(11);
        table.row(
            "sent",
            format_args!(
                "{count} messages, all acknowledged, in {:.2} s ({:.0}/s)",
                sending.as_secs_f64(),
                rate(count, sending)
            ),
        );
        table.row(
            "received",
            format_args!(
                "{count} messages, end to end in {:.2} s ({:.0}/s)",
                whole.as_secs_f64(),
                rate(count, whole)
            ),
        );
        table.row("compared", "every line arrived exactly once, byte for byte");
        table.row("output", self.folder.join(OUTPUT).display());
        table.row(
            "folder",
            format_args!(
                "{} (certificates, keys, database, logs; it is kept: remove it when you like)",
                self.folder.display()
            ),
        );
        table
    }
}

/// Finds the sample messages, in the current folder or in the checkout that this program was built
/// in.
fn sample(own_program: &Path) -> Result<PathBuf, Failure> {
    // <checkout>/target/release/ciphermq-cli
    let checkout = own_program.ancestors().nth(3);
    let folders = [Some(Path::new("")), checkout];
    let found = folders
        .into_iter()
        .flatten()
        .map(|folder| folder.join(SAMPLE))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::new(
            format!("The sample messages, {SAMPLE}, do not exist."),
            "Run the demo in the source folder, or name a file with one message per line, with \
             --file.",
        )
    })
}

/// Creates the folder to work in, or checks that the given one is empty.
fn folder(out: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(out) = out else {
        let created = tempfile::Builder::new().prefix("ciphermq-demo-").tempdir();
        return created
            .map(tempfile::TempDir::keep)
            .map_err(|error| unwritable(&std::env::temp_dir(), &error));
    };
    create_folder(out, Access::Private).map_err(|error| unwritable(out, &error))?;
    let mut entries = std::fs::read_dir(out).map_err(|error| unwritable(out, &error))?;
    if entries.next().is_some() {
        return Err(Failure::new(
            format!("The folder {} is not empty.", out.display()),
            "Name a new or an empty one with --out.",
        ));
    }
    std::path::absolute(out).map_err(|error| unwritable(out, &error))
}

fn unwritable(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        format!("The folder {} cannot be used: {error}.", folder.display()),
        advice(error).unwrap_or("Name one that you may write to, with --out."),
    )
}
