//! Traffic of the real command line: `send --file` and `receive --output`, killed and started again
//! with the same commands.

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

/// After an end with an error a program is started again after a while only, as by a service
/// manager.
const REST: Duration = Duration::from_millis(300);

/// Where files go.
#[derive(Debug, Clone)]
pub struct Route {
    /// The sender's client id.
    pub sender: String,
    /// The receiver's client id; its queue and routing key are those that the command line makes of
    /// it.
    pub receiver: String,
}

/// `ciphermq-cli` as this client, through this address.
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

/// Sends file after file, each until the sender says that all of it is acknowledged.
pub struct CliSender {
    command: Box<dyn Fn(&Path) -> Cli + Send + Sync>,
    name: String,
    folder: PathBuf,
    readings: Vec<String>,
    /// How many lines a file has.
    lines: usize,
    /// Each file's lines, and whether all of them were acknowledged.
    files: Vec<(Vec<String>, bool)>,
    process: Option<Process>,
    anomalies: Vec<String>,
    is_stopped: bool,
    rests_until: Option<Instant>,
}

impl CliSender {
    /// A sender of files in `folder`, each of so many of the real readings.
    ///
    /// # Panics
    ///
    /// If the readings cannot be read.
    pub fn new(
        pki: &std::sync::Arc<Pki>,
        address: SocketAddr,
        route: &Route,
        folder: &Path,
        lines: usize,
    ) -> Self {
        let text = std::fs::read_to_string(data::readings()).expect("the readings can be read");
        let command = {
            let (pki, route, folder) =
                (std::sync::Arc::clone(pki), route.clone(), folder.to_owned());
            move |file: &Path| {
                cli("send", &pki, &route.sender, address, &folder)
                    .args(["--to", &route.receiver])
                    .arg("--file")
                    .arg(file)
            }
        };
        Self {
            command: Box::new(command),
            name: route.sender.clone(),
            folder: folder.to_owned(),
            readings: text.lines().map(str::to_owned).collect(),
            lines,
            files: Vec::new(),
            process: None,
            anomalies: Vec::new(),
            is_stopped: false,
            rests_until: None,
        }
    }

    /// Starts the next file if the last one is done, or the last one again if its sender has ended
    /// without being done. Returns whether a sender runs.
    ///
    /// # Panics
    ///
    /// If a file cannot be written or the program not started.
    pub fn tend(&mut self, makes_new: bool) -> bool {
        if let Some(process) = &mut self.process {
            let Some(status) = process.try_ended() else {
                return true;
            };
            match status.code() {
                Some(0) => self
                    .files
                    .last_mut()
                    .into_iter()
                    .for_each(|file| file.1 = true),
                // A signal, no server, or something not acknowledged: the same command again.
                None => {}
                Some(1 | 3) => self.rests_until = Some(Instant::now() + REST),
                Some(code) => self
                    .anomalies
                    .push(format!("send ended with {code}: {}", process.stderr.text())),
            }
            self.process = None;
        }
        if self.rests_until.is_some_and(|end| Instant::now() < end) {
            return true;
        }
        if self.files.last().is_none_or(|(_, is_done)| *is_done) {
            if !makes_new {
                return false;
            }
            self.write_next();
        }
        let file = self.path(self.files.len() - 1);
        self.process = Some((self.command)(&file).spawn());
        true
    }

    fn path(&self, index: usize) -> PathBuf {
        self.folder.join(format!("file-{index}.jsonl"))
    }

