//! Runs `ciphermq-cli`, the real program.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::binaries::binary;
use crate::process::Process;
use crate::{PATIENCE, Server};

/// Exit code and output of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code, or `None` if a signal ended the program.
    pub code: Option<i32>,
    /// Everything written to stdout.
    pub stdout: String,
    /// Everything written to stderr.
    pub stderr: String,
}

impl Outcome {
    /// Checks that the program succeeded, and returns the outcome.
    ///
    /// # Panics
    ///
    /// If it failed. The message contains its output.
    #[track_caller]
    pub fn success(self) -> Self {
        self.code(0)
    }

    /// Checks that the program ended with the exit code `code`, and returns the outcome.
    ///
    /// # Panics
    ///
    /// If it ended differently. The message contains its output.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

/// Builder for a command line of `ciphermq-cli`, or of another program.
#[derive(Debug, Clone)]
pub struct Cli {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    input: Option<Vec<u8>>,
    limit: Duration,
}

impl Cli {
    /// Creates the command `ciphermq-cli <subcommand>`.
    pub fn new(subcommand: &str) -> Self {
        Self::program(binary("ciphermq-cli")).arg(subcommand)
    }

    /// Creates the command `keygen`, without arguments.
    pub fn keygen() -> Self {
        Self::program(binary("keygen"))
    }

    /// Creates a command for any program, without arguments.
    pub fn program(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: None,
            input: None,
            limit: PATIENCE,
        }
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Appends several arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self
    }

    /// Appends the options that connect to `server` as `client_id`, with a valid certificate.
    #[must_use]
    pub fn connecting(self, server: &Server, client_id: &str) -> Self {
        let identity = server.pki().client(client_id);
        self.arg("--server")
            .arg(format!("localhost:{}", server.address().port()))
            .arg("--ca")
            .arg(server.pki().ca())
            .arg("--cert")
            .arg(identity.certificate)
            .arg("--key")
            .arg(identity.key)
    }

    /// Prepends a wrapper command, such as `strace`, to the program's own command line.
    #[must_use]
    pub fn under(mut self, wrapper: &[String]) -> Self {
        if let Some((program, arguments)) = wrapper.split_first() {
            let own = std::mem::replace(&mut self.program, program.into());
            let arguments = arguments.iter().map(OsString::from);
            self.arguments = arguments
                .chain([own.into()])
                .chain(self.arguments)
                .collect();
        }
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Sets the content of standard input, which is empty by default.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Sets the time limit of [`run`](Self::run), [`PATIENCE`] by default.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs the program to completion.
    ///
    /// # Panics
    ///
    /// If it cannot be started, or exceeds the time limit.
    pub async fn run(self) -> Outcome {
        let limit = self.limit;
        let line = format!("{} {:?}", self.program.display(), self.arguments);
        let input = self.input.clone();
        let mut child = self
            .command()
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{line} cannot be started: {error}"));
        let stdin = child.stdin.take();
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // A program may end without having read all of it.
                let _ = stdin.write_all(&input).await;
            }
        };
        let end = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = tokio::time::timeout(limit, end)
            .await
            .unwrap_or_else(|_| panic!("{line} still runs after {limit:?}"))
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts the program in the background, with empty standard input. Dropping the returned value
    /// kills it.
    ///
    /// # Panics
    ///
    /// If it cannot be started, or if [`input`](Self::input) was set.
    pub fn spawn(self) -> Process {
        assert!(
            self.input.is_none(),
            "a program in the background has no input: use `run`"
        );
        let name = self
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Process::spawn(&name, self.command())
    }

    fn command(self) -> Command {
        let mut command = Command::new(self.program);
        // The environment of the test run may hold settings for other servers.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CIPHERMQ_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.args(self.arguments).envs(self.environment);
        if let Some(folder) = self.folder {
            command.current_dir(folder);
        }
        command
    }
}
