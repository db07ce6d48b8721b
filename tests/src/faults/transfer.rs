//! Traffic of the real command line, `send --file` and `receive --output`, which is killed and
//! restarted with the same arguments.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::record::{Outcome, Received, Sent};
use super::tracing::Injection;
use crate::process::Process;
use crate::{Cli, Pki, data};

/// Delay before the restart of a program that ended with an error, as by a service manager.
const RESTART_DELAY: Duration = Duration::from_millis(300);

/// Client ids of a sender and its receiver.
#[derive(Debug, Clone)]
pub struct ClientPair {
    /// Client id of the sender.
    pub sender: String,
    /// Client id of the receiver, from which the command line derives the queue and the routing
    /// key.
    pub receiver: String,
}

/// Creates a command of `ciphermq-cli` that connects to `address` as `client`.
fn cli(subcommand: &str, pki: &Pki, client: &str, address: SocketAddr, folder: &Path) -> Cli {
    let identity = pki.client(client);
    Cli::new(subcommand)
        .current_dir(folder)
        .arg("--server")
        .arg(format!("localhost:{}", address.port()))
        .arg("--ca")
        .arg(pki.ca())
        .arg("--cert")
        .arg(identity.certificate)
        .arg("--key")
        .arg(identity.key)
        .args(["--connect-timeout", "3"])
}

/// A program that is killed, frozen and started again.
#[derive(Default)]
struct Program {
    process: Option<Process>,
    is_frozen: bool,
}

impl Program {
    async fn kill(&mut self) {
        if let Some(process) = &mut self.process
            && process.try_ended().is_none()
        {
            process.kill().await;
        }
    }

    fn freeze(&mut self, is_frozen: bool) {
        if let Some(process) = &mut self.process
            && process.try_ended().is_none()
            && self.is_frozen != is_frozen
        {
            process.signal(match is_frozen {
                true => Signal::STOP,
                false => Signal::CONT,
            });
        }
        self.is_frozen = is_frozen;
    }
}

/// Sender that sends one file after the other, each until all of it is acknowledged.
pub struct CliSender {
    command: Box<dyn Fn(&Path) -> Cli + Send + Sync>,
    name: String,
    folder: PathBuf,
    readings: Vec<String>,
    /// Number of lines in a file.
    lines: usize,
    /// Lines of each file, and whether all of them were acknowledged.
    files: Vec<(Vec<String>, bool)>,
    program: Program,
    anomalies: Vec<String>,
    restart_at: Option<Instant>,
}

impl CliSender {
    /// Creates a sender of files in `folder`, each with `lines` of the real readings.
    ///
    /// # Panics
    ///
    /// If the readings cannot be read.
    pub fn new(
        pki: &std::sync::Arc<Pki>,
        address: SocketAddr,
        clients: &ClientPair,
        folder: &Path,
        lines: usize,
    ) -> Self {
        let text = std::fs::read_to_string(data::readings()).expect("the readings can be read");
        let command = {
            let (pki, clients, folder) = (
                std::sync::Arc::clone(pki),
                clients.clone(),
                folder.to_owned(),
            );
            move |file: &Path| {
                cli("send", &pki, &clients.sender, address, &folder)
                    .args(["--to", &clients.receiver])
                    .arg("--file")
                    .arg(file)
            }
        };
        Self {
            command: Box::new(command),
            name: clients.sender.clone(),
            folder: folder.to_owned(),
            readings: text.lines().map(str::to_owned).collect(),
            lines,
            files: Vec::new(),
            program: Program::default(),
            anomalies: Vec::new(),
            restart_at: None,
        }
    }

