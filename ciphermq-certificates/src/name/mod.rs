//! The client that a certificate names.
//!
//! - `client_id_from`: the fields that may hold a client id, and their order
//! - `common_name`: the Common Name of the subject
//! - `alternative`: DNS names and URIs among the subject's alternative names

mod alternative;
mod client_id_from;
mod common_name;

pub use client_id_from::{ClientIdFrom, ClientIdFromError, NameField};

/// The reason why a certificate names no client; the text continues "the certificate".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// None of the fields is there.
    #[error("has no {}", .0.fields_in_words())]
    None(ClientIdFrom),
    /// A field is there more than once.
    #[error("has {count} {field}s, it must have one")]
    Several {
        /// The field.
        field: NameField,
        /// The number of its values.
        count: usize,
    },
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
    /// The alternative names cannot be parsed.
    #[error("has alternative names that cannot be read")]
    UnreadableAlternatives,
    /// An alternative name has another spelling with the same meaning, or names many.
    #[error("has a {field} that cannot be a client id: it {reason}")]
    Spelling {
        /// The field.
        field: NameField,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A field holds what could be the name of a client in another field.
    #[error("has a {field} that could be another client's {other}")]
    OtherForm {
        /// The field.
        field: NameField,
        /// The field that such names belong in.
        other: NameField,
    },
    /// The name breaks the protocol's rule for names.
    #[error("has a {field} that cannot be a client id: {reason}")]
    Invalid {
        /// The field.
        field: NameField,
        /// The violated rule.
        reason: ciphermq_protocol::name::NameError,
    },
}

impl NameError {
    /// Returns advice for the issuer of certificates.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::None(from) if *from == ClientIdFrom::default() => {
                "Issue a certificate with exactly one Common Name, which is the client id, for \
                 example with `keygen certs --client ID`."
            }
            Self::None(_) => {
                "Issue a certificate that has one of them, for example with `keygen certs --client \
                 ID --client-id-in FIELD`, or see to `client_id_from`: it must be the same at the \
                 server and at all clients."
            }
            Self::Several {
                field: NameField::CommonName,
                ..
            } => {
                "Issue a certificate with exactly one Common Name, which is the client id, for \
                 example with `keygen certs --client ID`."
            }
            Self::Several { .. } => {
                "Issue a certificate with exactly one such alternative name, which is the client \
                 id, for example with `keygen certs --client ID --client-id-in FIELD`."
            }
            Self::Unreadable(_) | Self::Ambiguous | Self::NotString => {
                "Issue a certificate whose Common Name is a UTF8String, as `keygen certs` and \
                 current versions of OpenSSL do (`string_mask = utf8only`)."
            }
            Self::UnreadableAlternatives => "Issue a new certificate.",
            Self::Spelling {
                field: NameField::Dns,
                ..
            } => {
                "Issue a certificate with one DNS name in lower case, without `*` and without a \
                 dot at its end."
            }
            Self::Spelling { .. } => {
                "Issue a certificate with one URI in its normal form (RFC 3986, section 6.2.2), \
                 for example spiffe://example.org/sensor/7."
            }
            Self::OtherForm { .. } => {
                "Issue a certificate that has the name in that field, or one with a Common Name \
                 that is neither a URI nor a DNS name with a dot: where names come from several \
                 fields, each must show which one it is from."
            }
            Self::Invalid {
                field: NameField::CommonName,
                ..
            } => {
                "Issue a certificate whose one Common Name can be a client id: 1 to 255 bytes, \
                 without spaces and control characters."
            }
            Self::Invalid { .. } => {
                "Issue a certificate with a name that can be a client id: 1 to 255 bytes."
            }
        }
    }
}
