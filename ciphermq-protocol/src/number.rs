//! Counts in requests, clamped to `u32::MAX`.
//!
//! Servers have far lower limits, so a count that overflows means "as many as allowed".

use std::num::NonZeroU32;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Parses a decimal number of at least 1; one that overflows is clamped.
pub(crate) fn parse(text: &str) -> Option<NonZeroU32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = text.trim_start_matches('0');
    if significant.is_empty() {
        return None;
    }
    Some(significant.parse().unwrap_or(NonZeroU32::MAX))
}

/// Deserializes an optional JSON integer of at least 0; one that overflows is clamped.
pub(crate) fn deserialize<'a, D: Deserializer<'a>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    // serde_json reads integers above 64 bits as floating point.
    let is_huge = || {
        number
            .as_f64()
            .is_some_and(|number| number >= 18_446_744_073_709_551_616.0)
    };
    match number.as_u64() {
        Some(number) => Ok(Some(u32::try_from(number).unwrap_or(u32::MAX))),
        None if is_huge() => Ok(Some(u32::MAX)),
        None => Err(D::Error::custom(format_args!(
            "`{number}` is no number from 0 on"
        ))),
    }
}

/// Parses a decimal number of 64 bits.
pub(crate) fn parse_u64(text: &str) -> Option<u64> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    is_decimal.then(|| text.parse().ok()).flatten()
}

/// Deserializes an optional JSON integer of 64 bits, of at least 0.
pub(crate) fn optional_u64<'a, D: Deserializer<'a>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(deserializer)?;
    let read = |number: serde_json::Number| {
        number.as_u64().ok_or_else(|| {
            D::Error::custom(format_args!("`{number}` is no number of 64 bits from 0 on"))
        })
    };
    number.map(read).transpose()
}

/// Deserializes an integer of 64 bits.
///
/// Clients see the error, so unlike serde's it names no Rust type.
pub(crate) fn integer<'a, D: Deserializer<'a>>(deserializer: D) -> Result<i64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    number
        .as_i64()
        .ok_or_else(|| D::Error::custom(format_args!("`{number}` is no integer of 64 bits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_clamped() {
        for (text, number) in [
            ("1", 1),
            ("0000000000000000000007", 7),
            ("4294967295", u32::MAX),
            ("4294967296", u32::MAX),
            ("18446744073709551616", u32::MAX),
            (&"9".repeat(1000), u32::MAX),
        ] {
            assert_eq!(parse(text).map(NonZeroU32::get), Some(number), "{text}");
        }
        for text in [
            "", "0", "000", "-1", "+1", "1.0", "1e3", " 1", "1 ", "x", "٣",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn numbers_of_64_bits_are_exact() {
        assert_eq!(parse_u64("18446744073709551615"), Some(u64::MAX));
        for text in ["", "-1", "+1", "1.0", "18446744073709551616", "x", "٣"] {
            assert_eq!(parse_u64(text), None, "{text:?}");
        }
        fn read(text: &str) -> Option<Option<u64>> {
            optional_u64(&mut serde_json::Deserializer::from_str(text)).ok()
        }
        assert_eq!(read("null"), Some(None));
        assert_eq!(read("18446744073709551615"), Some(Some(u64::MAX)));
        for text in ["-1", "1.5", "\"1\"", "18446744073709551616"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn large_json_numbers_are_clamped() {
        fn read(text: &str) -> Option<Option<u32>> {
            deserialize(&mut serde_json::Deserializer::from_str(text)).ok()
        }
        assert_eq!(read("null"), Some(None));
        assert_eq!(read("0"), Some(Some(0)));
        for text in [
            "4294967295",
            "4294967296",
            "18446744073709551616",
            &"9".repeat(100),
        ] {
            assert_eq!(read(text), Some(Some(u32::MAX)), "{text}");
        }
        for text in ["-1", "1.5", "1.0", "\"1\"", "[]"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
