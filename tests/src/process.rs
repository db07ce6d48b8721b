//! A running program: its output, signals and exit status.
//!
//! Output is read by threads rather than tasks, so that it is complete even when a test panics or
//! its runtime is busy.

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::PATIENCE;

/// Number of the last lines of stderr that a failed test prints.
const SHOWN_LINES: usize = 100;

/// A started program whose output is captured. Dropping it kills the program, waits for its end,
/// and, if the test panics, prints the end of its stderr.
pub struct Process {
    name: String,
    child: Child,
    /// Output to stdout.
    pub stdout: Output,
    /// Output to stderr.
    pub stderr: Output,
}

impl Process {
    /// Starts `command` with empty standard input.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn spawn(name: &str, mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}: {command:?}"));
        let stdout = child
            .stdout
            .take()
            .and_then(|pipe| pipe.into_owned_fd().ok())
            .expect("stdout is a pipe");
        let stderr = child
            .stderr
            .take()
            .and_then(|pipe| pipe.into_owned_fd().ok())
            .expect("stderr is a pipe");
        // tokio's pipes are non-blocking; those that a thread reads must block.
        let [stdout, stderr] = [stdout, stderr].map(|pipe| {
            rustix::io::ioctl_fionbio(&pipe, false).expect("a pipe can be made to block");
            Output::read(std::fs::File::from(pipe))
        });
        Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        }
    }

    /// The process id, or `None` once the process has been waited for.
    pub fn pid(&self) -> Option<Pid> {
        self.child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
    }

    /// Sends `signal` to the process.
    ///
    /// # Panics
    ///
    /// If the process has ended already.
    pub fn signal(&self, signal: Signal) {
        let pid = self
            .pid()
            .unwrap_or_else(|| panic!("{} has already ended: cannot send {signal:?}", self.name));
        rustix::process::kill_process(pid, signal)
            .unwrap_or_else(|error| panic!("{}: {signal:?}: {error}", self.name));
    }

    /// Sends SIGKILL, and waits for the process to end.
    pub async fn kill(&mut self) -> ExitStatus {
        if self.pid().is_some() {
            self.signal(Signal::KILL);
        }
        self.ended(PATIENCE).await
    }

    /// Waits for the process to end, after which its output is complete.
    ///
    /// # Panics
    ///
    /// If it still runs after `limit`.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let status = tokio::time::timeout(limit, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("{} still runs after {limit:?}", self.name))
            .unwrap_or_else(|error| panic!("{} cannot be waited for: {error}", self.name));
        for output in [&self.stdout, &self.stderr] {
            output.complete().await;
        }
        status
    }

    /// Waits for the process to end, without a runtime. Kills it after `limit`.
    pub(crate) fn ended_blocking(mut self, limit: Duration) {
        self.wait_blocking(limit);
    }

    fn wait_blocking(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The exit status, or `None` while the process runs.
    pub fn try_ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .unwrap_or_else(|error| panic!("{} cannot be waited for: {error}", self.name))
    }

    /// Resident memory, in bytes (`VmRSS`, see proc_pid_status(5)).
    pub fn rss_bytes(&self) -> u64 {
        self.proc_status("VmRSS:")
    }

    /// Peak resident memory, in bytes (`VmHWM`, see proc_pid_status(5)).
    pub fn peak_rss_bytes(&self) -> u64 {
        self.proc_status("VmHWM:")
    }

    /// The user that the process runs as.
    pub fn uid(&self) -> u32 {
        u32::try_from(self.proc_field("Uid:")).expect("a user id has 32 bits")
    }

    fn proc_status(&self, field: &str) -> u64 {
        self.proc_field(field) * 1024
    }

    fn proc_field(&self, field: &str) -> u64 {
        let pid = self
            .pid()
            .unwrap_or_else(|| panic!("{} has ended", self.name));
        let path = PathBuf::from(format!("/proc/{}/status", pid.as_raw_nonzero()));
        let status = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix(field)?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap_or_else(|| panic!("{} has no {field}", path.display()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Waits, because the folders that the process works in are removed next.
        if self.child.start_kill().is_ok() {
            self.wait_blocking(Duration::from_secs(5));
        }
        if std::thread::panicking() {
            // Thousands of lines of a server's log would hide the message of the test.
            let lines = self.stderr.lines();
            let skipped = lines.len().saturating_sub(SHOWN_LINES);
            let end: String = lines
                .iter()
                .skip(skipped)
                .flat_map(|line| [line.as_str(), "\n"])
                .collect();
            eprintln!(
                "---- {} wrote to stderr ({skipped} earlier lines left out):\n{end}----",
                self.name
            );
        }
    }
}

/// Lines that a process has written so far to one of its outputs.
#[derive(Clone)]
pub struct Output {
    lines: Arc<Mutex<Vec<String>>>,
    /// Number of lines so far, and whether the output has ended.
    progress: watch::Receiver<(usize, bool)>,
}

impl Output {
    fn read(source: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sender, progress) = watch::channel((0, false));
        let written = Arc::clone(&lines);
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut bytes = Vec::new();
            while matches!(source.read_until(b'\n', &mut bytes), Ok(1..)) {
                if bytes.ends_with(b"\n") {
                    bytes.pop();
                }
                let line = String::from_utf8_lossy(&bytes).into_owned();
                bytes.clear();
                let mut lines = written.lock();
                lines.push(line);
                sender.send_replace((lines.len(), false));
            }
            sender.send_modify(|progress| progress.1 = true);
        });
        Self { lines, progress }
    }

    /// The lines so far, without their endings.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// The output so far, as one string.
    pub fn text(&self) -> String {
        self.lines()
            .iter()
            .flat_map(|line| [line.as_str(), "\n"])
            .collect()
    }

    /// The number of lines so far, from which [`find`](Self::find) can start later.
    pub fn mark(&self) -> usize {
        self.progress.borrow().0
    }

    /// Waits for the first line, starting with the line `mark`, for which `pick` returns a value.
    /// Returns `None` if the output ends or `limit` passes first.
    pub async fn find<T>(
        &self,
        mark: usize,
        limit: Duration,
        pick: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let mut progress = self.progress.clone();
        let search = async {
            let mut next = mark;
            loop {
                let (count, end) = *progress.borrow_and_update();
                {
                    let lines = self.lines.lock();
                    if let Some(found) = lines
                        .iter()
                        .take(count)
                        .skip(next)
                        .find_map(|line| pick(line))
                    {
                        return Some(found);
                    }
                }
                next = next.max(count);
                if end || progress.changed().await.is_err() {
                    return None;
                }
            }
        };
        tokio::time::timeout(limit, search).await.ok().flatten()
    }

    /// Waits for a line that contains `text`, and returns it.
    ///
    /// # Panics
    ///
    /// If there is none when the output ends, or after [`PATIENCE`].
    pub async fn expect(&self, text: &str) -> String {
        self.find(0, PATIENCE, |line| {
            line.contains(text).then(|| line.to_owned())
        })
        .await
        .unwrap_or_else(|| panic!("no line with {text:?} in:\n{}", self.text()))
    }

    /// Whether the process has closed this output, for example by ending.
    pub fn is_complete(&self) -> bool {
        self.progress.borrow().1
    }

    /// Waits for the output to end, with a limit: a grandchild may hold it open after the process
    /// has ended.
    async fn complete(&self) {
        let mut progress = self.progress.clone();
        let _ = tokio::time::timeout(
            Duration::from_secs(2),
            progress.wait_for(|progress| progress.1),
        )
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("sh", command)
    }

    #[tokio::test]
    async fn output_is_captured_by_stream_with_its_torn_last_line() {
        let mut process = shell("echo one; echo two >&2; printf three; exit 7");
        assert_eq!(process.ended(PATIENCE).await.code(), Some(7));
        assert_eq!(process.stdout.lines(), ["one", "three"]);
        assert_eq!(process.stderr.lines(), ["two"]);
    }

    #[tokio::test]
    async fn a_search_ends_with_the_line_or_with_the_output() {
        let mut process = shell("echo getting there; echo ready at 17; exec sleep 60");
        let found = process
            .stdout
            .find(0, PATIENCE, |line| {
                line.strip_prefix("ready at ").map(str::to_owned)
            })
            .await;
        assert_eq!(found.as_deref(), Some("17"));
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&process.kill().await),
            Some(9)
        );

        let silent = shell("echo nothing of interest");
        assert_eq!(
            silent
                .stdout
                .find(0, PATIENCE, |line| line.contains("ready").then_some(()))
                .await,
            None
        );
    }

    #[tokio::test]
    async fn signals_reach_the_process() {
        let mut process = shell("trap 'exit 3' TERM; echo trapped; while :; do sleep 0.01; done");
        process.stdout.expect("trapped").await;
        process.signal(Signal::TERM);
        assert_eq!(process.ended(PATIENCE).await.code(), Some(3));
        assert!(process.pid().is_none());
    }

    #[tokio::test]
    async fn dropping_a_process_ends_it() {
        let process = shell("echo here; exec sleep 60");
        process.stdout.expect("here").await;
        let folder = PathBuf::from(format!("/proc/{}", process.pid().unwrap().as_raw_nonzero()));
        assert!(folder.exists());
        drop(process);
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn memory_and_user_are_those_of_the_process() {
        let process = shell("echo here; kill -STOP $$");
        process.stdout.expect("here").await;
        let rss = process.rss_bytes();
        assert!((64 * 1024..64 * 1024 * 1024).contains(&rss), "{rss}");
        assert!(process.peak_rss_bytes() >= rss);
        assert_eq!(process.uid(), rustix::process::getuid().as_raw());
    }
}