    fn write_next(&mut self) {
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

    /// SIGKILL, if it runs.
    pub async fn kill(&mut self) {
        if let Some(process) = &mut self.process
            && process.try_ended().is_none()
        {
            process.kill().await;
        }
    }

    /// SIGSTOP or SIGCONT, if it runs.
    pub fn freeze(&mut self, is_frozen: bool) {
        freeze(&mut self.process, &mut self.is_stopped, is_frozen);
    }

    /// How many files have been sent to the end.
    pub fn files_done(&self) -> usize {
        self.files.iter().filter(|file| file.1).count()
    }

    /// What was sent.
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

/// Receives into one file.
pub struct CliReceiver {
    command: Box<dyn Fn() -> Cli + Send + Sync>,
    output: PathBuf,
    process: Option<Process>,
    anomalies: Vec<String>,
    is_stopped: bool,
    rests_until: Option<Instant>,
    starts: u32,
    was_killed: bool,
}

impl CliReceiver {
    /// A receiver into `folder/received.jsonl`, with a key pair of its own.
    ///
    /// # Panics
    ///
    /// If the key pair cannot be made.
    pub async fn new(
        pki: &std::sync::Arc<Pki>,
        address: SocketAddr,
        route: &Route,
        folder: &Path,
    ) -> Self {
        Cli::keygen().arg("--out").arg(folder).run().await.success();
        let output = folder.join("received.jsonl");
        let command = {
            let (pki, route, folder) =
                (std::sync::Arc::clone(pki), route.clone(), folder.to_owned());
            move || {
                cli("receive", &pki, &route.receiver, address, &folder)
                    .arg("--private-key")
                    .arg(folder.join("receiver_private.key"))
                    .arg("--output")
                    .arg(folder.join("received.jsonl"))
            }
        };
        Self {
            command: Box::new(command),
            output,
            process: None,
            anomalies: Vec::new(),
            is_stopped: false,
            rests_until: None,
            starts: 0,
            was_killed: false,
        }
    }

    /// The output.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// Starts it, again if it has ended.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn tend(&mut self) {
        if let Some(process) = &mut self.process {
            match process.try_ended().map(|status| status.code()) {
                None => return,
                // A signal, no server, or acks without confirmation.
                Some(None) => {}
                Some(Some(1 | 3)) => self.rests_until = Some(Instant::now() + REST),
                Some(Some(code)) => self.anomalies.push(format!(
                    "receive ended with {code}: {}",
                    process.stderr.text()
                )),
            }
        }
        self.process = None;
        if self.rests_until.is_none_or(|end| Instant::now() >= end) {
            self.starts += 1;
            self.process = Some((self.command)().spawn());
        }
    }

    /// How often it has lost its connection since it was started last.
    pub fn losses(&self) -> usize {
        let lines = self
            .process
            .as_ref()
            .map(|process| process.stderr.lines())
            .unwrap_or_default();
        lines
            .iter()
            .filter(|line| line.contains("Connection lost"))
            .count()
    }

    /// Whether its last end was no clean one.
    pub fn was_killed(&self) -> bool {
        self.was_killed
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// Starts it and waits until its queue is bound and its key registered.
    ///
    /// # Panics
    ///
    /// If it does not say so.
    pub async fn start(&mut self) {
        self.tend();
        if let Some(process) = &self.process {
            process.stderr.expect("Receiving from").await;
        }
    }

    /// SIGKILL, if it runs.
    pub async fn kill(&mut self) {
        if let Some(process) = &mut self.process
            && process.try_ended().is_none()
        {
            process.kill().await;
        }
    }

    /// SIGSTOP or SIGCONT, if it runs.
    pub fn freeze(&mut self, is_frozen: bool) {
        freeze(&mut self.process, &mut self.is_stopped, is_frozen);
    }

    /// Starts it with this in its way.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start_under(&mut self, injection: &Injection) {
        self.starts += 1;
        self.process = Some((self.command)().under(&injection.command()).spawn());
    }

    /// Whether it has ended, or was never started.
    pub fn has_ended(&mut self) -> bool {
        self.process
            .as_mut()
            .is_none_or(|process| process.try_ended().is_some())
    }

    /// SIGTERM, and its clean end.
    pub async fn finish(&mut self) {
        if let Some(mut process) = self.process.take() {
            if process.try_ended().is_none() {
                process.signal(Signal::TERM);
            }
            let status = process.ended(crate::PATIENCE).await;
            // One that runs under an injection may be killed on its way out.
            self.was_killed = status.code().is_none();
            if !matches!(status.code(), None | Some(0 | 143)) {
                self.anomalies.push(format!(
                    "receive ended with {status} after SIGTERM: {}",
                    process.stderr.text()
                ));
            }
        }
    }

    /// What stands in the output, and what is wrong with it.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn record(&self) -> (Vec<Received>, Vec<String>) {
        let mut anomalies = self.anomalies.clone();
        let text = std::fs::read_to_string(&self.output)
            .unwrap_or_else(|error| panic!("{}: {error}", self.output.display()));
        if !text.is_empty() && !text.ends_with('\n') {
            anomalies.push("the output ends with a torn line".to_owned());
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

fn freeze(process: &mut Option<Process>, is_stopped: &mut bool, is_frozen: bool) {
    if let Some(process) = process
        && process.try_ended().is_none()
        && *is_stopped != is_frozen
    {
        process.signal(if is_frozen {
            Signal::STOP
        } else {
            Signal::CONT
        });
    }
    *is_stopped = is_frozen;
}

/// Whether `send --file` continues after a kill under the ids that it used before.
pub async fn send_resumes() -> bool {
    Cli::new("send")
        .arg("--help")
        .run()
        .await
        .stdout
        .contains("--again")
}