    /// Restarts the program if it has ended: with the same file if that is not fully acknowledged,
    /// else with the next one if `starts_new_file`. Returns whether there is still a file to send.
    ///
    /// # Panics
    ///
    /// If a file cannot be written, or the program cannot be started.
    pub fn supervise(&mut self, starts_new_file: bool) -> bool {
        if let Some(process) = &mut self.program.process {
            let Some(status) = process.try_ended() else {
                return true;
            };
            match status.code() {
                Some(0) => self
                    .files
                    .last_mut()
                    .into_iter()
                    .for_each(|file| file.1 = true),
                // Ended by a signal, without a server, or without all acknowledgements: repeats the
                // same command.
                None => {}
                Some(1 | 3) => self.restart_at = Some(Instant::now() + RESTART_DELAY),
                Some(code) => self
                    .anomalies
                    .push(format!("send ended with {code}: {}", process.stderr.text())),
            }
            self.program.process = None;
        }
        if self.restart_at.is_some_and(|end| Instant::now() < end) {
            return true;
        }
        if self.files.last().is_none_or(|(_, is_done)| *is_done) {
            if !starts_new_file {
                return false;
            }
            self.write_next_file();
        }
        let file = self.path(self.files.len() - 1);
        self.program.process = Some((self.command)(&file).spawn());
        true
    }

    fn path(&self, index: usize) -> PathBuf {
        self.folder.join(format!("file-{index}.jsonl"))
    }

    fn write_next_file(&mut self) {
        let index = self.files.len();
        let line = |number: usize| {
            let at = (index * self.lines + number) % self.readings.len();
            let reading = self.readings.get(at).map_or("{}", String::as_str);
            reading.replacen(
                '{',
                &format!("{{\"file\": {index}, \"line\": {number}, "),
                1,
            )
        };
        let lines: Vec<String> = (0..self.lines).map(line).collect();
        let mut file = std::fs::File::create(self.path(index)).expect("the input can be written");
        for line in &lines {
            writeln!(file, "{line}").expect("the input can be written");
        }
        self.files.push((lines, false));
    }

    /// Sends SIGKILL to the program if it runs.
    pub async fn kill(&mut self) {
        self.program.kill().await;
    }

    /// Sends SIGSTOP or SIGCONT to the program if it runs.
    pub fn freeze(&mut self, is_frozen: bool) {
        self.program.freeze(is_frozen);
    }

    /// Number of files that are fully acknowledged.
    pub fn files_done(&self) -> usize {
        self.files.iter().filter(|file| file.1).count()
    }

    /// Returns the messages sent, and the anomalies.
    pub fn record(&self) -> (Vec<Sent>, Vec<String>) {
        let sent = self.files.iter().flat_map(|(lines, is_done)| {
            let outcome = if *is_done {
                Outcome::Acknowledged
            } else {
                Outcome::Unknown
            };
            lines.iter().map(move |line| Sent {
                sender: self.name.clone(),
                id: None,
                payload: line.clone(),
                outcome,
            })
        });
        (sent.collect(), self.anomalies.clone())
    }
}

/// Receiver that writes to one output file.
pub struct CliReceiver {
    command: Box<dyn Fn() -> Cli + Send + Sync>,
    output: PathBuf,
    program: Program,
    anomalies: Vec<String>,
    restart_at: Option<Instant>,
    starts: u32,
    was_killed: bool,
}

impl CliReceiver {
    /// Creates a receiver with a new key pair and the output `folder/received.jsonl`.
    ///
    /// # Panics
    ///
    /// If the key pair cannot be generated.
    pub async fn new(
        pki: &std::sync::Arc<Pki>,
        address: SocketAddr,
        clients: &ClientPair,
        folder: &Path,
    ) -> Self {
        Cli::keygen().arg("--out").arg(folder).run().await.success();
        let output = folder.join("received.jsonl");
        let command = {
            let (pki, clients, folder) = (
                std::sync::Arc::clone(pki),
                clients.clone(),
                folder.to_owned(),
            );
            move || {
                cli("receive", &pki, &clients.receiver, address, &folder)
                    .arg("--private-key")
                    .arg(folder.join("receiver_private.key"))
                    .arg("--output")
                    .arg(folder.join("received.jsonl"))
            }
        };
        Self {
            command: Box::new(command),
            output,
            program: Program::default(),
            anomalies: Vec::new(),
            restart_at: None,
            starts: 0,
            was_killed: false,
        }
    }

