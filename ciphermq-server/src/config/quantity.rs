//! Kinds of quantities: how each is read, shown, and described in errors.

use std::time::Duration;

use super::units;

/// A kind of quantity.
pub(super) trait Kind {
    /// A value of this kind.
    type Value: Copy;
    /// The least and the most that a value may be.
    type Bound: PartialOrd + Copy;
    /// What a value is called in advice: "Write a ... from ... to ...".
    const DESCRIPTION: &'static str;
    /// What may be written instead, as a further sentence of the advice.
    const ALTERNATIVE: &'static str = "";

    /// Reads a value.
    fn read(text: &str) -> Option<Self::Value>;

    /// The part of a value that is compared with the bounds; `None` if it is within any.
    fn bounded(value: Self::Value) -> Option<Self::Bound>;

    /// Writes a bound in the way that [`read`](Self::read) accepts.
    fn show(bound: Self::Bound) -> String;

    /// A value as a configuration file has it.
    #[cfg(test)]
    fn written(value: Self::Value) -> String {
        format!(
            "\"{}\"",
            Self::bounded(value).map_or_else(|| String::from("forever"), Self::show)
        )
    }
}

/// A whole number.
pub(super) struct Number;

impl Kind for Number {
    type Value = u64;
    type Bound = u64;
    const DESCRIPTION: &'static str = "whole number";

    fn read(text: &str) -> Option<u64> {
        text.trim().parse().ok()
    }

    fn bounded(value: u64) -> Option<u64> {
        Some(value)
    }

    fn show(bound: u64) -> String {
        bound.to_string()
    }

    #[cfg(test)]
    fn written(value: u64) -> String {
        value.to_string()
    }
}

/// A number of bytes.
pub(super) struct Size;

impl Kind for Size {
    type Value = u64;
    type Bound = u64;
    const DESCRIPTION: &'static str = "size in bytes, or with KiB, MiB, GiB or TiB,";

    fn read(text: &str) -> Option<u64> {
        units::size(text)
    }

    fn bounded(value: u64) -> Option<u64> {
        Some(value)
    }

    fn show(bound: u64) -> String {
        units::show_size(bound)
    }
}

/// A duration.
pub(super) struct Time;

impl Kind for Time {
    type Value = Duration;
    type Bound = Duration;
    const DESCRIPTION: &'static str = "duration with its unit, such as \"30s\",";

    fn read(text: &str) -> Option<Duration> {
        units::duration(text)
    }

    fn bounded(value: Duration) -> Option<Duration> {
        Some(value)
    }

    fn show(bound: Duration) -> String {
        units::show_duration(bound)
    }
}

/// A duration, or `forever`, which is `None`.
pub(super) struct Retention;

impl Kind for Retention {
    type Value = Option<Duration>;
    type Bound = Duration;
    const DESCRIPTION: &'static str = Time::DESCRIPTION;
    const ALTERNATIVE: &'static str = " Or write \"forever\".";

    fn read(text: &str) -> Option<Option<Duration>> {
        let text = text.trim();
        let is_forever = ["forever", "for ever"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word));
        if is_forever {
            Some(None)
        } else {
            Time::read(text).map(Some)
        }
    }

    fn bounded(value: Option<Duration>) -> Option<Duration> {
        value
    }

    fn show(bound: Duration) -> String {
        Time::show(bound)
    }
}
