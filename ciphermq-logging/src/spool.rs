//! A bounded buffer of lines and the thread that writes them out.
//!
//! Why a thread: a write into a file is usually a copy into memory, but waits when the disk is busy
//! with the database's syncs, and would then block a worker of the runtime and every connection on
//! it. Why one buffer of bytes and not a channel of lines: a line costs a copy and no allocation,
//! and the thread writes all that has gathered with one call.

#![allow(clippy::disallowed_methods, reason = "the one way to standard error")]

use std::{
    io::{self, IsTerminal as _, Write as _},
    mem,
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

/// The pause after a failure of the output.
const RETRY: Duration = Duration::from_secs(1);
/// How long lines gather after a write. Under load a write then carries hundreds of lines, and the
/// thread is woken hundreds of times a second rather than for every few lines.
const GATHER: Duration = Duration::from_millis(2);

/// A destination of lines.
pub(super) trait Output: Send + 'static {
    /// Opens it before the first line comes, to detect failures early.
    fn open(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Writes whole lines, all logged in the same hour, at `time` since the Unix epoch.
    fn write(&mut self, time: Duration, lines: &[u8]) -> Result<(), Failure>;

    /// Writes a line that says that `count` lines are missing here.
    fn write_lost(&mut self, count: u64) -> io::Result<()>;

    /// Returns, once, a problem that a person should know about although lines are being written.
    fn complaint(&mut self) -> Option<String> {
        None
    }

    /// Returns the output's name in complaints.
    fn name(&self) -> String;
}

/// The error of an output that took only a part of the lines.
#[derive(Debug)]
pub(super) struct Failure {
    /// The number of bytes that were written: whole lines.
    pub(super) written: usize,
    pub(super) source: io::Error,
}

/// What happens to a line when the buffer is full.
#[derive(Debug, Clone, Copy)]
pub(super) enum WhenFull {
    /// It is dropped, and counted as lost.
    Drop,
    /// It waits for this time, then it is dropped and counted as lost.
    Wait(Duration),
}

/// The sending end of a spool. It is cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Spool(Arc<SpoolState>);

#[derive(Debug)]
struct SpoolState {
    /// The output's name in complaints.
    name: String,
    capacity: usize,
    /// A panic does not poison it: the state is sound after every statement.
    state: Mutex<State>,
    /// Notified when there is something to do for the thread.
    work: Condvar,
    /// Notified when the thread has done something.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: PendingLines,
    /// The number of dropped lines that the output does not show yet.
    lost: u64,
    /// Whether the thread waits for work.
    idle: bool,
    /// Whether the thread holds lines that are not written yet.
    writing: bool,
    /// Whether the output failed last time: waiting for it would be in vain.
    failing: bool,
    /// Whether a line waited in vain for the thread, which has not moved since.
    stalled: bool,
    closing: bool,
    closed: bool,
    /// Whether the output is to be reopened.
    reopen: bool,
}

/// Lines, and the hours in which they were logged.
#[derive(Debug, Default)]
struct PendingLines {
    bytes: Vec<u8>,
    hours: Vec<Hour>,
}

/// An hour: the lines up to `end` belong to the one that `time` is in.
#[derive(Debug, Clone, Copy)]
struct Hour {
    time: Duration,
    end: usize,
}

impl PendingLines {
    fn push(&mut self, time: Duration, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        let end = self.bytes.len();
        match self.hours.last_mut() {
            Some(last) if last.time.as_secs() / 3600 == time.as_secs() / 3600 => last.end = end,
            _ => self.hours.push(Hour { time, end }),
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.hours.clear();
    }

    /// Writes all lines. What was written is removed from here even if the rest fails.
    fn write_to(&mut self, output: &mut dyn Output) -> io::Result<()> {
        let mut start = 0;
        let mut outcome = Ok(());
        for hour in &self.hours {
            // An hour that had been written before a failure ends where the rest begins.
            let lines = self.bytes.get(start..hour.end).unwrap_or_default();
            match output.write(hour.time, lines) {
                Ok(()) => start = hour.end,
                Err(Failure { written, source }) => {
                    start += written;
                    outcome = Err(source);
                    break;
                }
            }
        }
        if outcome.is_ok() {
            self.clear();
        } else {
            self.bytes.drain(..start.min(self.bytes.len()));
            self.hours.retain_mut(|hour| {
                let keep = hour.end > start;
                hour.end = hour.end.saturating_sub(start);
                keep
            });
        }
        outcome
    }
}

impl Spool {
    /// Starts the thread. `capacity` is in bytes.
    pub(super) fn start(output: Box<dyn Output>, capacity: usize) -> io::Result<Self> {
        let shared = Arc::new(SpoolState {
            name: output.name(),
            capacity,
            state: Mutex::default(),
            work: Condvar::new(),
            progress: Condvar::new(),
        });
        let spool = Self(Arc::clone(&shared));
        thread::Builder::new()
            .name(String::from("log"))
            .spawn(move || run(&shared, output))?;
        Ok(spool)
    }

    /// Adds one or more lines, with their line ends, that were logged at `time` since the Unix
    /// epoch.
    pub(super) fn push(&self, time: Duration, line: &[u8], when_full: WhenFull) {
        let shared = &*self.0;
        // A line longer than the buffer is accepted when it is alone in it.
        let full = |state: &State| {
            !state.lines.bytes.is_empty() && state.lines.bytes.len() + line.len() > shared.capacity
        };
        let cannot_drain = |state: &State| state.failing || state.stalled || state.closed;
        let mut state = shared.state.lock();
        if full(&state)
            && let WhenFull::Wait(limit) = when_full
            && !cannot_drain(&state)
        {
            shared.progress.wait_while_for(
                &mut state,
                |state| full(state) && !cannot_drain(state),
                limit,
            );
            // The next lines need not wait to find this out again.
            state.stalled |= full(&state);
        }
        if full(&state) || state.closed {
            state.lost += line
                .iter()
                .map(|&byte| u64::from(byte == b'\n'))
                .sum::<u64>();
            return;
        }
        state.lines.push(time, line);
        if state.idle {
            state.idle = false;
            shared.work.notify_one();
        }
    }

    /// Waits until everything added so far is written, the output fails, or the time is over.
    pub(super) fn flush(&self, limit: Duration) {
        let pending = |state: &mut State| {
            (state.writing || !state.lines.bytes.is_empty()) && !state.failing && !state.closed
        };
        let mut state = self.0.state.lock();
        self.0.progress.wait_while_for(&mut state, pending, limit);
    }

    /// Makes the thread reopen the output.
    pub(super) fn reopen(&self) {
        self.0.state.lock().reopen = true;
        self.0.work.notify_one();
    }

    /// Makes the thread write what there is and end.
    pub(super) fn close(&self) {
        self.0.state.lock().closing = true;
        self.0.work.notify_one();
    }

    /// Waits until the thread has ended, or the time is over. Returns whether it has ended.
    pub(super) fn wait_closed(&self, limit: Duration) -> bool {
        let mut state = self.0.state.lock();
        self.0
            .progress
            .wait_while_for(&mut state, |state| !state.closed, limit);
        state.closed
    }

    /// Reports that the output took too long to take the last lines, such as a pipe whose reader
    /// does not read.
    pub(super) fn report_unwritten(&self, limit: Duration) {
        report(&format!(
            "the last lines for {} could not be written within {} s",
            self.0.name,
            limit.as_secs()
        ));
    }
}

fn run(shared: &SpoolState, mut output: Box<dyn Output>) {
    let mut lines = PendingLines::default();
    let mut failing = false;
    if let Err(error) = output.open() {
        failing = true;
        report(&format!(
            "cannot open {}: {error}; the server goes on and tries again",
            output.name()
        ));
        shared.state.lock().failing = true;
    }
    loop {
        let mut state = shared.state.lock();
        if failing {
            shared
                .work
                .wait_while_for(&mut state, |state| !state.closing && !state.reopen, RETRY);
        }
        while state.lines.bytes.is_empty()
            && lines.bytes.is_empty()
            && state.lost == 0
            && !state.closing
            && !state.reopen
            && !failing
        {
            state.idle = true;
            shared.work.wait(&mut state);
        }
        state.idle = false;
        // The rest of a failed write goes first, and stays apart so that the buffer's bound holds.
        if lines.bytes.is_empty() {
            mem::swap(&mut lines, &mut state.lines);
            state.stalled = false;
        }
        state.writing = !lines.bytes.is_empty();
        let lost = state.lost;
        let closing = state.closing;
        let reopen = mem::take(&mut state.reopen) || (lines.bytes.is_empty() && failing);
        drop(state);
        shared.progress.notify_all();

        let opened = if reopen { output.open() } else { Ok(()) };
        let outcome = opened.and_then(|()| lines.write_to(&mut *output));
        let outcome = outcome.and_then(|()| {
            if lost > 0 {
                output.write_lost(lost)
            } else {
                Ok(())
            }
        });
        if let Some(complaint) = output.complaint() {
            report(&complaint);
        }

        let mut state = shared.state.lock();
        state.writing = !lines.bytes.is_empty();
        if outcome.is_ok() {
            state.lost -= lost;
        }
        match &outcome {
            Ok(()) if failing => report(&format!("{} is written again", output.name())),
            Err(error) if !failing => report(&format!(
                "cannot write {}: {error}; the server goes on and tries again every second, and \
                 lines that find \
                 no more room in memory are lost",
                output.name()
            )),
            _ => {}
        }
        failing = outcome.is_err();
        state.failing = failing;
        let finished =
            closing && (failing || (lines.bytes.is_empty() && state.lines.bytes.is_empty()));
        if finished {
            let missing = state.lost;
            state.closed = true;
            drop(state);
            shared.progress.notify_all();
            if failing {
                let earlier = match missing {
                    0 => String::new(),
                    missing => format!(", nor could {missing} before them"),
                };
                report(&format!(
                    "the last lines for {} could not be written{earlier}",
                    output.name()
                ));
            }
            return;
        }
        drop(state);
        shared.progress.notify_all();
        shared.work.wait_while_for(
            &mut shared.state.lock(),
            |state| !state.closing && !state.reopen,
            GATHER,
        );
    }
}

/// Reports a problem of the logs in the one place that is left.
fn report(text: &str) {
    let _ = writeln!(io::stderr().lock(), "logging: {text}");
}

/// The console.
pub(super) struct Stderr;

impl Stderr {
    /// Whether the console shows colours. See <https://no-color.org>.
    pub(super) fn colour() -> bool {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        io::stderr().is_terminal() && !unwanted
    }
}

impl Output for Stderr {
    fn write(&mut self, _time: Duration, lines: &[u8]) -> Result<(), Failure> {
        // A console that was closed is not a failure: the files have every line.
        let _ = io::stderr().lock().write_all(lines);
        Ok(())
    }

    fn write_lost(&mut self, count: u64) -> io::Result<()> {
        let _ = writeln!(
            io::stderr().lock(),
            "... {count} lines did not fit here; see the log files"
        );
        Ok(())
    }

    fn name(&self) -> String {
        String::from("the console")
    }
}

#[cfg(test)]
mod tests;
