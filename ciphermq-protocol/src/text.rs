//! Untrusted text, shown to people without breaking lines or controlling terminals.
//!
//! Ids, reasons and error texts come from the other end, and file names from whoever created the
//! files. An escape sequence in one of them could hide or forge lines on a terminal, or worse; a
//! mark for the reading direction shows text in another order than it is stored. [`Escaped`] writes
//! such characters as Rust does: `\n`, `\u{1b}`, `\u{202e}`.

mod secrets;

use std::borrow::Cow;
use std::fmt::{self, Write as _};

pub use secrets::{Shown, command_line_error, holds_key, name_holds_key, shown};

/// Returns whether a character could break a line, control a terminal, or reorder text.
///
/// These are C0, DEL and C1, the separators of lines and paragraphs, all marks for the reading
/// direction, and the byte order mark. All are in the Basic Multilingual Plane.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

/// A value whose text is displayed with all [unsafe](is_unsafe) characters escaped, line endings
/// included.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unsafe) {
            let (safe, from) = rest.split_at(at);
            self.0.write_str(safe)?;
            let mut chars = from.chars();
            if let Some(c) = chars.next() {
                write!(self.0, "{}", c.escape_default())?;
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Escapes the lines of a text for a terminal, each with a line feed at its end.
#[must_use]
pub fn lines(text: impl fmt::Display) -> String {
    let text = text.to_string();
    let lines = text.trim_end_matches('\n').split('\n');
    lines.map(|line| format!("{}\n", Escaped(line))).collect()
}

/// Escapes data for a terminal, except line feeds.
///
/// [Unsafe](is_unsafe) characters are written as in JSON, `\u001b`, so that JSON keeps its meaning.
/// Bytes that are not UTF-8 are written as `\x9b`.
#[must_use]
pub fn data_for_terminal(data: &[u8]) -> Cow<'_, [u8]> {
    let is_safe = |text: &str| !text.contains(|c| c != '\n' && is_unsafe(c));
    if std::str::from_utf8(data).is_ok_and(is_safe) {
        return Cow::Borrowed(data);
    }
    let mut shown = String::with_capacity(data.len() + 64);
    for chunk in data.utf8_chunks() {
        for c in chunk.valid().chars() {
            // Writing into a String does not fail.
            let _ = match c {
                c if c != '\n' && is_unsafe(c) => write!(shown, "\\u{:04x}", u32::from(c)),
                c => shown.write_char(c),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    Cow::Owned(shown.into_bytes())
}

/// Replaces doubled full stops, which arise when a sentence quotes another.
///
/// `refused: no route..` becomes `refused: no route.`
#[must_use]
pub fn one_full_stop(text: String) -> String {
    let doubled = |text: &str| text.ends_with("..") && !text.ends_with("...");
    if !text.contains("..") {
        return text;
    }
    let mut tidy = String::with_capacity(text.len());
    for (index, part) in text.split(' ').enumerate() {
        if index > 0 {
            tidy.push(' ');
        }
        // A word `..` is a folder.
        let is_doubled = part != ".." && !part.ends_with("/..") && doubled(part);
        tidy.push_str(
            part.strip_suffix('.')
                .filter(|_| is_doubled)
                .unwrap_or(part),
        );
    }
    tidy
}

/// Writes an error for people: what happened, what to do, and the causes.
///
/// It is for `Debug`, which `main() -> Result` prints. A cause whose text was already written is
/// left out.
///
/// # Errors
///
/// If the formatter fails.
pub fn write_report(
    f: &mut fmt::Formatter<'_>,
    error: &dyn std::error::Error,
    advice: Option<&str>,
) -> fmt::Result {
    let mut written = error.to_string();
    write!(f, "{}", Escaped(&written))?;
    // Aligned with the text, which `main` prints after `Error: `.
    for line in advice.into_iter().flat_map(str::lines) {
        write!(f, "\n       {}", Escaped(line))?;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !written.contains(text.trim_end_matches('.')) {
            write!(f, "\n       because: {}", Escaped(&text))?;
            written = text;
        }
        source = cause.source();
    }
    Ok(())
}

/// Implements `Debug` for an error type with [`write_report`].
#[macro_export]
macro_rules! debug_as_report {
    ($type:ty) => {
        $crate::debug_as_report!($type, |_| None);
    };
    ($type:ty, $advice:expr) => {
        impl ::std::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                let advice: fn(&Self) -> Option<String> = $advice;
                $crate::text::write_report(f, self, advice(self).as_deref())
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_nothing_else() {
        let wrong = ('\0'..=char::MAX).find(|&c| {
            // Bidi_Control of the Unicode Standard, the two separators, and the byte order mark.
            let is_mark = matches!(u32::from(c), 0x61c | 0x200e | 0x200f | 0x2028 | 0x2029 | 0x202a..=0x202e | 0x2066..=0x2069 | 0xfeff);
            is_unsafe(c) != (is_mark || c.is_control())
        });
        assert_eq!(wrong, None);
        let shown =
            Escaped("a\n\x1b[31mZürich\u{7f}\u{9b}2J\u{202e}\u{61c}\u{2028}温度 👩\u{200d}🔬\\")
                .to_string();
        assert_eq!(
            shown,
            "a\\n\\u{1b}[31mZürich\\u{7f}\\u{9b}2J\\u{202e}\\u{61c}\\u{2028}温度 👩\u{200d}🔬\\"
        );
        assert_eq!(Escaped(&shown).to_string(), shown, "escaping is idempotent");
        assert_eq!(Escaped(format_args!("{}{}", "a\r", 1)).to_string(), "a\\r1");
    }

    #[test]
    fn lines_are_kept_and_their_control_characters_escaped() {
        assert_eq!(lines("a\r\n\x1b[2Jb\n\n"), "a\\r\n\\u{1b}[2Jb\n");
        assert_eq!(lines(""), "\n");
    }

    #[test]
    fn json_for_a_terminal_keeps_its_meaning() {
        let json = "{\"a\":\"x\u{7f}\u{9b}\u{202e}\u{feff}y\\u001b\"}\n";
        let shown = data_for_terminal(json.as_bytes());
        assert_eq!(
            shown,
            &b"{\"a\":\"x\\u007f\\u009b\\u202e\\ufeffy\\u001b\"}\n"[..]
        );
        let value = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).unwrap();
        assert_eq!(value(&shown), value(json.as_bytes()));
        assert!(matches!(
            data_for_terminal("Zürich\n".as_bytes()),
            Cow::Borrowed(_)
        ));
        assert_eq!(
            data_for_terminal(b"a\x9b2J\x1b\n"),
            &b"a\\x9b2J\\u001b\n"[..]
        );
    }

    #[test]
    fn doubled_full_stops_are_removed() {
        for (text, tidy) in [
            ("no route..", "no route."),
            ("a.. Nothing was sent.", "a. Nothing was sent."),
            ("and so on...", "and so on..."),
            (
                "of ../x, or a/.. or .. it is.",
                "of ../x, or a/.. or .. it is.",
            ),
            ("one.", "one."),
        ] {
            assert_eq!(one_full_stop(text.to_owned()), tidy);
        }
    }

    #[derive(thiserror::Error)]
    #[error("it broke")]
    struct Broke(#[source] std::io::Error);
    debug_as_report!(Broke, |_| Some("Fix it.\nRun it again.".to_owned()));

    #[derive(thiserror::Error)]
    #[error("no: {0}")]
    struct Wrapped(#[source] Broke);
    debug_as_report!(Wrapped);

    #[test]
    fn a_report_has_advice_and_causes() {
        let broke = || Broke(std::io::Error::other("\x1b[2Jfull"));
        assert_eq!(
            format!("{:?}", broke()),
            "it broke\n       Fix it.\n       Run it again.\n       because: \\u{1b}[2Jfull"
        );
        assert_eq!(
            format!("{:?}", Wrapped(broke())),
            "no: it broke\n       because: \\u{1b}[2Jfull"
        );
    }
}
