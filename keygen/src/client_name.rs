//! A client's name, and the field of its certificate that holds it.

use std::path::{Path, PathBuf};

use ciphermq_certificates::{ClientIdFrom, NameError as FieldError, NameField};
use ciphermq_crypto::ClientId;
use ciphermq_files::{encode_name, fit_name};
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use rcgen::{DistinguishedName, DnType, SanType};
use x509_parser::certificate::X509Certificate;

use crate::error::Error;
use crate::names::{self, NameError};

/// A client's name, and the field of its certificate that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientName {
    id: ClientId,
    field: NameField,
}

impl ClientName {
    /// Validates a name for a field. Its folder's name follows from it, so a Common Name and a DNS
    /// name must be able to be one; a URI's is encoded.
    ///
    /// # Errors
    ///
    /// [`NameError`].
    pub fn new(text: &str, field: NameField) -> Result<Self, NameError> {
        let unusable = |reason| NameError::Field {
            name: text.to_owned(),
            reason,
        };
        field.check(text).map_err(unusable)?;
        let id = match field {
            NameField::CommonName | NameField::Dns => names::client(text)?,
            NameField::Uri => names::client_id(text)?,
        };
        Ok(Self { id, field })
    }

    /// Returns the client that a field of a certificate names: the given one, or the only one that
    /// it has of Common Name and URI, or a DNS name. `None` if it names none, or may name two.
    pub(crate) fn of(certificate: &X509Certificate<'_>, field: Option<NameField>) -> Option<Self> {
        let has = |field| !matches!(read(certificate, field), Err(FieldError::None(_)));
        let field = field.or_else(|| match (has(NameField::CommonName), has(NameField::Uri)) {
            (true, true) => None,
            (true, false) => Some(NameField::CommonName),
            (false, true) => Some(NameField::Uri),
            (false, false) => Some(NameField::Dns),
        })?;
        let id = read(certificate, field).ok()?;
        Some(Self { id, field })
    }

    /// Returns the field of the certificate that holds the name.
    #[must_use]
    pub fn field(&self) -> NameField {
        self.field
    }

    /// Parses a name on the command line whose field is not said: a URI is recognizable.
    pub(crate) fn recognize(text: &str) -> Result<Self, NameError> {
        match NameField::Uri.check(text) {
            Ok(()) => Self::new(text, NameField::Uri),
            Err(_) => Self::new(text, NameField::CommonName),
        }
    }

    /// Returns the client's id.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.id
    }

    /// Checks a name that was found in a certificate: it becomes the name of a folder.
    pub(crate) fn check(&self) -> Result<(), NameError> {
        Self::new(self.id.as_str(), self.field).map(drop)
    }

    /// Returns the client's folder in `folder`.
    pub(crate) fn folder(&self, folder: &Path) -> PathBuf {
        match self.field {
            NameField::CommonName | NameField::Dns => folder.join(self.id.as_str()),
            NameField::Uri => folder.join(fit_name(folder, encode_name(self.id.as_str()), "")),
        }
    }

    /// Returns the subject and the alternative names of the client's certificate.
    pub(crate) fn subject(&self) -> Result<(DistinguishedName, Vec<SanType>), rcgen::Error> {
        let mut subject = DistinguishedName::new();
        let name = self.id.as_str();
        let alternatives = match self.field {
            NameField::CommonName => {
                subject.push(DnType::CommonName, name);
                Vec::new()
            }
            NameField::Dns => vec![SanType::DnsName(name.try_into()?)],
            NameField::Uri => vec![SanType::URI(name.try_into()?)],
        };
        Ok((subject, alternatives))
    }

    /// Whether a certificate names this client, in whichever field.
    pub(crate) fn is_in(&self, certificate: &X509Certificate<'_>) -> bool {
        let mut fields = NameField::ALL.into_iter();
        fields.any(|field| read(certificate, field).as_ref() == Ok(&self.id))
    }

    /// Whether a certificate names this client in the same field.
    pub(crate) fn is_of(&self, certificate: &X509Certificate<'_>) -> bool {
        Self::of(certificate, Some(self.field)).as_ref() == Some(self)
    }
}

fn read(certificate: &X509Certificate<'_>, field: NameField) -> Result<ClientId, FieldError> {
    ClientIdFrom::only(field).client_id(certificate)
}

/// Whether a certificate has a name in two fields that may hold a client's.
pub(crate) fn has_two_names(certificate: &X509Certificate<'_>) -> bool {
    let mut fields = [NameField::CommonName, NameField::Uri].into_iter();
    fields.all(|field| !matches!(read(certificate, field), Err(FieldError::None(_))))
}

/// The argument that says which field holds a client's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct FieldArg {
    /// The field of the certificate that holds the client's name, as the server's and the clients'
    /// `client_id_from` expect it [default: common_name]
    #[arg(long, value_name = "FIELD", value_parser = field_parser())]
    pub client_id_in: Option<NameField>,
}

impl FieldArg {
    /// Validates a client's name for the field.
    pub(crate) fn name(self, text: &str) -> Result<ClientName, Error> {
        let field = self.client_id_in.unwrap_or(NameField::CommonName);
        Ok(ClientName::new(text, field)?)
    }
}

fn field_parser() -> impl clap::builder::TypedValueParser<Value = NameField> {
    PossibleValuesParser::new(NameField::ALL.map(NameField::as_str))
        .try_map(|field| field.parse::<NameField>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_has_its_rule_and_folder() {
        let folder = |text: &str, field| {
            let name = ClientName::new(text, field).ok()?;
            Some(name.folder(Path::new("certs")).display().to_string())
        };
        assert_eq!(
            folder("sensor_7", NameField::CommonName).as_deref(),
            Some("certs/sensor_7")
        );
        assert_eq!(
            folder("sensor-7.example.org", NameField::Dns).as_deref(),
            Some("certs/sensor-7.example.org")
        );
        assert_eq!(
            folder("spiffe://example.org/sensor/7", NameField::Uri).as_deref(),
            Some("certs/spiffe%3a%2f%2fexample.org%2fsensor%2f7")
        );
        for (text, field) in [
            ("spiffe://example.org/sensor/7", NameField::CommonName),
            ("Sensor.example.org", NameField::Dns),
            ("sensor 7", NameField::Dns),
            ("spiffe://Example.org/sensor", NameField::Uri),
            ("sensor", NameField::Uri),
        ] {
            assert!(ClientName::new(text, field).is_err(), "{text}");
        }
    }
}
