//! The only path to standard error, and the progress bar below it.
//!
//! All text for people is [escaped](ciphermq_client::text) here, so that foreign text cannot
//! control their terminal. Errors of writing are ignored: a standard error that is closed, full or
//! gone must not end the work. One that nobody reads holds it up, until a signal asks the program
//! to end.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use ciphermq_client::text::{self, Escaped};
use indicatif::{ProgressBar, ProgressDrawTarget};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{FormatFields, Writer, debug_fn};

use crate::output::write::write_some;

/// The bar that is shown. There is one terminal, so there is one bar, and every writer must hide it
/// while it writes.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// The size of a write that a writable pipe accepts without blocking (`PIPE_BUF` on Linux).
const CHUNK_BYTES: usize = 4096;

/// The interval at which a signal is noticed while nobody reads.
const ENDING_CHECK: Duration = Duration::from_millis(100);

/// The time that the reader has after a signal, for everything that is still to be written.
const GRACE: Duration = Duration::from_secs(1);

/// Whether a signal has asked the program to end.
static IS_ENDING: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The time at which that was noticed while nobody read.
static ENDING_SINCE: OnceLock<Instant> = OnceLock::new();

/// Writes the lines of `text`, with control characters escaped.
pub(crate) fn lines(text: impl fmt::Display) {
    write(text::lines(text).as_bytes());
}

/// Writes `text` on one line, with control characters escaped.
pub(crate) fn line(text: impl fmt::Display) {
    write(format!("{}\n", Escaped(text)).as_bytes());
}

#[expect(clippy::disallowed_methods, reason = "the only path to standard error")]
fn write(lines: &[u8]) {
    while_hidden(|| {
        let mut stderr = io::stderr().lock();
        let mut rest = lines;
        while !rest.is_empty() && wait_for_reader(&stderr) {
            let chunk = rest.get(..CHUNK_BYTES).unwrap_or(rest);
            match write_some(&mut stderr, chunk) {
                Ok(written) => rest = rest.get(written.unwrap_or(0)..).unwrap_or_default(),
                Err(_) => return,
            }
        }
    });
}

/// Returns the flag for a signal's handler to set: the program is to end.
pub(crate) fn ending_flag() -> Arc<AtomicBool> {
    IS_ENDING.clone()
}

/// Waits until standard error is writable. Returns `false` if the program is to end meanwhile, and
/// nobody reads for the rest of the grace period.
fn wait_for_reader(stderr: &io::StderrLock<'_>) -> bool {
    loop {
        let patience = match IS_ENDING.load(Ordering::Relaxed) {
            false => ENDING_CHECK,
            true => {
                let since = *ENDING_SINCE.get_or_init(Instant::now);
                GRACE.saturating_sub(since.elapsed()).min(ENDING_CHECK)
            }
        };
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: patience.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(stderr, PollFlags::OUT)], Some(&timeout)) {
            Ok(0) if patience.is_zero() => return false,
            Ok(0) | Err(Errno::INTR) => {}
            // Any other error is that of the write.
            Ok(_) | Err(_) => return true,
        }
    }
}

/// Whether standard error is a terminal.
#[expect(clippy::disallowed_methods, reason = "writes nothing")]
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether colours are supported and wanted. See <https://no-color.org>.
pub(crate) fn has_colours() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Shows a bar below everything that is written from now on.
pub(crate) fn show_bar(bar: ProgressBar) {
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    *BAR.lock() = Some(bar);
}

/// The bar that is shown, or a hidden one.
pub(crate) fn bar() -> ProgressBar {
    shown().unwrap_or_else(ProgressBar::hidden)
}

/// Removes the bar.
pub(crate) fn clear_bar() {
    // The lock is released before the bar is drawn for the last time.
    let bar = BAR.lock().take();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// Runs `f`, which may write to the terminal, while the bar is hidden.
pub(crate) fn while_hidden<T>(f: impl FnOnce() -> T) -> T {
    match shown() {
        Some(bar) => bar.suspend(f),
        None => f(),
    }
}

fn shown() -> Option<ProgressBar> {
    BAR.lock().clone()
}

/// The log's writer, which gets one event per write. The fields are escaped by [`fields`] before;
/// the rest is not foreign text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log;

impl io::Write for Log {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        write(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// The formatter of the log's fields, which escapes their values.
pub(crate) fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(
        |writer: &mut Writer<'_>, field: &tracing::field::Field, value: &dyn fmt::Debug| {
            let value = Escaped(format_args!("{value:?}"));
            match field.name() {
                "message" => write!(writer, "{value}"),
                name => write!(writer, "{name}={value}"),
            }
        },
    )
    .delimited(" ")
}
