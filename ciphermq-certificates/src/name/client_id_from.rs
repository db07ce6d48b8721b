//! The fields of a certificate that may hold a client id.

use std::fmt;
use std::str::FromStr;

use ciphermq_protocol::ClientId;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::X509Name;

use super::{NameError, alternative, common_name};

/// A field of a certificate that may hold a client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameField {
    /// The Common Name of the subject.
    CommonName,
    /// A DNS name among the subject's alternative names.
    Dns,
    /// A URI among the subject's alternative names.
    Uri,
}

impl NameField {
    /// All fields.
    pub const ALL: [Self; 3] = [Self::CommonName, Self::Dns, Self::Uri];

    /// Returns its name in configurations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CommonName => "common_name",
            Self::Dns => "dns",
            Self::Uri => "uri",
        }
    }

    /// Checks that a name is in the one spelling that the field accepts. A Common Name is not
    /// checked: it only has to be a client id.
    ///
    /// # Errors
    ///
    /// [`NameError::Spelling`].
    pub fn check(self, name: &str) -> Result<(), NameError> {
        alternative::check(name, self)
    }
}

/// Formats as `Common Name`, `DNS name` or `URI`, for people.
impl fmt::Display for NameField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommonName => "Common Name",
            Self::Dns => "DNS name",
            Self::Uri => "URI",
        })
    }
}

impl FromStr for NameField {
    type Err = ClientIdFromError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut all = Self::ALL.into_iter();
        all.find(|field| field.as_str() == text)
            .ok_or_else(|| ClientIdFromError::Unknown(text.to_owned()))
    }
}

/// The fields of a certificate that its client id is taken from, in order: the first one that the
/// certificate has decides.
///
/// The server and all clients must use the same ones. The default is the Common Name alone.
///
/// With several fields, the names of each are recognizable, so that nobody gets the name of another
/// client by having it put into another field: a URI has a scheme, a DNS name has a dot, and a
/// Common Name is neither of those that are among the fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientIdFrom {
    /// The fields in order, without gaps.
    fields: [Option<NameField>; NameField::ALL.len()],
}

/// The reason why a list of fields cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientIdFromError {
    /// There is no such field.
    #[error("`{}` is unknown", ciphermq_protocol::text::shown(.0))]
    Unknown(String),
    /// There is none.
    #[error("it names no field")]
    Empty,
    /// One is there twice.
    #[error("`{}` is there twice", .0.as_str())]
    Twice(NameField),
}

impl ClientIdFromError {
    /// Returns what to write instead.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        "Write \"common_name\", \"dns\" or \"uri\", or a list of them, each once."
    }
}

impl Default for ClientIdFrom {
    fn default() -> Self {
        Self::only(NameField::CommonName)
    }
}

impl ClientIdFrom {
    /// Takes client ids from one field.
    #[must_use]
    pub const fn only(field: NameField) -> Self {
        Self {
            fields: [Some(field), None, None],
        }
    }

    /// Takes client ids from the first of these fields that a certificate has.
    ///
    /// # Errors
    ///
    /// [`ClientIdFromError`] if there is none, or one is there twice.
    pub fn new(fields: impl IntoIterator<Item = NameField>) -> Result<Self, ClientIdFromError> {
        let mut from = Self {
            fields: Default::default(),
        };
        for field in fields {
            if from.fields().any(|known| known == field) {
                return Err(ClientIdFromError::Twice(field));
            }
            if let Some(free) = from.fields.iter_mut().find(|known| known.is_none()) {
                *free = Some(field);
            }
        }
        match from.fields().next() {
            Some(_) => Ok(from),
            None => Err(ClientIdFromError::Empty),
        }
    }

    /// Returns the fields in order.
    pub fn fields(&self) -> impl Iterator<Item = NameField> {
        self.fields.into_iter().flatten()
    }

    /// Returns the client that a certificate names.
    ///
    /// # Errors
    ///
    /// [`NameError`] if it names no client.
    pub fn client_id(&self, certificate: &X509Certificate<'_>) -> Result<ClientId, NameError> {
        if !self.reads_alternatives() {
            return self.client_id_of(certificate.subject(), &[]);
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| NameError::UnreadableAlternatives)?;
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        self.client_id_of(certificate.subject(), names)
    }

