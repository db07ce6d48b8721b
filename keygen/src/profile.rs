//! What a certificate is for: a client or a server, and nothing else.
//!
//! The profile alone determines the subject, the names and the usages of a certificate, whoever
//! asks for it: `certs`, a request, or the certificate before it.

use std::fmt;

use ciphermq_crypto::ClientId;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};

/// The use of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// A client's certificate; the Common Name is its id.
    Client(ClientId),
    /// A server's certificate with these names, of which there is at least one.
    Server(Vec<SanType>),
}

impl Profile {
    /// Returns the parameters of such a certificate; its validity is left at rcgen's default.
    pub(crate) fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        let (common_name, usage) = match self {
            Self::Client(id) => (id.to_string(), ExtendedKeyUsagePurpose::ClientAuth),
            Self::Server(names) => {
                params.subject_alt_names.clone_from(names);
                let first = names.first().map(host).unwrap_or_default();
                (first, ExtendedKeyUsagePurpose::ServerAuth)
            }
        };
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params
    }
}

/// Formats as `the client sender_1` or `a server with the names localhost, 127.0.0.1`.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(id) => write!(f, "the client {id}"),
            Self::Server(names) => {
                write!(f, "a server with the names {}", hosts(names).join(", "))
            }
        }
    }
}

/// Returns the names of a server as text.
fn hosts(names: &[SanType]) -> Vec<String> {
    names.iter().map(host).collect()
}

fn host(name: &SanType) -> String {
    match name {
        SanType::DnsName(name) => name.to_string(),
        SanType::IpAddress(address) => address.to_string(),
        _ => String::new(),
    }
}
