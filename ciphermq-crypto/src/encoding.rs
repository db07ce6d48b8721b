//! Canonical encodings of authenticated data: base64, times and length-prefixed fields.

use base64::Engine as _;
use base64::engine::Simd;
use base64::engine::general_purpose::PAD;
use ciphermq_protocol::envelope::Encoded;
use jiff::Timestamp;
use jiff::civil::DateTime;

/// The engine for the standard alphabet. It uses the processor's vector instructions, since every
/// payload passes through it.
fn base64_engine() -> Simd {
    Simd::standard(PAD)
}

/// Decodes canonical base64 (RFC 4648, section 4: padded, no stray bits, no white space).
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    base64_engine().decode(text).ok()
}

/// Returns exactly `N` bytes of an envelope; `None` if there are fewer or more, or their base64 is
/// not canonical.
pub(crate) fn array<const N: usize>(encoded: &Encoded<'_>) -> Option<[u8; N]> {
    match encoded {
        Encoded::Base64(text) if text.len() != N.div_ceil(3) * 4 => None,
        encoded => encoded.bytes()?[..].try_into().ok(),
    }
}

/// Encodes base64 with padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    base64_engine().encode(bytes)
}

/// Appends base64 with padding.
pub(crate) fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // Infallible: the slice has exactly the length of the result.
    if let Some(space) = out.get_mut(start..) {
        let written = base64_engine().encode_slice(bytes, space);
        debug_assert_eq!(written.ok(), Some(bytes.len().div_ceil(3) * 4));
    }
}

/// Appends a text as a JSON string, with its quotation marks.
pub(crate) fn put_json(out: &mut Vec<u8>, text: &str) {
    // Infallible: serializing a string into memory.
    let written = serde_json::to_writer(out, text);
    debug_assert!(written.is_ok());
}

/// Appends a field after its length, 32 bits, big-endian.
pub(crate) fn put_field(out: &mut Vec<u8>, field: &[u8]) {
    // Fields are names, times, media types and hashes, far below the limit. A field beyond it gets
    // a length that no other field can have, so that it cannot collide with a shorter one.
    let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(field);
}

/// Formats a time as RFC 3339 in UTC with milliseconds: `2025-09-08T07:03:00.000Z`.
pub(crate) fn format_time(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// Parses exactly the form that [`format_time`] writes.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    const PATTERN: &[u8] = b"0000-00-00T00:00:00.000Z";
    let spelled = text.len() == PATTERN.len()
        && text
            .bytes()
            .zip(PATTERN)
            .all(|(byte, &pattern)| match pattern {
                b'0' => byte.is_ascii_digit(),
                _ => byte == pattern,
            });
    // jiff reads a leap second as the second before it.
    if !spelled || text.get(17..19) == Some("60") {
        return None;
    }
    // jiff's timestamps end 26 hours before the end of the year 9999, which is the expiry of
    // certificates without one.
    let is_date = || text.get(..23)?.parse::<DateTime>().ok();
    text.parse()
        .ok()
        .or_else(|| is_date().map(|_| Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_base64_is_decoded() {
        assert_eq!(decode("YQ=="), Some(b"a".to_vec()));
        for text in ["YQ", "YQ=", "YR==", "YQ==\n", " YQ==", "Y-==", "YQ==YQ=="] {
            assert_eq!(decode(text), None, "{text:?}");
        }
        let mut out = b"x".to_vec();
        put_base64(&mut out, b"a");
        put_base64(&mut out, b"");
        put_base64(&mut out, b"abcd");
        assert_eq!(out, b"xYQ==YWJjZA==");
    }

    #[test]
    fn only_canonical_times_are_parsed() {
        let time = Timestamp::from_millisecond(1_757_314_980_007).unwrap();
        assert_eq!(format_time(time), "2025-09-08T07:03:00.007Z");
        assert_eq!(
            format_time(Timestamp::UNIX_EPOCH),
            "1970-01-01T00:00:00.000Z"
        );
        // Truncated, not rounded: a message must not be sealed later than now.
        assert_eq!(
            format_time(Timestamp::from_nanosecond(1_999_999).unwrap()),
            "1970-01-01T00:00:00.001Z"
        );
        assert_eq!(parse_time("2025-09-08T07:03:00.007Z"), Some(time));
        assert_eq!(parse_time("9999-12-31T23:59:59.999Z"), Some(Timestamp::MAX));
        assert!(parse_time("9999-12-30T22:00:00.999Z").is_some_and(|time| time < Timestamp::MAX));
        assert!(
            parse_time("0000-01-01T00:00:00.000Z").is_some_and(|time| time < Timestamp::UNIX_EPOCH)
        );
        for text in [
            "2025-09-08T07:03:00Z",
            "2025-09-08T07:03:00.0070Z",
            "2025-09-08t07:03:00.007z",
            "2025-09-08 07:03:00.007Z",
            "2025-09-08T07:03:00.007+00:00",
            "2025-09-08T09:03:00.007+02:00",
            "2025-09-08T07:03:00,007Z",
            "2025-13-08T07:03:00.007Z",
            "2025-09-08T07:03:60.007Z",
            "2025-09-08T24:03:00.007Z",
            "2025-02-29T00:00:00.000Z",
            "9999-12-32T00:00:00.000Z",
            "+999999-01-01T00:00:00.0Z",
            "-025-09-08T07:03:00.007Z",
            "",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn arrays_of_another_length_are_refused() {
        assert_eq!(array(&"AAECAw==".into()), Some([0, 1, 2, 3]));
        assert_eq!(array(&"AAECAwQF".into()), Some([0, 1, 2, 3, 4, 5]));
        for text in ["AAEC", "AAECAwQ=", "AAECAwQF", "AAECAx==", "AAECAw=", ""] {
            assert_eq!(array::<4>(&text.into()), None, "{text:?}");
        }
    }

    #[test]
    fn length_prefixes_separate_fields() {
        let mut one = Vec::new();
        put_field(&mut one, b"ab");
        put_field(&mut one, b"c");
        let mut other = Vec::new();
        put_field(&mut other, b"a");
        put_field(&mut other, b"bc");
        assert_eq!(one, b"\0\0\0\x02ab\0\0\0\x01c");
        assert_ne!(one, other);
    }
}
