//! Parsers of values that several options have.

use std::path::PathBuf;
use std::time::Duration;

use ciphermq_client::text::shown;
use ciphermq_client::{ClientIdFrom, ClientIdFromError};
use clap::builder::{PathBufValueParser, TypedValueParser};

/// A parser of paths of files that are written. One that ends with a slash names a folder: without
/// it, a file would be created in the folder's place.
pub(crate) fn file_path() -> impl TypedValueParser<Value = PathBuf> {
    // It refuses an empty path, as for all other options.
    PathBufValueParser::new().try_map(|path| {
        let bytes = path.as_os_str().as_encoded_bytes();
        match [&b"/"[..], b"/.", b"/.."]
            .iter()
            .any(|end| bytes.ends_with(end))
        {
            true => Err("it ends like the path of a folder: name a file in it"),
            false => Ok(path),
        }
    })
}

/// Parses a duration: seconds, which may have a fraction, or numbers with units such as `1m 30s`.
///
/// # Errors
///
/// A text for people if it is not a duration, or not above zero and within a year.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    // More than a year is a mistake, and can exceed the range of timers.
    duration_within(text, 365, "a year, such as 10, 0.5 or 2m")
}

/// Parses the lifetime of a signed key: a duration that may be as long as certificates live.
///
/// # Errors
///
/// A text for people if it is not a duration, or not above zero and within ten years.
pub(crate) fn lifetime(text: &str) -> Result<Duration, String> {
    duration_within(text, 3650, "ten years, such as 90d or 12h")
}

fn duration_within(text: &str, days: u64, limit: &str) -> Result<Duration, String> {
    let duration = match text.strip_suffix('s').unwrap_or(text).parse() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    duration
        .filter(|duration| !duration.is_zero() && *duration <= Duration::from_hours(days * 24))
        .ok_or_else(|| {
            format!(
                "`{}` is not a duration above zero and within {limit}",
                shown(text)
            )
        })
}

/// Parses the fields of certificates that hold client ids.
///
/// # Errors
///
/// A text for people.
pub(crate) fn client_id_from(text: &str) -> Result<ClientIdFrom, String> {
    text.parse()
        .map_err(|error: ClientIdFromError| format!("{error}. {}", error.advice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_have_units() {
        for (text, milliseconds) in [
            ("1.5", 1500),
            ("10s", 10_000),
            ("1.5s", 1500),
            ("250ms", 250),
            ("1m 30s", 90_000),
            ("31536000", 31_536_000_000),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn durations_are_positive_and_finite() {
        for text in [
            "",
            "0",
            "0s",
            "-1",
            "inf",
            "NaN",
            "1e300",
            "ten",
            "99999999999",
            "2years",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
