//! Paths and words of a configuration in messages, without keys that stand there by mistake.
//!
//! A variable that names a key file is easily set to the key itself, and messages end up on
//! terminals, in logs and in bug reports.

use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// The text that is shown instead of a key.
const INSTEAD: &str = "(a key, which is not shown)";
/// The beginning of a PEM header.
const PEM: &str = "-----BEGIN";
/// The length of 32 bytes in base64 without padding.
const BASE64_DIGITS: usize = 43;
/// The length of 32 bytes in hexadecimal.
const HEX_DIGITS: usize = 64;

/// A path or word for a message, as [`shown`] returns it.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(&'a OsStr);

/// Returns a path or word of the configuration for a message: as it is, unless it
/// [holds a key](holds_key).
#[must_use]
pub fn shown<T: AsRef<OsStr> + ?Sized>(text: &T) -> Shown<'_> {
    Shown(text.as_ref())
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if holds_key(self.0) {
            f.write_str(INSTEAD)
        } else {
            write!(f, "{}", Path::new(self.0).display())
        }
    }
}

/// Returns whether a path or word is a key rather than the path of one.
///
/// It is one if it has a PEM header, or contains 32 bytes or more in base64 (any alphabet, RFC
/// 4648) or hexadecimal: with or without padding, alone or after a prefix (`key=`, `base64:`,
/// `0x`), in groups (`66:68:7a`), or on several lines.
#[must_use]
pub fn holds_key<T: AsRef<OsStr> + ?Sized>(text: &T) -> bool {
    let text = text.as_ref().to_string_lossy();
    text.contains(PEM) || !key_places(&text).is_empty() || is_wrapped_key(&text)
}

/// Returns whether a name is a key, as [`holds_key`] does, except that a word of hexadecimal digits
/// counts as a fingerprint: clients may be named after those.
#[must_use]
pub fn name_holds_key<T: AsRef<OsStr> + ?Sized>(name: &T) -> bool {
    let name = name.as_ref().to_string_lossy();
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let parts = || name.split(['-', '_', '.']);
    let is_fingerprint = is_plain
        && !parts().any(|part| part.starts_with("0x") || part.starts_with("0X"))
        && parts().any(is_hex_key)
        && !is_base64_key(&name);
    !is_fingerprint && holds_key(&*name)
}

/// Returns the text of a command line's error for people.
///
/// The keys, and the passwords of URLs, that it quotes are left out, and the standard library's
/// reasons for numbers, which are written for programmers, are replaced.
#[must_use]
pub fn command_line_error(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, pem)) = rest.split_once(PEM) {
        clean.push_str(before);
        clean.push_str(INSTEAD);
        // The quotation mark that ends the value, which PEM does not contain.
        rest = pem
            .find(['\'', '`'])
            .and_then(|end| pem.get(end..))
            .unwrap_or_default();
    }
    clean.push_str(rest);
    let urls: Vec<String> = words(&clean)
        .filter(|word| has_password(word))
        .map(str::to_owned)
        .collect();
    for url in urls {
        clean = clean.replace(&url, "(a URL with a password, which is not shown)");
    }
    for place in key_places(&clean).into_iter().rev() {
        clean.replace_range(place, INSTEAD);
    }
    // Keys that are wrapped or spaced in a way of their own fill a quotation.
    clean = clean
        .split_inclusive(is_quote)
        .map(|part| {
            let quoted = part.strip_suffix(is_quote).unwrap_or(part);
            match is_wrapped_key(quoted) {
                true => part.replace(quoted, INSTEAD),
                false => part.to_owned(),
            }
        })
        .collect();
    for (reason, plain) in NUMBERS {
        clean = clean.replace(reason, plain);
    }
    clean
}

