//! The only path to standard error, and the progress bar below it.
//!
//! All text for people is [escaped](ciphermq_client::text) here, so that foreign text cannot
//! control their terminal. Errors of writing are ignored: a standard error that is closed, full or
//! gone must not end the work.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use ciphermq_client::text::Escaped;
use indicatif::{ProgressBar, ProgressDrawTarget};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{FormatFields, Writer, debug_fn};

/// The bar that is shown. There is one terminal, so there is one bar, and every writer must hide it
/// while it writes.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes the lines of `text`, with control characters escaped.
pub(crate) fn lines(text: impl fmt::Display) {
    let mut lines = String::new();
    for line in text.to_string().trim_end_matches('\n').split('\n') {
        lines.push_str(&Escaped(line).to_string());
        lines.push('\n');
    }
    write(lines.as_bytes());
}

/// Writes `text` on one line, with control characters escaped.
pub(crate) fn line(text: impl fmt::Display) {
    write(format!("{}\n", Escaped(text)).as_bytes());
}

#[expect(clippy::disallowed_methods, reason = "the only path to standard error")]
fn write(lines: &[u8]) {
    while_hidden(|| {
        let _ = io::stderr().lock().write_all(lines);
    });
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
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
}

/// The bar that is shown, or a hidden one.
pub(crate) fn bar() -> ProgressBar {
    shown().unwrap_or_else(ProgressBar::hidden)
}

/// Removes the bar.
pub(crate) fn clear_bar() {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).take();
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
    BAR.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
