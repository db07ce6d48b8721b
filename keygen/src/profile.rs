//! What a certificate is for: a client or a server, and nothing else.
//!
//! The profile alone determines the subject, the names and the usages of a certificate, whoever
//! asks for it: `certs`, a request, or the certificate before it.

use std::fmt;
use std::net::IpAddr;

use ciphermq_certificates::NameField;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use crate::client_name::ClientName;
use crate::names;

/// The use of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// A client's certificate.
    Client(ClientName),
    /// A server's certificate with these names, of which there is at least one.
    Server(Vec<SanType>),
}

impl Profile {
    /// Returns the profile of an existing certificate; `None` if it has none of them, or both.
    /// `field` holds a client's name; otherwise it must be clear which one does.
    pub(crate) fn of(certificate: &X509Certificate<'_>, field: Option<NameField>) -> Option<Self> {
        let mut uses = StatedUses::default();
        for extension in certificate.extensions() {
            uses.add(extension.parsed_extension());
        }
        if certificate.is_ca() || (uses.client && uses.server) {
            return None;
        }
        if !uses.is_server() {
            return ClientName::of(certificate, field).map(Self::Client);
        }
        let names = names::subject_alternative_names(&uses.hosts).ok()?;
        (!names.is_empty()).then_some(Self::Server(names))
    }

    /// Returns the field that holds a client's name.
    pub(crate) fn field(&self) -> Option<NameField> {
        match self {
            Self::Client(name) => Some(name.field()),
            Self::Server(_) => None,
        }
    }

    /// Returns whether both are for the same client, or for the same names in any order.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Client(one), Self::Client(other)) => one == other,
            (Self::Server(one), Self::Server(other)) => {
                one.len() == other.len() && one.iter().all(|name| other.contains(name))
            }
            _ => false,
        }
    }

    /// Returns the parameters of such a certificate; its validity is left at rcgen's default.
    pub(crate) fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        let usage;
        (params.distinguished_name, params.subject_alt_names) = match self {
            Self::Client(name) => {
                usage = ExtendedKeyUsagePurpose::ClientAuth;
                name.subject()?
            }
            Self::Server(names) => {
                usage = ExtendedKeyUsagePurpose::ServerAuth;
                let mut subject = DistinguishedName::new();
                let first = names.first().map(host).unwrap_or_default();
                subject.push(DnType::CommonName, first);
                (subject, names.clone())
            }
        };
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        Ok(params)
    }
}

/// Formats as `the client sender_1` or `a server with the names localhost, 127.0.0.1`.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(name) => write!(f, "the client {}", name.id()),
            Self::Server(names) => {
                write!(f, "a server with the names {}", hosts(names).join(", "))
            }
        }
    }
}

/// Returns the names of a server as text.
pub(crate) fn hosts(names: &[SanType]) -> Vec<String> {
    names.iter().map(host).collect()
}

fn host(name: &SanType) -> String {
    match name {
        SanType::DnsName(name) => name.to_string(),
        SanType::IpAddress(address) => address.to_string(),
        _ => String::new(),
    }
}

/// The uses that the extensions of a certificate or a request state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StatedUses {
    pub(crate) client: bool,
    pub(crate) server: bool,
    /// Host names and addresses.
    pub(crate) hosts: Vec<String>,
    /// URIs.
    pub(crate) uris: Vec<String>,
}

impl StatedUses {
    /// Takes over what an extension states; ignores those that state no use.
    pub(crate) fn add(&mut self, extension: &ParsedExtension<'_>) {
        match extension {
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.client |= usage.client_auth;
                self.server |= usage.server_auth;
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                let names = &names.general_names;
                self.hosts.extend(names.iter().filter_map(host_name));
                self.uris.extend(names.iter().filter_map(uri));
            }
            _ => {}
        }
    }

    /// Whether it is a server's: it says so, or has names of hosts and does not say otherwise.
    pub(crate) fn is_server(&self) -> bool {
        !self.client && (self.server || !self.hosts.is_empty())
    }
}

/// Returns a URI; `None` for a name of another kind.
pub(crate) fn uri(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    }
}

/// Returns an alternative name that servers have; `None` for one of another kind.
pub(crate) fn host_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            Some(address.ok()?.to_string())
        }
        _ => None,
    }
}
