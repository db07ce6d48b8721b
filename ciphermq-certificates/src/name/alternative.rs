//! DNS names and URIs among a certificate's alternative names (RFC 5280, section 4.2.1.6).
//!
//! A name has to be in its normal form, in which names that differ by capitals, escapes or dots
//! alone are the same: two clients could have names that mean the same otherwise.

use iri_string::types::UriStr;
use rustls_pki_types::DnsName;
use x509_parser::extensions::GeneralName;

use super::{NameError, NameField};

/// The tags of DNS names and URIs, for names that cannot be parsed.
const DNS_TAG: u32 = 2;
const URI_TAG: u32 = 6;

/// Returns the one name of the kind of `field`; `None` if there is none.
pub(super) fn read<'a>(
    names: &[GeneralName<'a>],
    field: NameField,
) -> Result<Option<&'a str>, NameError> {
    let mut found = Vec::new();
    for name in names {
        match (name, field) {
            (GeneralName::DNSName(name), NameField::Dns)
            | (GeneralName::URI(name), NameField::Uri) => found.push(*name),
            (GeneralName::Invalid(tag, _), NameField::Dns) if tag.0 == DNS_TAG => {
                return Err(NameError::UnreadableAlternatives);
            }
            (GeneralName::Invalid(tag, _), NameField::Uri) if tag.0 == URI_TAG => {
                return Err(NameError::UnreadableAlternatives);
            }
            _ => {}
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [name] => check(name, field).map(|()| Some(*name)),
        several => Err(NameError::Several {
            field,
            count: several.len(),
        }),
    }
}

pub(super) fn check(name: &str, field: NameField) -> Result<(), NameError> {
    let flaw = match field {
        NameField::Dns => dns_flaw(name),
        NameField::Uri => uri_flaw(name),
        NameField::CommonName => None,
    };
    flaw.map_or(Ok(()), |reason| Err(NameError::Spelling { field, reason }))
}

/// Returns why a DNS name cannot be a client id.
fn dns_flaw(name: &str) -> Option<&'static str> {
    if name.contains('*') {
        Some("names many")
    } else if DnsName::try_from(name).is_err() || name.ends_with('.') {
        Some("is not a whole DNS name without a dot at its end")
    } else if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Some("has capital letters, which DNS does not distinguish from others")
    } else {
        None
    }
}

/// Returns why a URI cannot be a client id.
fn uri_flaw(name: &str) -> Option<&'static str> {
    let Ok(uri) = UriStr::new(name) else {
        return Some("is not a URI with a scheme");
    };
    if uri.fragment_str().is_some() {
        Some("has a fragment")
    } else if !uri.is_normalized_rfc3986() {
        Some("is not in its normal form")
    } else if uri.scheme_str() == "spiffe" && !is_spiffe_id(uri) {
        Some("is not a SPIFFE id")
    } else {
        None
    }
}

/// Whether a URI of the scheme `spiffe` is an id of a workload (SPIFFE-ID, section 2): the name of
/// a trust domain, and a path of segments that are not empty.
fn is_spiffe_id(uri: &UriStr) -> bool {
    let is_domain_byte = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    let is_segment_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let domain = uri.authority_str().unwrap_or_default();
    let is_domain = !domain.is_empty() && domain.bytes().all(is_domain_byte);
    let Some(path) = uri.path_str().strip_prefix('/') else {
        return false;
    };
    let mut segments = path.split('/');
    let is_path =
        segments.all(|segment| !segment.is_empty() && segment.bytes().all(is_segment_byte));
    is_domain && is_path && uri.query_str().is_none()
}

/// Whether a text has the form of names in `field`, if names come from several fields.
pub(super) fn has_form(text: &str, field: NameField) -> bool {
    match field {
        NameField::CommonName => true,
        // One without a dot may well be a Common Name.
        NameField::Dns => {
            let name = text.trim_end_matches('.');
            name.contains('.') && DnsName::try_from(name).is_ok()
        }
        NameField::Uri => UriStr::new(text).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::asn1_rs::Tag;

    #[test]
    fn names_in_their_one_spelling_are_accepted() {
        for name in [
            "spiffe://example.org/sensor/7",
            "spiffe://example.org/Sensor_7.a-b",
            "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "https://example.org/a?b=c",
            "https://example.org/%C3%BC",
        ] {
            assert_eq!(uri_flaw(name), None, "{name}");
        }
        for name in ["archive", "sensor-7.example.org", "sensor_7.example.org"] {
            assert_eq!(dns_flaw(name), None, "{name}");
        }
    }

    #[test]
    fn other_spellings_of_a_name_are_refused() {
        for name in [
            "SPIFFE://example.org/a",
            "spiffe://Example.org/a",
            "spiffe://example.org/a/",
            "spiffe://example.org//a",
            "spiffe://example.org/",
            "spiffe://example.org",
            "spiffe:///a",
            "spiffe:a",
            "spiffe://example.org:80/a",
            "spiffe://user@example.org/a",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "spiffe://example.org/%41",
            "spiffe://example.org/a/../b",
            "spiffe://example.org/./b",
            "https://EXAMPLE.org/",
            "https://example.org/%7Ea",
            "https://example.org/%c3%bc",
            "https://example.org/a#",
            "sensor",
            "/sensor",
            "a b:c",
            "",
        ] {
            assert!(uri_flaw(name).is_some(), "{name}");
        }
        for name in [
            "Sensor.example.org",
            "sensor.example.org.",
            "*.example.org",
            "a b",
            "",
            "-a",
            "a..b",
            "192.0.2.1",
        ] {
            assert!(dns_flaw(name).is_some(), "{name}");
        }
    }

    #[test]
    fn several_names_and_unreadable_ones_are_refused() {
        let names = [
            GeneralName::DNSName("a.example.org"),
            GeneralName::URI("urn:a:b"),
            GeneralName::URI("urn:a:c"),
        ];
        assert_eq!(read(&names, NameField::Dns), Ok(Some("a.example.org")));
        assert_eq!(
            read(&names, NameField::Uri),
            Err(NameError::Several {
                field: NameField::Uri,
                count: 2
            })
        );
        assert_eq!(read(&names[..1], NameField::Uri), Ok(None));
        let unreadable = [
            GeneralName::URI("urn:a:b"),
            GeneralName::Invalid(Tag(URI_TAG), b"\xff"),
        ];
        assert_eq!(
            read(&unreadable, NameField::Uri),
            Err(NameError::UnreadableAlternatives)
        );
        assert_eq!(read(&unreadable, NameField::Dns), Ok(None));
    }
}