    /// Returns the client that a subject and its alternative names name, of a certificate or of a
    /// request for one.
    ///
    /// # Errors
    ///
    /// [`NameError`] if they name no client.
    pub fn client_id_of(
        &self,
        subject: &X509Name<'_>,
        alternatives: &[GeneralName<'_>],
    ) -> Result<ClientId, NameError> {
        for field in self.fields() {
            let name = match field {
                NameField::CommonName => common_name::read(subject)?,
                NameField::Dns | NameField::Uri => {
                    alternative::read(alternatives, field)?.map(str::to_owned)
                }
            };
            if let Some(name) = name {
                self.check_form(&name, field)?;
                return ClientId::new(&name).map_err(|reason| NameError::Invalid { field, reason });
            }
        }
        Err(NameError::None(*self))
    }

    /// Refuses a name that could be from another one of the fields.
    fn check_form(&self, name: &str, field: NameField) -> Result<(), NameError> {
        let mut others = self.fields().filter(|other| *other != field);
        let other = match field {
            NameField::CommonName => others.find(|other| alternative::has_form(name, *other)),
            // Without a dot it could be a Common Name.
            NameField::Dns if !name.contains('.') => {
                others.find(|other| *other == NameField::CommonName)
            }
            // A DNS name has no colon, and a URI has one.
            NameField::Dns | NameField::Uri => None,
        };
        other.map_or(Ok(()), |other| Err(NameError::OtherForm { field, other }))
    }

    fn reads_alternatives(&self) -> bool {
        self.fields().any(|field| field != NameField::CommonName)
    }

    /// Returns the fields for people: `URI and no Common Name`.
    pub(super) fn fields_in_words(&self) -> String {
        let words: Vec<String> = self.fields().map(|field| field.to_string()).collect();
        words.join(" and no ")
    }
}

/// Formats as the list that [`FromStr`] reads: `uri,common_name`.
impl fmt::Display for ClientIdFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.fields().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{}", field.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClientIdFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientIdFrom({self})")
    }
}

