//! Sizes and durations as people write them.

use std::time::Duration;

const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Reads a number of bytes: `1048576`, `64MiB`, `64 MiB`, `1 gb`.
pub(super) fn size(text: &str) -> Option<u64> {
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
    let (_, factor) = UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// Writes a number of bytes in the largest unit that leaves it whole.
pub(super) fn show_size(bytes: u64) -> String {
    let units = [
        ("TiB", 1_u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    let whole = units
        .into_iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    match whole {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes} bytes"),
    }
}

/// Reads a duration: `30s`, `1m 30s`, `250ms`, `7days`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok()
}

/// Writes a duration as [`duration`] reads it.
pub(super) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
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
            assert_eq!(size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
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
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn shown_sizes_and_durations_are_read_back() {
        for bytes in [1 << 10, 3 << 20, 256 << 20, 5 << 30, 1 << 40] {
            assert_eq!(size(&show_size(bytes)), Some(bytes));
        }
        assert_eq!(show_size(1000), "1000 bytes");
        for millis in [1, 250, 8_000, 90_000, 86_400_000] {
            let wanted = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(wanted)), Some(wanted));
        }
        assert_eq!(duration("30"), None);
    }
}
