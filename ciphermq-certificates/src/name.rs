//! The client that a certificate names.

use ciphermq_protocol::ClientId;
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::X509Name;

/// The reason why a certificate names no client; the text continues "the certificate".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is no Common Name.
    #[error("has no Common Name")]
    None,
    /// There is more than one Common Name.
    #[error("has {0} Common Names, it must have one")]
    Several(usize),
    /// The Common Name is not valid in its string type.
    #[error("has a Common Name that cannot be read: it is not a valid {0}")]
    Unreadable(&'static str),
    /// The Common Name has characters that programs decode differently.
    #[error(
        "has a Common Name with characters beyond ASCII in a T61String, which programs decode \
         differently"
    )]
    Ambiguous,
    /// The Common Name is not of a string type.
    #[error("has a Common Name that is not a string")]
    NotString,
    /// The Common Name breaks the protocol's rule for names.
    #[error("has a Common Name that cannot be a client id: {0}")]
    Invalid(#[from] ciphermq_protocol::name::NameError),
}

impl NameError {
    /// Returns advice for the issuer of certificates.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::None | Self::Several(_) => {
                "Issue a certificate with exactly one Common Name, which is the client id, for \
                 example with `keygen certs --client ID`."
            }
            Self::Unreadable(_) | Self::Ambiguous | Self::NotString => {
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

/// Returns the client that a certificate names: its one Common Name, of any string type (RFC 5280,
/// section 4.1.2.4).
///
/// # Errors
///
/// [`NameError`] if it names no client.
pub fn client_id(certificate: &X509Certificate<'_>) -> Result<ClientId, NameError> {
    client_id_of(certificate.subject())
}

/// Returns the client that a subject names, of a certificate or of a request for one.
///
/// # Errors
///
/// [`NameError`] if it names no client.
pub fn client_id_of(subject: &X509Name<'_>) -> Result<ClientId, NameError> {
    let mut names = subject.iter_common_name();
    let name = names.next().ok_or(NameError::None)?;
    match names.count() {
        0 => {}
        more => return Err(NameError::Several(more + 1)),
    }
    let value = name.attr_value();
    Ok(ClientId::new(&decode(value.tag(), value.data)?)?)
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