/// Parses a list that is separated by commas, such as `uri,common_name`.
impl FromStr for ClientIdFrom {
    type Err = ClientIdFromError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Err(ClientIdFromError::Empty);
        }
        let fields = text.split(',').map(|field| field.trim().parse());
        Self::new(fields.collect::<Result<Vec<_>, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
    use x509_parser::prelude::FromDer as _;

    fn from(text: &str) -> ClientIdFrom {
        text.parse().unwrap()
    }

    fn certificate(common_names: &[&str], dns: &[&str], uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (index, name) in common_names.iter().enumerate() {
            let kind = match index {
                0 => DnType::CommonName,
                // rcgen has one value of each kind.
                _ => DnType::CustomDnType(vec![2, 5, 4, 3]),
            };
            params.distinguished_name.push(kind, *name);
        }
        let dns = dns
            .iter()
            .map(|name| SanType::DnsName((*name).try_into().unwrap()));
        let uris = uris
            .iter()
            .map(|name| SanType::URI((*name).try_into().unwrap()));
        params.subject_alt_names = dns.chain(uris).collect();
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn read(from: &str, der: &[u8]) -> Result<String, NameError> {
        let (_, certificate) = X509Certificate::from_der(der).unwrap();
        let id = self::from(from).client_id(&certificate)?;
        Ok(id.as_str().to_owned())
    }

    #[test]
    fn lists_of_fields_are_read_and_written() {
        for text in [
            "common_name",
            "dns",
            "uri",
            "uri,common_name",
            "dns,uri,common_name",
        ] {
            assert_eq!(from(text).to_string(), text);
        }
        assert_eq!(from(" uri , dns ").to_string(), "uri,dns");
        assert_eq!(ClientIdFrom::default(), from("common_name"));
        for (text, error) in [
            ("", ClientIdFromError::Empty),
            (" ", ClientIdFromError::Empty),
            ("uri,", ClientIdFromError::Unknown(String::new())),
            ("URI", ClientIdFromError::Unknown("URI".to_owned())),
            ("uri,uri", ClientIdFromError::Twice(NameField::Uri)),
            (
                "uri,dns,common_name,dns",
                ClientIdFromError::Twice(NameField::Dns),
            ),
        ] {
            assert_eq!(text.parse::<ClientIdFrom>(), Err(error), "{text}");
        }
    }

    #[test]
    fn the_first_field_that_is_there_decides() {
        let uri = "spiffe://example.org/sensor/7";
        let all = certificate(&["sensor_7"], &["sensor-7.example.org"], &[uri]);
        for (from, id) in [
            ("common_name", "sensor_7"),
            ("dns", "sensor-7.example.org"),
            ("uri", uri),
            ("uri,common_name", uri),
            ("common_name,uri", "sensor_7"),
            ("dns,uri", "sensor-7.example.org"),
        ] {
            assert_eq!(read(from, &all).as_deref(), Ok(id), "{from}");
        }
        let older = certificate(&["sensor_7"], &[], &[]);
        assert_eq!(read("uri,common_name", &older).as_deref(), Ok("sensor_7"));
        assert_eq!(
            read("uri,dns", &older),
            Err(NameError::None(from("uri,dns")))
        );
        let nameless = certificate(&[], &[], &[uri]);
        assert_eq!(read("uri", &nameless).as_deref(), Ok(uri));
        assert_eq!(
            read("common_name", &nameless).unwrap_err().to_string(),
            "has no Common Name"
        );
        let error = NameError::None(from("uri,common_name"));
        assert_eq!(error.to_string(), "has no URI and no Common Name");
    }

    /// A name in the wrong field would be that of somebody else.
    #[test]
    fn what_could_be_two_clients_is_refused() {
        for (from, common_name, other) in [
            (
                "uri,common_name",
                "spiffe://example.org/sensor/7",
                NameField::Uri,
            ),
            (
                "common_name,uri",
                "SPIFFE://example.org/sensor/7",
                NameField::Uri,
            ),
            ("uri,common_name", "urn:a", NameField::Uri),
            ("dns,common_name", "sensor.example.org", NameField::Dns),
            ("dns,common_name", "Sensor.example.org.", NameField::Dns),
        ] {
            let error = NameError::OtherForm {
                field: NameField::CommonName,
                other,
            };
            let der = certificate(&[common_name], &[], &[]);
            assert_eq!(read(from, &der), Err(error), "{common_name}");
            assert_eq!(read("common_name", &der).as_deref(), Ok(common_name));
        }
        let archive = certificate(&["x"], &["archive"], &[]);
        assert_eq!(read("dns", &archive).as_deref(), Ok("archive"));
        assert_eq!(read("dns,uri", &archive).as_deref(), Ok("archive"));
        assert_eq!(
            read("dns,common_name", &archive),
            Err(NameError::OtherForm {
                field: NameField::Dns,
                other: NameField::CommonName
            })
        );
        // What is in a field that counts and cannot be used is not passed over.
        for (dns, uris) in [
            (vec![], vec!["urn:a:b", "urn:a:c"]),
            (vec![], vec!["spiffe://Example.org/a"]),
        ] {
            let der = certificate(&["sensor_7"], &dns, &uris);
            assert!(read("uri,common_name", &der).is_err());
            assert_eq!(read("common_name", &der).as_deref(), Ok("sensor_7"));
        }
        let der = certificate(&["sensor_7"], &["a.example.org", "b.example.org"], &[]);
        assert!(read("dns,common_name", &der).is_err());
    }

    #[test]
    fn a_name_must_be_a_client_id() {
        let long = format!("urn:a:{}", "x".repeat(255));
        let der = certificate(&[], &[], &[&long]);
        assert!(matches!(
            read("uri", &der),
            Err(NameError::Invalid {
                field: NameField::Uri,
                ..
            })
        ));
        let two = certificate(&["a", "b"], &[], &[]);
        assert_eq!(
            read("common_name", &two).unwrap_err().to_string(),
            "has 2 Common Names, it must have one"
        );
    }
}
