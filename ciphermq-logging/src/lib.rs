//! Logs: JSON lines in three files, each with its own levels, and readable lines on the console.
//!
//! ```text
//!  event ──> layer ──> line ──┬──> spool ──> rotation ──> server_info.log    INFO
//!            (which    (text) ├──> spool ──> rotation ──> server_debug.log   DEBUG, TRACE
//!            outputs)         ├──> spool ──> rotation ──> server_error.log   ERROR, WARN
//!                             └──> spool ──> standard error                  all
//!  commit ──> messages ────────────> spool ──> ...          server_info.log
//! ```
//!
//! - `level`: which events are logged, which may change
//! - `layer`: receives events from `tracing` and routes their lines
//! - `line`: formats the text, JSON and readable, with everything escaped that could break a line
//!   or a terminal
//! - `messages`: the lines about messages, those of a commit and a route together
//! - `spool`: a bounded buffer and a thread behind it, so that a slow disk does not block the
//!   broker
//! - `rotation`: the file, and the start of a new one; `retention`: the end of old ones; `room`:
//!   the disk space that is not the log's
//!
//! A JSON line is `{"timestamp":"2025-09-08T07:03:00.123Z","level":"INFO","message":"..."}` with
//! the event's fields, and those of the spans around it, after the message. Lines of other levels
//! than INFO also have `target`, the module that wrote them.
//!
//! # Loss of lines
//!
//! Lines reach the operating system within moments of being logged, and all of them before the
//! [`Guard`] is dropped; a panic is itself logged, and flushed. Only SIGKILL or an abort can lose
//! the last few milliseconds. When the disk is slower than the log, DEBUG and TRACE lines are
//! dropped; the others wait a little before they are. When a log file cannot be written at all, the
//! server goes on: the console reports it, the file is retried every second, and once it works it
//! gets what is still buffered and a line with the number of lines that were lost.

use std::{io, panic, sync::Arc, time::Duration};

use tracing::{Subscriber, subscriber::SetGlobalDefaultError};
use tracing_subscriber::{Registry, layer::SubscriberExt as _};

use self::{
    layer::LogLayer,
    level::CurrentLevel,
    line::Clock,
    rotation::RotatingFile,
    spool::{Output, Spool},
};
pub use messages::{MessageLines, MessageLog};
use retention::Retention;
pub use settings::{Reserve, Rotation, Settings};

mod layer;
mod level;
mod line;
mod messages;
mod retention;
mod room;
mod rotated_name;
mod rotation;
mod settings;
mod spool;

#[cfg(test)]
mod tests;

/// The most bytes of lines that may wait for a log file.
const FILE_BUFFER: usize = 4 << 20;
/// The most bytes of lines that may wait for the console.
const CONSOLE_BUFFER: usize = 1 << 20;
/// How long the end of the server, or a panic, waits for the logs.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The reason why logging did not start. A log file that cannot be opened is not one: see the
/// module's documentation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Logging was started before in this process.
    #[error("logging has been started already\nStart it once, in main.")]
    Started(#[from] SetGlobalDefaultError),

    /// A thread that writes logs could not be started.
    #[error(
        "cannot start a thread that writes the logs: {0}\nAllow the server's user more processes \
         or more memory."
    )]
    Thread(#[from] io::Error),
}

/// A guard that keeps the logs going.
///
/// When it is dropped, every line logged before has been written, or two seconds have passed; lines
/// logged later are lost. Hold it until the very end of `main`.
#[must_use = "dropping the guard ends the logs"]
pub struct Guard {
    spools: Arc<[Spool]>,
    messages: MessageLog,
    level: CurrentLevel,
}

impl Guard {
    /// Returns a handle for the running server.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            spools: Arc::clone(&self.spools),
            messages: self.messages.clone(),
            level: self.level.clone(),
        }
    }

    /// Writes everything logged so far to the console, and nothing after it: the program itself
    /// reports there what follows.
    pub fn end_console(&self) {
        if let Some(console) = self.spools.last() {
            console.close();
            console.wait_closed(FLUSH_TIMEOUT);
        }
    }

    /// Waits until every line logged so far is written, at most two seconds.
    pub fn flush(&self) {
        flush(&self.spools);
    }
}

