//! A user's working folder, with certificates and keys at their default paths, so that most
//! commands need no more options than in the README.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::cli::Outcome;
use crate::process::Process;
use crate::{Cli, Fixture, Pki, RawClient, Received, Server, received};

/// A working folder with `certs/`, for one sender and one receiver.
pub struct Workspace {
    folder: TempDir,
    address: String,
    /// The client whose certificate is at the sender's default path.
    pub sender: String,
    /// The client whose certificate is at the receiver's default path.
    pub receiver: String,
}

impl Workspace {
    /// Creates a workspace with clients that are unique to the test.
    pub fn of(fixture: &Fixture) -> Self {
        Self::named(
            &fixture.server,
            &fixture.id("sender"),
            &fixture.id("receiver"),
        )
    }

    /// Creates a workspace for these clients.
    pub fn named(server: &Server, sender: &str, receiver: &str) -> Self {
        Self::at(server.address(), server.pki(), sender, receiver)
    }

    /// Creates a workspace for these clients, whose programs connect to this address.
    pub fn at(address: SocketAddr, pki: &Pki, sender: &str, receiver: &str) -> Self {
        let workspace = Self {
            folder: tempfile::tempdir().expect("a folder can be made"),
            address: format!("localhost:{}", address.port()),
            sender: sender.to_owned(),
            receiver: receiver.to_owned(),
        };
        for (place, id) in [("sender_1", sender), ("receiver_1", receiver)] {
            let identity = pki.client(id);
            let folder = workspace.path("certs").join(place);
            std::fs::create_dir_all(&folder).expect("a folder can be made");
            copy(&identity.certificate, &folder.join("client.crt"));
            copy(&identity.key, &folder.join("client.key"));
        }
        copy(&pki.ca(), &workspace.path("certs/ca.crt"));
        workspace.new_key_pair();
        workspace
    }

    /// Creates a key pair for the receiver, in place of the existing one.
    pub fn new_key_pair(&self) {
        let out = self.path("certs");
        keygen::keys::run(&keygen::KeysArgs {
            out,
            force: true,
            post_quantum: false,
        })
        .expect("a key pair can be made");
    }

    /// Returns a path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in the folder.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Writes a file that only its owner may read.
    pub fn write_private(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(name, bytes);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .expect("its mode can be set");
        path
    }

    /// Returns the command `ciphermq-cli <subcommand>` in the folder, for this server.
    pub fn cli(&self, subcommand: &str) -> Cli {
        Cli::new(subcommand)
            .current_dir(self.folder.path())
            .env("CIPHERMQ_SERVER", &self.address)
    }

    /// Returns a command that runs a shell line in the folder and in a new terminal; its standard
    /// output is the terminal's.
    pub fn in_a_terminal(&self, line: &str) -> Cli {
        Cli::program("script")
            .args(["-qefc", line, "/dev/null"])
            .current_dir(self.folder.path())
            .env("CIPHERMQ_SERVER", &self.address)
            .env("SHELL", "/bin/sh")
    }

    /// Returns the command `ciphermq-cli send --to <receiver>`.
    pub fn send(&self) -> Cli {
        self.cli("send").args(["--to", &self.receiver])
    }

    /// Sends messages, and expects that all are acknowledged.
    pub async fn send_messages(&self, messages: &[&str]) -> Outcome {
        let flags = messages
            .iter()
            .map(|message| format!("--message={message}"));
        self.send().args(flags).run().await.success()
    }

    /// Starts `receive`, and waits until it has declared and bound its queue.
    pub async fn receiving(&self, arguments: &[&str]) -> Process {
        let receiver = self.cli("receive").args(arguments).spawn();
        receiver.stderr.expect("Receiving from").await;
        receiver
    }

    /// Runs the receiver until it has registered its key, and declared and bound its queue.
    pub async fn register_receiver(&self) {
        self.cli("receive")
            .args(["--idle-exit", "0.05"])
            .run()
            .await
            .success();
        assert!(self.received().is_empty());
    }

    /// Runs `receive --count` to its end.
    pub async fn receive(&self, count: usize) -> Outcome {
        let count = count.to_string();
        self.cli("receive")
            .args(["--count", &count])
            .run()
            .await
            .success()
    }

