//! Parsing and formatting of human-readable sizes and durations.

use std::time::Duration;

/// The units that sizes are formatted in, largest first.
const BINARY_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Further units that are parsed.
const DECIMAL_UNITS: [(&str, u64); 4] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

/// Parses a number of bytes, such as `1048576`, `64MiB`, `64 MiB` or `1 gb`.
///
/// Returns `None` if the text is invalid or the size exceeds `u64`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.replace('_', "").parse().ok()?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = BINARY_UNITS
        .iter()
        .chain(&DECIMAL_UNITS)
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// Formats a number of bytes in the largest binary unit that divides it, so that [`parse_size`]
/// accepts it.
pub(super) fn format_size(bytes: u64) -> String {
    let (unit, factor) = BINARY_UNITS
        .into_iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// Parses a duration, such as `30s`, `1m 30s`, `250ms` or `7days`; `None` if it is invalid.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok()
}

/// Formats a duration so that [`parse_duration`] accepts it.
pub(super) fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_with_and_without_units() {
        for (text, bytes) in [
            ("0", 0),
            ("16777216", 1 << 24),
            ("16_777_216", 1 << 24),
            ("64MiB", 64 << 20),
            (" 64 mib ", 64 << 20),
            ("1GB", 1_000_000_000),
            ("1TiB", 1 << 40),
            ("2 tb", 2_000_000_000_000),
            ("7 B", 7),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn invalid_sizes_are_refused() {
        for text in [
            "",
            "MiB",
            "-1",
            "1.5MiB",
            "64 MiBs",
            "64M",
            "18446744073709551616",
            "99999999999GiB",
            "_",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn formatted_sizes_and_durations_are_parsed_back() {
        for bytes in [0, 1, 1000, 1 << 10, 3 << 20, 256 << 20, 5 << 30, 1 << 40] {
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }
        assert_eq!(format_size(1000), "1000B");
        for millis in [1, 250, 8_000, 90_000, 86_400_000] {
            let expected = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(expected)), Some(expected));
        }
        assert_eq!(parse_duration("30"), None);
    }
}