/// The standard library's reasons why a text is no number, and the same in plain words.
const NUMBERS: [(&str, &str); 5] = [
    ("invalid digit found in string", "it is not a whole number"),
    ("number too large to fit in target type", "it is too large"),
    ("number too small to fit in target type", "it is too small"),
    (
        "number would be zero for non-zero type",
        "it must be at least 1",
    ),
    ("cannot parse integer from empty string", "it is empty"),
];

/// Returns whether a word is a URL with a password.
fn has_password(word: &str) -> bool {
    let Some((_, rest)) = word.split_once("://") else {
        return false;
    };
    let user = rest.rsplit_once('@').map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':')) || rest.contains("password=")
}

fn is_quote(letter: char) -> bool {
    matches!(letter, '\'' | '"' | '`')
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || is_quote(c))
}

/// Returns the places of the keys in a text, in order.
fn key_places(text: &str) -> Vec<Range<usize>> {
    let mut places = key_words(text);
    places.extend(hex_groups(text));
    places.sort_by_key(|place| (place.start, std::cmp::Reverse(place.end)));
    let mut end = 0;
    places.retain(|place| {
        let is_new = place.start >= end;
        end = end.max(place.end);
        is_new
    });
    places
}

/// Returns the places of words that are keys. What tools write before them is not a part of the
/// word, such as `base64:` and `key=`.
fn key_words(text: &str) -> Vec<Range<usize>> {
    let mut places = Vec::new();
    for (mut at, word) in runs(text, |c| c.is_ascii_alphanumeric() || "+/-_.=".contains(c)) {
        let word = word.trim_end_matches('.');
        let padding = word.len() - word.trim_end_matches('=').len();
        let mut parts = word.trim_end_matches('=').split('=').peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            let end = at + part.len() + if is_last { padding } else { 0 };
            if text.get(at..end).is_some_and(is_key) {
                places.push(at..end);
            }
            at += part.len() + 1;
        }
    }
    places
}

/// Returns the places of hexadecimal keys that are written in groups of one length, as in
/// `66:68:7a`, `0x66, 0x68` and `6668 7aad`.
fn hex_groups(text: &str) -> Vec<Range<usize>> {
    let mut places: Vec<Range<usize>> = Vec::new();
    let mut digits = 0;
    let mut last = (0..0, 0);
    for (start, run) in runs(text, |c| c.is_ascii_alphanumeric()) {
        let group = run.trim_start_matches("0x").trim_start_matches(['x', 'X']);
        let is_group = matches!(group.len(), 2 | 4 | 8 | 16 | 32)
            && group.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (before, length): (Range<usize>, usize) = last;
        let gap = text.get(before.end..start).unwrap_or_default();
        let continues = is_group && length == group.len() && !gap.contains('/');
        digits = match (is_group, continues) {
            (true, true) => digits + group.len(),
            (true, false) => group.len(),
            (false, _) => 0,
        };
        let begin = if continues { before.start } else { start };
        last = (
            begin..start + run.len(),
            if is_group { group.len() } else { 0 },
        );
        if digits >= HEX_DIGITS {
            places.retain(|place| place.start != begin);
            places.push(begin..start + run.len());
        }
    }
    places
}

/// Returns the longest parts of a text that consist of such characters, and where they start.
fn runs(text: &str, is_part: impl Fn(char) -> bool) -> Vec<(usize, &str)> {
    let mut start = 0;
    let mut runs = Vec::new();
    for part in text.split_inclusive(|c| !is_part(c)) {
        let run = part.trim_end_matches(|c| !is_part(c));
        if !run.is_empty() {
            runs.push((start, run));
        }
        start += part.len();
    }
    runs
}

/// Returns whether a text is a key on several lines, or in words.
fn is_wrapped_key(text: &str) -> bool {
    is_key(
        &text
            .split(|c: char| c.is_whitespace() || c == ':')
            .collect::<String>(),
    )
}

fn is_key(word: &str) -> bool {
    is_hex_key(word) || is_base64_key(word)
}

