//! Whose a client's certificate is.

use ciphermq_protocol::ClientId;
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;

/// Why a certificate names no client: what stands after "the certificate".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It has no Common Name.
    #[error("has no Common Name")]
    None,
    /// It has more than one Common Name.
    #[error("has {0} Common Names, it must have one")]
    Several(usize),
    /// The Common Name is not what its type of string says.
    #[error("has a Common Name that cannot be read: it is no {0}")]
    Unreadable(&'static str),
    /// The Common Name has letters that different programs read differently.
    #[error("has a Common Name with letters beyond ASCII in a T61String, which has no one reading")]
    Ambiguous,
    /// The Common Name is of a type that no name has.
    #[error("has a Common Name that is no string")]
    NoString,
    /// The Common Name is no name of the protocol.
    #[error("has a Common Name that cannot be a client id: {0}")]
    Invalid(#[from] ciphermq_protocol::name::NameError),
}

impl NameError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::None | Self::Several(_) => {
                "Issue a certificate with exactly one Common Name: it is the client id. `keygen \
                 certs --client ID` does."
            }
            Self::Unreadable(_) | Self::Ambiguous | Self::NoString => {
                "Issue a certificate whose Common Name is a UTF8String, as `keygen certs` and \
                 current versions of OpenSSL do (`string_mask = utf8only`)."
            }
            Self::Invalid(_) => {
                "Issue a certificate whose one Common Name can be a client id: 1 to 255 bytes, \
                 without spaces and control characters."
            }
        }
    }
}

/// Whose a client's certificate is: its one Common Name, whatever type of string that is (RFC 5280,
/// section 4.1.2.4).
///
/// # Errors
///
/// [`NameError`] if it names no client.
pub fn client_id(certificate: &X509Certificate<'_>) -> Result<ClientId, NameError> {
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().ok_or(NameError::None)?;
    match names.count() {
        0 => {}
        more => return Err(NameError::Several(more + 1)),
    }
    let value = name.attr_value();
    Ok(ClientId::new(&text(value.tag(), value.data)?)?)
}

/// Reads a string of one of X.520's types, with exactly one reading for every one.
fn text(tag: Tag, bytes: &[u8]) -> Result<String, NameError> {
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
        // Beyond ASCII some read it as T.61, others as Latin-1: it would name two clients.
        Tag::T61String => ascii("T61String").map_err(|_| NameError::Ambiguous),
        Tag::BmpString => utf16(bytes).ok_or(NameError::Unreadable("BMPString")),
        Tag::UniversalString => utf32(bytes).ok_or(NameError::Unreadable("UniversalString")),
        _ => Err(NameError::NoString),
    }
}

/// Two bytes a letter, big-endian. A BMPString has no surrogates.
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

/// Four bytes a letter, big-endian.
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
    fn every_type_of_string_has_one_reading() {
        for (tag, bytes, read) in [
            (Tag::Utf8String, "Zürich".as_bytes(), "Zürich"),
            (Tag::PrintableString, b"receiver-1", "receiver-1"),
            (Tag::Ia5String, b"a@b", "a@b"),
            (Tag::NumericString, b"17", "17"),
            (Tag::T61String, b"receiver_1", "receiver_1"),
            (Tag::BmpString, b"\0Z\0\xfc\0r\x21\x92", "Zür→"),
            (Tag::UniversalString, b"\0\0\0Z\0\x01\xf6\x00", "Z😀"),
        ] {
            assert_eq!(text(tag, bytes).as_deref(), Ok(read), "{tag}");
        }
    }

    #[test]
    fn what_has_no_one_reading_is_refused() {
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
            (Tag::OctetString, b"a", NameError::NoString),
        ] {
            assert_eq!(text(tag, bytes), Err(error), "{tag}");
        }
    }
}