/// The running server's handle of the logs. After the [`Guard`] is dropped it does nothing.
#[derive(Clone)]
pub struct Handle {
    spools: Arc<[Spool]>,
    messages: MessageLog,
    level: CurrentLevel,
}

impl Handle {
    /// Returns the handle for lines about single messages.
    #[must_use]
    pub fn messages(&self) -> MessageLog {
        self.messages.clone()
    }

    /// Logs from now on up to another level.
    pub fn set_level(&self, level: tracing::Level) {
        self.level.set(level);
        self.messages.set_level(level);
    }

    /// Reopens the log files by their names: a tool has moved them away, and needs to be sure that
    /// nothing more is written into the old ones. No line is lost.
    pub fn reopen(&self) {
        for spool in self.spools.iter() {
            spool.reopen();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // All are closed first, so that they end in parallel.
        for spool in self.spools.iter() {
            spool.close();
        }
        let closed: Vec<bool> = self
            .spools
            .iter()
            .map(|spool| spool.wait_closed(FLUSH_TIMEOUT))
            .collect();
        // A console that takes nothing would hold up the report as well.
        if closed.last() == Some(&true) {
            let spools = self.spools.iter().zip(&closed);
            for (spool, _) in spools.filter(|(_, closed)| !**closed) {
                spool.report_unwritten(FLUSH_TIMEOUT);
            }
        }
    }
}

fn flush(spools: &[Spool]) {
    for spool in spools {
        spool.flush(FLUSH_TIMEOUT);
    }
}

/// Starts logging for the whole process, panics included. Warnings of the target `at_every_level`
/// are written at every level.
///
/// # Errors
///
/// [`Error`] if logging has been started already, or a thread cannot be started. Failures of the
/// files themselves are reported on the console and retried.
pub fn init(
    settings: &Settings,
    reserve: Option<Reserve>,
    at_every_level: &'static str,
) -> Result<Guard, Error> {
    let console = Console {
        output: Box::new(spool::Stderr),
        colour: spool::Stderr::colour(),
    };
    let (subscriber, guard) = start(
        settings,
        reserve,
        at_every_level,
        console,
        line::system_clock(),
    )?;
    tracing::subscriber::set_global_default(subscriber)?;

    let spools = Arc::clone(&guard.spools);
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let payload = info.payload_as_str().unwrap_or("a value that is no text");
        tracing::error!(
            location,
            thread = thread.name().unwrap_or_default(),
            "Panicked: {payload}"
        );
        flush(&spools);
        previous(info);
    }));
    Ok(guard)
}

/// The output of readable lines.
struct Console {
    output: Box<dyn Output>,
    colour: bool,
}

/// Starts logging without the parts that exist once a process, so that tests can start it
/// repeatedly.
fn start(
    settings: &Settings,
    reserve: Option<Reserve>,
    at_every_level: &'static str,
    console: Console,
    clock: Clock,
) -> Result<(impl Subscriber + use<>, Guard), Error> {
    let retention = Retention {
        max_total: settings.max_total_bytes,
        max_files: settings.max_files,
    };
    let file = |path: &std::path::Path, level| {
        let file = RotatingFile::new(
            path.to_owned(),
            settings.rotation,
            settings.max_size_bytes,
            level,
            clock.clone(),
        );
        let file = file.retaining(retention).leaving(reserve.clone());
        Spool::start(Box::new(file), FILE_BUFFER)
    };
    let info = file(&settings.info_file_path, "INFO")?;
    let debug = file(&settings.debug_file_path, "DEBUG")?;
    let error = file(&settings.error_file_path, "ERROR")?;
    let readable = Spool::start(console.output, CONSOLE_BUFFER)?;
    // The console is the last one.
    let spools = Arc::from([info.clone(), debug.clone(), error.clone(), readable.clone()]);
    let messages = if settings.messages {
        MessageLog::at(settings.level, info.clone(), clock.clone())
    } else {
        MessageLog::off()
    };
    let lines = LogLayer {
        info,
        debug,
        error,
        console: readable,
        colour: console.colour,
        clock,
    };

    let (filter, level) = level::filter(settings.level, at_every_level);
    let subscriber = Registry::default().with(filter).with(lines);
    let guard = Guard {
        spools,
        messages,
        level,
    };
    Ok((subscriber, guard))
}
