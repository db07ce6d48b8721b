//! The Common Name of a certificate's subject.

use x509_parser::asn1_rs::Tag;
use x509_parser::x509::X509Name;

use super::{NameError, NameField};

/// Returns the one Common Name of a subject, of any string type (RFC 5280, section 4.1.2.4);
/// `None` if there is none.
pub(super) fn read(subject: &X509Name<'_>) -> Result<Option<String>, NameError> {
    let mut names = subject.iter_common_name();
    let Some(name) = names.next() else {
        return Ok(None);
    };
    let more = names.count();
    if more > 0 {
        return Err(NameError::Several {
            field: NameField::CommonName,
            count: more + 1,
        });
    }
    let value = name.attr_value();
    decode(value.tag(), value.data).map(Some)
}

/// Decodes a string of one of X.520's types, unambiguously.
fn decode(tag: Tag, bytes: &[u8]) -> Result<String, NameError> {
    let ascii = |name| {
        bytes
            .is_ascii()
            .then(|| bytes.iter().copied().map(char::from).collect())
            .ok_or(NameError::Unreadable(name))
    };
    match tag {
        Tag::Utf8String => {
            String::from_utf8(bytes.to_vec()).map_err(|_| NameError::Unreadable("UTF8String"))
        }
        Tag::PrintableString => ascii("PrintableString"),
        Tag::Ia5String => ascii("IA5String"),
        Tag::NumericString => ascii("NumericString"),
        Tag::VisibleString => ascii("VisibleString"),
        // Beyond ASCII, some programs decode it as T.61 and others as Latin-1: it would name two
        // clients.
        Tag::T61String => ascii("T61String").map_err(|_| NameError::Ambiguous),
        Tag::BmpString => utf16(bytes).ok_or(NameError::Unreadable("BMPString")),
        Tag::UniversalString => utf32(bytes).ok_or(NameError::Unreadable("UniversalString")),
        _ => Err(NameError::NotString),
    }
}

/// Decodes two bytes per character, big-endian. A BMPString has no surrogates.
fn utf16(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    units
        .iter()
        .map(|unit| char::from_u32(u32::from(u16::from_be_bytes(*unit))))
        .collect()
}

/// Decodes four bytes per character, big-endian.
fn utf32(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    units
        .iter()
        .map(|unit| char::from_u32(u32::from_be_bytes(*unit)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_type_is_decoded() {
        for (tag, bytes, read) in [
            (Tag::Utf8String, "Zürich".as_bytes(), "Zürich"),
            (Tag::PrintableString, b"receiver-1", "receiver-1"),
            (Tag::Ia5String, b"a@b", "a@b"),
            (Tag::NumericString, b"17", "17"),
            (Tag::T61String, b"receiver_1", "receiver_1"),
            (Tag::BmpString, b"\0Z\0\xfc\0r\x21\x92", "Zür→"),
            (Tag::UniversalString, b"\0\0\0Z\0\x01\xf6\x00", "Z😀"),
        ] {
            assert_eq!(decode(tag, bytes).as_deref(), Ok(read), "{tag}");
        }
    }

    #[test]
    fn invalid_and_ambiguous_strings_are_refused() {
        for (tag, bytes, error) in [
            (
                Tag::Utf8String,
                &b"Z\xfcrich"[..],
                NameError::Unreadable("UTF8String"),
            ),
            (
                Tag::PrintableString,
                b"\xfc",
                NameError::Unreadable("PrintableString"),
            ),
            (Tag::Ia5String, b"\xe4", NameError::Unreadable("IA5String")),
            (Tag::T61String, b"Z\xfcrich", NameError::Ambiguous),
            (Tag::BmpString, b"\0a\0", NameError::Unreadable("BMPString")),
            // A surrogate pair is UTF-16, which a BMPString is not.
            (
                Tag::BmpString,
                b"\xd8\x3d\xde\x00",
                NameError::Unreadable("BMPString"),
            ),
            (
                Tag::UniversalString,
                b"\0\x11\0\0",
                NameError::Unreadable("UniversalString"),
            ),
            (
                Tag::UniversalString,
                b"\0\0\0a\0",
                NameError::Unreadable("UniversalString"),
            ),
            (Tag::OctetString, b"a", NameError::NotString),
        ] {
            assert_eq!(decode(tag, bytes), Err(error), "{tag}");
        }
    }
}
