//! Formats log lines: JSON for the files, readable for the console.
//!
//! Formatting is on the broker's hot path, so it builds no trees and, once its buffers have grown,
//! allocates nothing: every value is written once into a scratch buffer and escaped from there into
//! both lines.

use std::{
    cell::{Cell, RefCell},
    fmt::{self, Write as _},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ciphermq_protocol::text::is_unsafe;
use jiff::Timestamp;
use tracing::{
    Level,
    field::{Field, Visit},
};

/// The most bytes of one value in a line. A client can send values as long as a message.
const MAX_VALUE: usize = 8 << 10;

/// A clock that returns the time since the Unix epoch. It is injected, so that tests need not wait
/// for midnight.
pub(super) type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Returns the operating system's clock. Before 1970 it stands at 1970.
pub(super) fn system_clock() -> Clock {
    Arc::new(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    })
}

/// The fields of an event or of a span, in both forms, ready to follow the message.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// `,"name":value,"name":value`
    json: String,
    /// ` name=value name=value`
    readable: String,
    /// The message as it was written: not yet escaped.
    message: String,
    scratch: String,
    names: Vec<&'static str>,
}

impl Fields {
    /// Clears everything but the allocated memory.
    pub(super) fn clear(&mut self) {
        self.json.clear();
        self.readable.clear();
        self.message.clear();
        self.names.clear();
        // One giant value must not cost every thread its memory forever.
        for buffer in [
            &mut self.json,
            &mut self.readable,
            &mut self.message,
            &mut self.scratch,
        ] {
            buffer.shrink_to(4 * MAX_VALUE);
        }
    }

    /// Adds the fields of a span around the event, unless the event has a field of that name.
    pub(super) fn append(&mut self, span: &Self) {
        if !span.names.iter().any(|name| self.names.contains(name)) {
            self.json.push_str(&span.json);
            self.readable.push_str(&span.readable);
            self.names.extend_from_slice(&span.names);
        }
    }

    fn begin(&mut self, name: &'static str) {
        self.names.push(name);
        self.json.push_str(",\"");
        escape_json(&mut self.json, name);
        // JSON objects must not have a name twice, and these are in every line.
        if matches!(name, "timestamp" | "level" | "message" | "target") {
            self.json.push('_');
        }
        self.json.push_str("\":");
        self.readable.push(' ');
        escape_readable(&mut self.readable, name);
        self.readable.push('=');
    }

    /// Writes a value that is the same in both forms and needs no escaping.
    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        if field.name() == "message" {
            return self.text(field, format_args!("{value}"));
        }
        self.begin(field.name());
        // Writing into a String does not fail.
        let _ = write!(self.json, "{value}");
        let _ = write!(self.readable, "{value}");
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message" {
            self.message.clear();
            return write_truncated(&mut self.message, value);
        }
        self.begin(field.name());
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        write_truncated(&mut scratch, value);
        self.json.push('"');
        escape_json(&mut self.json, &scratch);
        self.json.push('"');
        let quoted = scratch.is_empty()
            || scratch.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
        if quoted {
            self.readable.push('"');
        }
        escape_readable(&mut self.readable, &scratch);
        if quoted {
            self.readable.push('"');
        }
        self.scratch = scratch;
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON cannot express infinity.
        if value.is_finite() {
            self.plain(field, value);
        } else {
            self.text(field, format_args!("{value}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, format_args!("{}", Chain(value)));
    }
}

/// An error displayed with its causes.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// The buffers in which one thread formats its lines.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) fields: Fields,
    line: String,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
    /// The last second formatted on this thread, and its text: up to the seconds, without `Z`.
    static SECOND: Cell<(u64, [u8; 19])> = const { Cell::new((u64::MAX, [0; 19])) };
}

/// Lends this thread's buffers, cleared.
///
/// Lends fresh ones if they are in use, because a value that is being formatted logs something
/// itself, or if they are gone, because the thread ends.
pub(super) fn with_buffers(f: impl FnOnce(&mut Buffers)) {
    let mut f = Some(f);
    let _ = BUFFERS.try_with(|buffers| {
        if let Ok(mut buffers) = buffers.try_borrow_mut() {
            buffers.fields.clear();
            buffers.line.shrink_to(8 * MAX_VALUE);
            if let Some(f) = f.take() {
                f(&mut buffers);
            }
        }
    });
    if let Some(f) = f {
        f(&mut Buffers::default());
    }
}

impl Buffers {
    /// Formats the JSON line, line end included.
    pub(super) fn json(&mut self, now: Duration, level: Level, target: &str) -> &[u8] {
        let Self { fields, line } = self;
        line.clear();
        line.push_str("{\"timestamp\":\"");
        push_time(line, now);
        line.push_str("\",\"level\":\"");
        line.push_str(level.as_str());
        line.push_str("\",\"message\":\"");
        escape_json(line, &fields.message);
        line.push('"');
        line.push_str(&fields.json);
        if level != Level::INFO {
            line.push_str(",\"target\":\"");
            escape_json(line, target);
            line.push('"');
        }
        line.push_str("}\n");
        line.as_bytes()
    }