    /// Path of the output.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// Starts the program if it does not run.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn supervise(&mut self) {
        if let Some(process) = &mut self.program.process {
            match process.try_ended().map(|status| status.code()) {
                None => return,
                // Ended by a signal, without a server, or without confirmation of all acks.
                Some(None) => {}
                Some(Some(1 | 3)) => self.restart_at = Some(Instant::now() + RESTART_DELAY),
                Some(Some(code)) => self.anomalies.push(format!(
                    "receive ended with {code}: {}",
                    process.stderr.text()
                )),
            }
        }
        self.program.process = None;
        if self.restart_at.is_none_or(|end| Instant::now() >= end) {
            self.starts += 1;
            self.program.process = Some((self.command)().spawn());
        }
    }

    /// Number of lost connections since the last start.
    pub fn losses(&self) -> usize {
        let lines = self
            .program
            .process
            .as_ref()
            .map(|process| process.stderr.lines())
            .unwrap_or_default();
        lines
            .iter()
            .filter(|line| line.contains("Connection lost"))
            .count()
    }

    /// Whether a signal killed the program the last time it was finished.
    pub fn was_killed(&self) -> bool {
        self.was_killed
    }

    /// Number of starts.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// Starts the program, and waits until its queue is bound and its key is registered.
    ///
    /// # Panics
    ///
    /// If it does not report that it receives.
    pub async fn start(&mut self) {
        self.supervise();
        if let Some(process) = &self.program.process {
            process.stderr.expect("Receiving from").await;
        }
    }

    /// Sends SIGKILL to the program if it runs.
    pub async fn kill(&mut self) {
        self.program.kill().await;
    }

    /// Sends SIGSTOP or SIGCONT to the program if it runs.
    pub fn freeze(&mut self, is_frozen: bool) {
        self.program.freeze(is_frozen);
    }

    /// Starts the program with a fault injected by strace.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start_under(&mut self, injection: &Injection) {
        self.starts += 1;
        self.program.process = Some((self.command)().under(&injection.command()).spawn());
    }

    /// Whether the program has ended, or was never started.
    pub fn has_ended(&mut self) -> bool {
        self.program
            .process
            .as_mut()
            .is_none_or(|process| process.try_ended().is_some())
    }

    /// Sends SIGTERM to the program, and checks that it ends cleanly.
    pub async fn finish(&mut self) {
        if let Some(mut process) = self.program.process.take() {
            if process.try_ended().is_none() {
                process.signal(Signal::TERM);
            }
            let status = process.ended(crate::PATIENCE).await;
            // With an injected fault it may still be killed while it shuts down.
            self.was_killed = status.code().is_none();
            if !matches!(status.code(), None | Some(0 | 143)) {
                self.anomalies.push(format!(
                    "receive ended with {status} after SIGTERM: {}",
                    process.stderr.text()
                ));
            }
        }
    }

    /// Reads the output. Returns its messages, and the anomalies.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn record(&self) -> (Vec<Received>, Vec<String>) {
        let mut anomalies = self.anomalies.clone();
        let text = std::fs::read_to_string(&self.output)
            .unwrap_or_else(|error| panic!("{}: {error}", self.output.display()));
        if !text.is_empty() && !text.ends_with('\n') {
            anomalies.push("the output ends with an incomplete line".to_owned());
        }
        let mut output = Vec::new();
        for line in text.lines() {
            match Line::parse(line) {
                Ok(received) => output.push(received),
                Err(error) => anomalies.push(format!("in the output: {error}: {line}")),
            }
        }
        (output, anomalies)
    }
}

/// A line of the output of `receive`.
#[derive(Deserialize)]
struct Line<'a> {
    message_id: String,
    sender: String,
    #[serde(borrow)]
    message: &'a RawValue,
}

impl Line<'_> {
    fn parse(line: &str) -> serde_json::Result<Received> {
        let line: Line<'_> = serde_json::from_str(line)?;
        Ok(Received {
            id: line.message_id,
            sender: line.sender,
            payload: line.message.get().to_owned(),
        })
    }
}

/// Whether `send --file` of this build resumes after a kill with the ids that it used before.
pub async fn send_resumes() -> bool {
    Cli::new("send")
        .arg("--help")
        .run()
        .await
        .stdout
        .contains("--again")
}