    /// Reads the messages in the default output.
    pub fn received(&self) -> Vec<Received> {
        received::read(&self.path("data/received_messages.jsonl"))
    }

    /// Reads the texts in the default output, in order.
    pub fn texts(&self) -> Vec<String> {
        self.received().iter().map(Received::text).collect()
    }

    /// Reads the lines of the default output's quarantine; none if it does not exist.
    pub fn quarantine(&self) -> Vec<serde_json::Value> {
        let path = self.path("data/received_messages.jsonl.quarantine.jsonl");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
            })
            .collect()
    }

    /// Expects that nothing waits for the receiver in its default queue.
    pub async fn expect_empty_queue(&self, server: &Server) {
        let mut client = RawClient::connect(server, &self.receiver).await;
        let queue = format!("fetch {}_queue", self.receiver);
        client.ask(&queue, "No messages").await;
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// Splits the error at the end of a program's stderr into its two parts: the cause and the advice.
///
/// # Panics
///
/// If stderr does not end with such an error.
#[track_caller]
pub fn error_parts(outcome: &Outcome) -> (String, String) {
    let error = outcome
        .stderr
        .rsplit_once("error: ")
        .filter(|(before, _)| before.is_empty() || before.ends_with('\n'))
        .unwrap_or_else(|| panic!("no error in:\n{}", outcome.stderr))
        .1;
    let (what, advice) = error
        .split_once("\n       ")
        .unwrap_or_else(|| panic!("the error has no advice:\n{error}"));
    assert!(
        !what.contains('\n') && what.ends_with(['.', '!', '`', ':']),
        "{what:?}"
    );
    assert!(
        advice
            .trim_end()
            .lines()
            .skip(1)
            .all(|line| line.starts_with("       ")),
        "{advice}"
    );
    (what.to_owned(), advice.trim_end().to_owned())
}

/// Expects an error with exit code 1 and nothing on stdout, and returns its two parts.
#[track_caller]
pub fn failed(outcome: Outcome) -> (String, String) {
    let outcome = outcome.code(1);
    assert_eq!(outcome.stdout, "");
    error_parts(&outcome)
}

/// Returns the text of a console line, `[2025-09-08 07:03:00] [SENDER] ...`, without time and
/// speaker.
#[track_caller]
pub fn console_text<'a>(speaker: &str, line: &'a str) -> &'a str {
    let (time, text) = line
        .split_once("] ")
        .unwrap_or_else(|| panic!("{line:?} has no time"));
    let form: String = time
        .chars()
        .map(|char| if char.is_ascii_digit() { '0' } else { char })
        .collect();
    assert_eq!(form, "[0000-00-00 00:00:00", "{line:?}");
    text.strip_prefix(&format!("[{speaker}] "))
        .unwrap_or_else(|| panic!("{line:?} is not of {speaker}"))
}

/// Renders output as a terminal would, and returns its non-empty lines at the end.
pub fn screen(written: &str) -> Vec<String> {
    let (mut lines, mut row, mut column) = (vec![Vec::<char>::new()], 0usize, 0usize);
    let mut chars = written.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                assert_eq!(chars.next(), Some('['));
                let mut number = String::new();
                let command = loop {
                    match chars.next().expect("a whole sequence") {
                        c if c.is_ascii_digit() || matches!(c, ';' | '?') => number.push(c),
                        c => break c,
                    }
                };
                let count = number.parse().unwrap_or(1);
                match command {
                    'A' => row = row.saturating_sub(count),
                    'B' => row += count,
                    'G' => column = count - 1,
                    'K' if number == "2" => lines[row].clear(),
                    'K' => lines[row].truncate(column),
                    'm' | 'l' | 'h' => {}
                    other => panic!("unsupported escape sequence: {number}{other}"),
                }
            }
            c => {
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
        lines.resize(lines.len().max(row + 1), Vec::new());
    }
    let text = |line: Vec<char>| line.into_iter().collect::<String>().trim_end().to_owned();
    lines
        .into_iter()
        .map(text)
        .filter(|line| !line.is_empty())
        .collect()
}