    /// Formats the readable line, line end included.
    pub(super) fn readable(
        &mut self,
        now: Duration,
        level: Level,
        target: &str,
        colour: bool,
    ) -> &[u8] {
        let Self { fields, line } = self;
        line.clear();
        let (dim, color, plain) = if colour {
            ("\x1b[2m", color(level), "\x1b[0m")
        } else {
            ("", "", "")
        };
        line.push_str(dim);
        push_time(line, now);
        line.push_str(plain);
        line.push(' ');
        line.push_str(color);
        let _ = write!(line, "{:>5}", level.as_str());
        line.push_str(plain);
        line.push(' ');
        escape_readable(line, &fields.message);
        line.push_str(&fields.readable);
        if level > Level::INFO {
            line.push(' ');
            line.push_str(dim);
            line.push('(');
            escape_readable(line, target);
            line.push(')');
            line.push_str(plain);
        }
        line.push('\n');
        line.as_bytes()
    }
}

/// Formats the line that takes the place of `count` lost lines, in the form of the file of `level`.
pub(super) fn lost_line(now: Duration, level: &str, count: u64) -> String {
    let mut line = String::from("{\"timestamp\":\"");
    push_time(&mut line, now);
    let _ = writeln!(
        line,
        "\",\"level\":\"{level}\",\"message\":\"{count} log lines were lost before this \
         one\",\"lost\":{count}}}"
    );
    line
}

/// Formats a line of the log about itself, in the form of the file of `level`.
pub(super) fn own_line(now: Duration, level: &str, message: &str) -> String {
    let mut line = String::from("{\"timestamp\":\"");
    push_time(&mut line, now);
    let _ = write!(line, "\",\"level\":\"{level}\",\"message\":\"");
    escape_json(&mut line, message);
    line.push_str("\"}\n");
    line
}

/// Returns the Select Graphic Rendition for a level (ECMA-48).
const fn color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// Appends the time as RFC 3339 in UTC, with milliseconds. Each thread formats the seconds once a
/// second.
pub(super) fn push_time(line: &mut String, now: Duration) {
    let second = now.as_secs();
    let (known, mut text) = SECOND.get();
    if known != second {
        let timestamp = i64::try_from(second)
            .ok()
            .and_then(|second| Timestamp::from_second(second).ok());
        let shown = timestamp.unwrap_or(Timestamp::MAX).to_string();
        match shown.as_bytes().first_chunk() {
            Some(chunk) => text = *chunk,
            None => text.fill(b'0'),
        }
        SECOND.set((second, text));
    }
    line.push_str(std::str::from_utf8(&text).unwrap_or_default());
    let _ = write!(line, ".{:03}Z", now.subsec_millis());
}

/// Appends a value, but no more of it than a line may hold.
fn write_truncated(out: &mut String, value: fmt::Arguments<'_>) {
    let mut truncating = Truncating {
        out,
        left: MAX_VALUE,
        beyond: 0,
    };
    // A Display that fails half-way leaves what it has written.
    let _ = truncating.write_fmt(value);
    let beyond = truncating.beyond;
    if beyond > 0 {
        let _ = write!(out, "... ({beyond} bytes more)");
    }
}

struct Truncating<'a> {
    out: &'a mut String,
    left: usize,
    beyond: usize,
}

impl fmt::Write for Truncating<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fitting = if text.len() <= self.left {
            text.len()
        } else {
            text.floor_char_boundary(self.left)
        };
        self.out.push_str(text.get(..fitting).unwrap_or_default());
        self.beyond += text.len() - fitting;
        // After a cut nothing more goes in, not even what would still fit.
        self.left = if self.beyond > 0 {
            0
        } else {
            self.left - fitting
        };
        Ok(())
    }
}

/// Whether a text is printable ASCII that needs no escape in either form, as nearly all are.
fn is_plain(text: &str) -> bool {
    // Without an early return the compiler vectorises it.
    text.bytes().fold(true, |plain, byte| {
        plain & matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\')
    })
}

/// Appends `text` as the inside of a JSON string (RFC 8259, section 7), with more escapes than
/// required.
pub(super) fn escape_json(out: &mut String, text: &str) {
    escape(out, text, |out, c| match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        // Everything unsafe is in the Basic Multilingual Plane: no surrogate pairs.
        c => {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
    });
}

/// Appends `text` for a reader, with escapes as in Rust.
fn escape_readable(out: &mut String, text: &str) {
    escape(out, text, |out, c| match c {
        '"' | '\\' => out.push(c),
        c => out.extend(c.escape_default()),
    });
}

fn escape(out: &mut String, text: &str, replace: impl Fn(&mut String, char)) {
    if is_plain(text) {
        return out.push_str(text);
    }
    let mut start = 0;
    for (index, c) in text.char_indices() {
        if c == '"' || c == '\\' || is_unsafe(c) {
            out.push_str(text.get(start..index).unwrap_or_default());
            replace(out, c);
            start = index + c.len_utf8();
        }
    }
    out.push_str(text.get(start..).unwrap_or_default());
}