/// Returns whether a word is 32 bytes or more in hexadecimal, perhaps after `0x` or a name.
fn is_hex_key(word: &str) -> bool {
    word.split(['-', '_', '+']).any(|part| {
        let digits = part.strip_prefix("0x").or_else(|| part.strip_prefix("0X"));
        let digits = digits.unwrap_or(part);
        digits.len() >= HEX_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Returns whether a word is base64 of 32 bytes or more.
///
/// Long paths may consist of the same characters. They have no padding, and their letters and
/// digits are not mixed at random.
fn is_base64_key(word: &str) -> bool {
    let digits = word.trim_end_matches('=');
    let is_base64 = digits.len() >= BASE64_DIGITS
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_'));
    is_base64 && (digits.len() < word.len() || is_random(digits.as_bytes()))
}

/// Returns whether capitals, small letters and digits alternate as in random base64: at two of
/// three places, while words have a capital or digit at their beginning or end.
fn is_random(digits: &[u8]) -> bool {
    let class = |byte: u8| match byte {
        b'A'..=b'Z' => Some(0),
        b'a'..=b'z' => Some(1),
        b'0'..=b'9' => Some(2),
        _ => None,
    };
    let changes = digits.windows(2).filter(|pair| match pair {
        [one, next] => class(*one)
            .zip(class(*next))
            .is_some_and(|(one, next)| one != next),
        _ => false,
    });
    let has = |wanted| digits.iter().any(|&byte| class(byte) == Some(wanted));
    (0..3).all(has) && changes.count() >= digits.len() / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";

    /// A hexadecimal key in groups of this many digits.
    fn grouped(length: usize, before: &str, separator: &str) -> String {
        let groups = HEX.as_bytes().chunks(length);
        let groups: Vec<_> = groups
            .map(|group| format!("{before}{}", String::from_utf8_lossy(group)))
            .collect();
        groups.join(separator)
    }

    /// Spellings of a hexadecimal key.
    fn hex_keys() -> Vec<String> {
        let mut keys = vec![
            HEX.to_owned(),
            HEX.to_uppercase(),
            format!("0x{HEX}"),
            format!("0X{HEX}"),
            format!("key={HEX}"),
            format!("KEY={HEX}"),
            format!("hex:{HEX}"),
            format!("[{HEX}]"),
            format!("x'{HEX}'"),
            format!("key_{HEX}"),
            grouped(2, "0x", ", "),
            grouped(2, "0x", ","),
            grouped(2, "\\x", ""),
            grouped(2, "", ":\n    "),
        ];
        for separator in [":", " ", "-", ", ", "\n", "."] {
            keys.extend([2, 4, 8, 16].map(|length| grouped(length, "", separator)));
        }
        keys
    }

    const KEYS: [&str; 16] = [
        "4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=",
        "4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g",
        "  4IZCJdI0yQ8u/cnW1Ll3bM+RJRDE7j9eZFgHDuEnm2g=\n",
        "4IZCJdI0yQ8u_cnW1Ll3bM-RJRDE7j9eZFgHDuEnm2g",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "base64:4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=",
        "XWING 4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=",
        "key=4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=",
        "export KEY=4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g",
        "key=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g:6801",
        "https://4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g@host",
        "(4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=)",
        "k=4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=;l=1",
        "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925",
        "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC",
    ];

    #[test]
    fn keys_in_place_of_paths_are_not_shown() {
        for key in KEYS {
            assert!(holds_key(key), "{key}");
            assert_eq!(shown(key).to_string(), INSTEAD);
        }
        for key in hex_keys() {
            assert_eq!(shown(&key).to_string(), INSTEAD, "{key}");
        }
        for pem in [
            "-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY----- MC4C",
            "MC4CAQAwBQYDK2VwBCIEINTuctv5\nE1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC",
            "66:68:7a:ad:f8:62:bd:77:6c:8f:c1:8b:8e:9f:8e:20:\n    \
             08:97:14:85:6e:e2:33:b3:90:2a:59:1d:0d:5f:29:25",
        ] {
            assert_eq!(shown(pem).to_string(), INSTEAD);
        }
    }

    #[test]
    fn paths_and_words_are_shown() {
        for path in [
            "",
            "certs/ca.crt",
            "receiver_private.66687aadf862bd77.key",
            "/Users/alice2/Documents/CipherMQ/certificates/receiver_1",
            "/var/lib/service-2/8f14e45f-ceea-467f-a9f8-a1b2c3d4e5f6/certs",
            "/var/lib/66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925/x",
            "/srv/production/ciphermq/deployments/certificates/receiver",
            "./4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g.key",
            "aes-256-gcm",
            "a folder\nof two lines",
            "/srv/warehouse/tables/readings/of/all/plants/year=2024/month=05/part",
            "01a20937-573d-8b38-8abe-0a0000000000 01a20937-573d-8b38-8abe-0a0000000001",
            "2001:db8:85a3:1:2:8a2e:370:7334, 2001:db8:85a3:1:2:8a2e:370:7335",
            "localhost:5672",
        ] {
            assert_eq!(shown(path).to_string(), path);
        }
    }

    #[test]
    fn errors_of_command_lines_show_no_secrets() {
        let error = |value: &str| format!("error: invalid value '{value}' for '--key <FILE>'");
        for key in KEYS {
            let clean = command_line_error(&error(key));
            assert!(
                !clean.contains("IZCJ") && !clean.contains("AAAA"),
                "{clean}"
            );
            assert!(clean.ends_with("for '--key <FILE>'"), "{clean}");
        }
        for key in hex_keys().iter().filter(|key| !key.contains('\'')) {
            let clean = command_line_error(&error(key));
            let two = [&HEX[..2], &HEX[32..34], &HEX[62..]].map(|pair| clean.contains(pair));
            assert_eq!(two, [false; 3], "{key}: {clean}");
            assert!(clean.ends_with("for '--key <FILE>'"), "{clean}");
        }
        // Wrapped in a way of its own.
        let wrapped = "4IZCJdI0yQ8u4cnW 1Ll3bMTRJRDE7j9eZ\nFgHDuEnm2g=";
        assert_eq!(command_line_error(&error(wrapped)), error(INSTEAD));
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4C\nAAAA\n-----END PRIVATE KEY-----";
        assert_eq!(command_line_error(&error(pem)), error(INSTEAD));
        for url in ["mysql://u:secret@h/d", "mysql://u@h/d?password=secret"] {
            let clean = command_line_error(&error(url));
            assert!(!clean.contains("secret"), "{clean}");
        }
        for value in ["sqlit", "mysql://u@h/d", "certs/ca.crt"] {
            assert_eq!(command_line_error(&error(value)), error(value));
        }
    }

    #[test]
    fn names_may_be_fingerprints_and_no_other_keys() {
        for name in [HEX, &format!("device-{HEX}"), "receiver_1", "a:b", "x@y.z"] {
            assert!(!name_holds_key(name), "{name}");
        }
        for name in KEYS.into_iter().filter(|&key| key != HEX) {
            assert!(name_holds_key(name), "{name}");
        }
        for name in [format!("0x{HEX}"), grouped(2, "", ":"), grouped(2, "", " ")] {
            assert!(name_holds_key(&name), "{name}");
        }
    }

    #[test]
    fn errors_of_numbers_are_in_plain_words() {
        let zero = "0".parse::<std::num::NonZeroU32>().unwrap_err();
        let errors = ["x", "", "300", "-1"].map(|text| text.parse::<u8>().unwrap_err().to_string());
        let small = "-300".parse::<i8>().unwrap_err().to_string();
        for reason in errors.into_iter().chain([zero.to_string(), small]) {
            let plain = command_line_error(&reason);
            assert!(plain.starts_with("it "), "{reason}");
        }
    }
}
