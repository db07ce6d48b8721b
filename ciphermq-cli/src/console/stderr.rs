//! Standard error: the one way to it, and the progress bar at its end.
//!
//! Whoever writes for people comes through here, and nothing that others chose steers their
//! terminal: it is [escaped](ciphermq_client::text). A standard error that is closed, full or gone
//! ends nothing: the work is what counts.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use ciphermq_client::text::Escaped;
use indicatif::{ProgressBar, ProgressDrawTarget};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{FormatFields, Writer, debug_fn};

/// The bar that is shown. There is one terminal, so there is one bar: whoever writes finds it,
/// whenever it was made.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes lines: those that `text` has, each with what steers terminals escaped.
pub(crate) fn lines(text: impl fmt::Display) {
    let mut lines = String::new();
    for line in text.to_string().trim_end_matches('\n').split('\n') {
        lines.push_str(&Escaped(line).to_string());
        lines.push('\n');
    }
    write(lines.as_bytes());
}

/// Writes one line, whatever stands in it.
pub(crate) fn line(text: impl fmt::Display) {
    write(format!("{}\n", Escaped(text)).as_bytes());
}

#[expect(clippy::disallowed_methods, reason = "the one way to standard error")]
fn write(lines: &[u8]) {
    while_hidden(|| {
        let _ = io::stderr().lock().write_all(lines);
    });
}

/// Whether somebody looks at it.
#[expect(clippy::disallowed_methods, reason = "only asked what it is")]
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether colours would be seen as such, and are wanted. See <https://no-color.org>.
pub(crate) fn has_colours() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Shows a bar below all that is written from now on.
pub(crate) fn show_bar(bar: ProgressBar) {
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
}

/// The bar that is shown; else a hidden one, which nobody sees moving.
pub(crate) fn bar() -> ProgressBar {
    shown().unwrap_or_else(ProgressBar::hidden)
}

/// Takes the bar away.
pub(crate) fn clear_bar() {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// Does something, writing to the terminal for example, with the bar out of the way.
pub(crate) fn while_hidden<T>(f: impl FnOnce() -> T) -> T {
    match shown() {
        Some(bar) => bar.suspend(f),
        None => f(),
    }
}

fn shown() -> Option<ProgressBar> {
    BAR.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Where the log goes, an event at a time. Its fields are escaped before, by [`fields`]; the rest
/// is ours.
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

/// How the log shows fields: escaped.
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
