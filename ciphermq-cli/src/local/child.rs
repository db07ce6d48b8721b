//! A child process that ends with this one, and whose output is watched.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStderr, Command};
use tokio::sync::watch;

use crate::exit::Failure;

/// The number of last lines of a failed program's output that are shown.
const TAIL: usize = 8;

/// A started program, killed when dropped.
pub(crate) struct Child {
    name: &'static str,
    child: tokio::process::Child,
    /// The program's lines on stderr; `None` if it shares this program's stderr.
    lines: Option<watch::Receiver<ChildOutput>>,
    log: PathBuf,
}

#[derive(Debug, Default)]
struct ChildOutput {
    all: Vec<String>,
    is_complete: bool,
}

impl Child {
    /// Starts a program in `folder`, with a log file of its stderr there.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be started.
    pub(crate) fn start(
        name: &'static str,
        command: Command,
        folder: &Path,
    ) -> Result<Self, Failure> {
        Self::spawn(name, command, folder, Stdio::piped())
    }

    /// Starts a program in `folder` that shares this program's stderr.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be started.
    pub(crate) fn start_sharing_stderr(
        name: &'static str,
        command: Command,
        folder: &Path,
    ) -> Result<Self, Failure> {
        Self::spawn(name, command, folder, Stdio::inherit())
    }

    fn spawn(
        name: &'static str,
        mut command: Command,
        folder: &Path,
        stderr: Stdio,
    ) -> Result<Self, Failure> {
        // The user's settings are for other servers.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("CIPHERMQ_") {
                command.env_remove(variable);
            }
        }
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| {
            Failure::new(
                format!("{name} cannot be started: {error}."),
                "Rebuild all programs: scripts/demo does.",
            )
        })?;
        let log = folder.join(format!("{}.log", name.replace(' ', "-")));
        let lines = child
            .stderr
            .take()
            .map(|stderr| watch_lines(stderr, log.clone()));
        Ok(Self {
            name,
            child,
            lines,
            log,
        })
    }

    /// Waits for a line that contains `text`, and returns the rest of the line after it.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the program ends before, or if the time limit is exceeded.
    pub(crate) async fn wait_for_line(
        &mut self,
        text: &str,
        limit: Duration,
    ) -> Result<String, Failure> {
        let Some(mut lines) = self.lines.clone() else {
            return Err(self.failure("is not watched"));
        };
        let after = |lines: &ChildOutput| {
            lines
                .all
                .iter()
                .find_map(|line| line.split_once(text).map(|(_, after)| after.to_owned()))
        };
        let wait = async {
            match lines
                .wait_for(|lines| lines.is_complete || after(lines).is_some())
                .await
            {
                Ok(lines) => after(&lines),
                Err(_) => None,
            }
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(Some(after)) => Ok(after),
            Ok(None) => Err(self.failure("ended before it was ready")),
            Err(_) => Err(self.failure(&format!("was not ready within {} s", limit.as_secs()))),
        }
    }

    /// Returns the process id, unless the program's end was waited for.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the program has ended already.
    pub(crate) fn terminate(&self) -> Result<(), Failure> {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let Some(pid) = pid else {
            return Err(self.failure("had ended already"));
        };
        kill_process(pid, Signal::TERM)
            .map_err(|error| self.failure(&format!("cannot be ended: {error}")))
    }

    /// Waits for the program's end, which must be successful.
    ///
    /// # Errors
    ///
    /// [`Failure`] if its exit code is not 0, or if the time limit is exceeded.
    pub(crate) async fn wait_success(&mut self, limit: Option<Duration>) -> Result<(), Failure> {
        let status = self.wait(limit).await?;
        if status.success() {
            return Ok(());
        }
        Err(self.failure(&format!("failed ({status})")))
    }

    async fn wait(&mut self, limit: Option<Duration>) -> Result<ExitStatus, Failure> {
        let waited = match limit {
            None => self.child.wait().await,
            Some(limit) => match tokio::time::timeout(limit, self.child.wait()).await {
                Ok(waited) => waited,
                Err(_) => {
                    return Err(self.failure(&format!("did not end within {} s", limit.as_secs())));
                }
            },
        };
        if let Some(lines) = &mut self.lines {
            // The last lines say why it ended.
            let _ = tokio::time::timeout(
                Duration::from_secs(2),
                lines.wait_for(|lines| lines.is_complete),
            )
            .await;
        }
        waited.map_err(|error| self.failure(&format!("cannot be waited for: {error}")))
    }

    fn failure(&self, what: &str) -> Failure {
        let Some(lines) = &self.lines else {
            return Failure::new(
                format!("{} {what}.", self.name),
                "Its own messages are above.",
            );
        };
        let lines = lines.borrow();
        let tail = lines
            .all
            .get(lines.all.len().saturating_sub(TAIL)..)
            .unwrap_or_default();
        Failure::new(
            format!("{} {what}.", self.name),
            format!(
                "The last lines of {}:\n{}",
                self.log.display(),
                tail.join("\n")
            ),
        )
    }
}

/// Reads lines as they arrive, keeps them, and writes them to a file.
fn watch_lines(stderr: ChildStderr, log: PathBuf) -> watch::Receiver<ChildOutput> {
    let (sender, receiver) = watch::channel(ChildOutput::default());
    tokio::spawn(async move {
        let mut file = tokio::fs::File::create(&log).await.ok();
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line).await, Ok(1..)) {
            // The file is for troubleshooting only; without it everything still works.
            if let Some(file) = &mut file {
                let _ = file.write_all(&line).await;
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            sender.send_modify(|lines| lines.all.push(text));
        }
        if let Some(file) = &mut file {
            let _ = file.flush().await;
        }
        sender.send_modify(|lines| lines.is_complete = true);
    });
    receiver
}
