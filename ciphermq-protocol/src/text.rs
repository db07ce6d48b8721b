//! Text for people: what others chose is shown without breaking lines or steering terminals.
//!
//! Ids, reasons and error texts come from the other end, and names of files from whoever made them.
//! On a terminal an escape sequence in one of them could hide lines, forge them, or worse; a mark
//! for the reading direction shows text in another order than it stands. [`Escaped`] writes such
//! characters as Rust does: `\n`, `\u{1b}`, `\u{202e}`.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Whether a character could break a line, steer a terminal, or show text in another order than it
/// stands.
///
/// These are C0, DEL and C1, the separators of lines and paragraphs, all marks for the reading
/// direction, and the byte order mark. All of them are in the Basic Multilingual Plane.
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

/// A value whose text is written with everything [unsafe](is_unsafe) escaped, line ends included.
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

/// Data as it may be shown on a terminal: lines stay lines, all else that is [unsafe](is_unsafe) is
/// written as in JSON, `\u001b`, and what is no UTF-8 as `\x9b`. JSON keeps its meaning by that.
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

/// A text made of sentences, where one that was put into another has brought its own full stop:
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
        // `..` by itself is a folder.
        let is_doubled = part != ".." && !part.ends_with("/..") && doubled(part);
        tidy.push_str(
            part.strip_suffix('.')
                .filter(|_| is_doubled)
                .unwrap_or(part),
        );
    }
    tidy
}

/// Writes an error as a person needs it, for its `Debug`, which is what `main() -> Result` prints:
/// what happened, below it what to do, and what lies behind it, unless that was said already.
///
/// # Errors
///
/// As the formatter's.
pub fn write_report(
    f: &mut fmt::Formatter<'_>,
    error: &dyn std::error::Error,
    advice: Option<&str>,
) -> fmt::Result {
    let mut told = error.to_string();
    write!(f, "{}", Escaped(&told))?;
    // Below the text, which stands behind `Error: `.
    for line in advice.into_iter().flat_map(str::lines) {
        write!(f, "\n       {}", Escaped(line))?;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !told.contains(text.trim_end_matches('.')) {
            write!(f, "\n       because: {}", Escaped(&text))?;
            told = text;
        }
        source = cause.source();
    }
    Ok(())
}

/// `Debug` of error types as [`write_report`] writes it.
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
    fn whatever_steers_a_terminal_is_escaped_and_nothing_else() {
        let wrong = ('\0'..=char::MAX).find(|&c| {
            // What the Unicode Standard calls Bidi_Control, the two separators, and the byte order
            // mark.
            let steers = matches!(u32::from(c), 0x61c | 0x200e | 0x200f | 0x2028 | 0x2029 | 0x202a..=0x202e | 0x2066..=0x2069 | 0xfeff);
            is_unsafe(c) != (steers || c.is_control())
        });
        assert_eq!(wrong, None);
        let shown =
            Escaped("a\n\x1b[31mZürich\u{7f}\u{9b}2J\u{202e}\u{61c}\u{2028}温度 👩\u{200d}🔬\\")
                .to_string();
        assert_eq!(
            shown,
            "a\\n\\u{1b}[31mZürich\\u{7f}\\u{9b}2J\\u{202e}\\u{61c}\\u{2028}温度 👩\u{200d}🔬\\"
        );
        assert_eq!(Escaped(&shown).to_string(), shown, "once is enough");
        assert_eq!(Escaped(format_args!("{}{}", "a\r", 1)).to_string(), "a\\r1");
    }

    #[test]
    fn data_on_a_terminal_stays_the_same_json() {
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
    fn sentences_end_once() {
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
    debug_as_report!(Broke, |_| Some("Mend it.\nRun it again.".to_owned()));

    #[derive(thiserror::Error)]
    #[error("no: {0}")]
    struct Wrapped(#[source] Broke);
    debug_as_report!(Wrapped);

    #[test]
    fn an_error_of_main_is_told_once_and_with_what_to_do() {
        let broke = || Broke(std::io::Error::other("\x1b[2Jfull"));
        assert_eq!(
            format!("{:?}", broke()),
            "it broke\n       Mend it.\n       Run it again.\n       because: \\u{1b}[2Jfull"
        );
        assert_eq!(
            format!("{:?}", Wrapped(broke())),
            "no: it broke\n       because: \\u{1b}[2Jfull"
        );
    }
}
