//! Kinds of quantities: how each is parsed, formatted, and described in errors.

use std::time::Duration;

use super::units;

/// A kind of quantity, such as a size or a duration.
pub(super) trait QuantityKind {
    /// The type of a parsed value.
    type Value: Copy;
    /// The type of a minimum or maximum.
    type Bound: PartialOrd + Copy;
    /// The name of the kind in advice, after "Write a " and before " from ... to ...".
    const DESCRIPTION: &'static str;
    /// A further sentence of the advice, with a leading space, for a value without bounds.
    const ALTERNATIVE: &'static str = "";

    /// Parses a value; `None` if the text is invalid.
    fn parse(text: &str) -> Option<Self::Value>;

    /// Returns the value to compare with the bounds; `None` if the value satisfies all bounds.
    fn as_bound(value: Self::Value) -> Option<Self::Bound>;

    /// Formats a bound so that [`parse`](Self::parse) accepts it.
    fn format(bound: Self::Bound) -> String;

    /// Formats a value as in a configuration file.
    #[cfg(test)]
    fn to_toml(value: Self::Value) -> String {
        format!(
            "\"{}\"",
            Self::as_bound(value).map_or_else(|| String::from("forever"), Self::format)
        )
    }
}

/// A whole number.
pub(super) struct Number;

impl QuantityKind for Number {
    type Value = u64;
    type Bound = u64;
    const DESCRIPTION: &'static str = "whole number";

    fn parse(text: &str) -> Option<u64> {
        text.trim().parse().ok()
    }

    fn as_bound(value: u64) -> Option<u64> {
        Some(value)
    }

    fn format(bound: u64) -> String {
        bound.to_string()
    }

    #[cfg(test)]
    fn to_toml(value: u64) -> String {
        value.to_string()
    }
}

/// A number of bytes.
pub(super) struct Size;

impl QuantityKind for Size {
    type Value = u64;
    type Bound = u64;
    const DESCRIPTION: &'static str = "size in bytes, or with KiB, MiB, GiB or TiB,";

    fn parse(text: &str) -> Option<u64> {
        units::parse_size(text)
    }

    fn as_bound(value: u64) -> Option<u64> {
        Some(value)
    }

    fn format(bound: u64) -> String {
        units::format_size(bound)
    }
}

/// A duration.
pub(super) struct Time;

impl QuantityKind for Time {
    type Value = Duration;
    type Bound = Duration;
    const DESCRIPTION: &'static str = "duration with its unit, such as \"30s\",";

    fn parse(text: &str) -> Option<Duration> {
        units::parse_duration(text)
    }

    fn as_bound(value: Duration) -> Option<Duration> {
        Some(value)
    }

    fn format(bound: Duration) -> String {
        units::format_duration(bound)
    }
}

/// A duration, or `forever`, which is `None`.
pub(super) struct Retention;

impl QuantityKind for Retention {
    type Value = Option<Duration>;
    type Bound = Duration;
    const DESCRIPTION: &'static str = Time::DESCRIPTION;
    const ALTERNATIVE: &'static str = " Or write \"forever\".";

    fn parse(text: &str) -> Option<Option<Duration>> {
        let text = text.trim();
        let is_forever = ["forever", "for ever"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word));
        if is_forever {
            Some(None)
        } else {
            Time::parse(text).map(Some)
        }
    }

    fn as_bound(value: Option<Duration>) -> Option<Duration> {
        value
    }

    fn format(bound: Duration) -> String {
        Time::format(bound)
    }
}
