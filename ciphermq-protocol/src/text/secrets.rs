//! Paths and words of a configuration in messages, without keys that stand there by mistake.
//!
//! A variable that names a key file is easily set to the key itself, and messages end up on
//! terminals, in logs and in bug reports.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

/// The text that is shown instead of a key.
const INSTEAD: &str = "(a key, which is not shown)";
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
/// 4648) or hexadecimal, perhaps on several lines.
#[must_use]
pub fn holds_key<T: AsRef<OsStr> + ?Sized>(text: &T) -> bool {
    let text = text.as_ref().to_string_lossy();
    let is_separator = |c: char| c.is_whitespace() || c == ':';
    text.contains("-----BEGIN")
        || has_key_word(&text)
        || is_key(&text.split(is_separator).collect::<String>())
}

/// Returns the text of a command line's error for people.
///
/// The keys, and the passwords of URLs, that it quotes are left out, and the standard library's
/// reasons for numbers, which are written for programmers, are replaced.
#[must_use]
pub fn command_line_error(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, pem)) = rest.split_once("-----BEGIN") {
        clean.push_str(before);
        clean.push_str(INSTEAD);
        // The quotation mark that ends the value, which PEM does not contain.
        rest = pem
            .find('\'')
            .and_then(|end| pem.get(end..))
            .unwrap_or_default();
    }
    clean.push_str(rest);
    let secrets: Vec<String> = words(&clean)
        .filter(|word| has_key_word(word) || has_password(word))
        .map(str::to_owned)
        .collect();
    for secret in secrets {
        let instead = if has_password(&secret) {
            "(a URL with a password, which is not shown)"
        } else {
            INSTEAD
        };
        clean = clean.replace(&secret, instead);
    }
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

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`'))
}

fn has_key_word(text: &str) -> bool {
    // Some tools write a prefix, such as `base64:`.
    words(text).any(|word| word.split([':', ',', ';', '@']).any(is_key))
}

fn is_key(word: &str) -> bool {
    let is_hex = word.len() >= HEX_DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex || is_base64_key(word)
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

    const KEYS: [&str; 9] = [
        "4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=",
        "4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g",
        "  4IZCJdI0yQ8u/cnW1Ll3bM+RJRDE7j9eZFgHDuEnm2g=\n",
        "4IZCJdI0yQ8u_cnW1Ll3bM-RJRDE7j9eZFgHDuEnm2g",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "base64:4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=",
        "XWING 4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=",
        "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925",
        "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC",
    ];

    #[test]
    fn keys_in_place_of_paths_are_not_shown() {
        for key in KEYS {
            assert!(holds_key(key), "{key}");
            assert_eq!(shown(key).to_string(), INSTEAD);
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
