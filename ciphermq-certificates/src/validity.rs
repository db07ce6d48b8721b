//! The validity period of a certificate.

use jiff::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The subject and the validity period of a certificate of an authority or a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// The subject as text: `CN=CipherMQ CA`; if it is empty, the first URI or DNS name.
    pub subject: String,
    /// The first second of its validity.
    pub not_before: Timestamp,
    /// The last second of its validity.
    pub not_after: Timestamp,
}

/// The reason why a certificate is not valid at a time; the text continues "the certificate".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValidityError {
    /// The validity period is over.
    #[error("expired at {0}")]
    Expired(Timestamp),
    /// The validity period has not begun.
    #[error("is valid only from {0} on")]
    NotYetValid(Timestamp),
}

impl Validity {
    /// Reads the validity of a certificate in DER; `None` if it cannot be parsed.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self::of(&certificate))
    }

    /// Returns the validity of a parsed certificate.
    #[must_use]
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            subject: subject(certificate),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        }
    }

    /// Returns why the certificate is not valid at `at`; `None` if it is.
    #[must_use]
    pub fn error_at(&self, at: Timestamp) -> Option<ValidityError> {
        if at > self.not_after {
            Some(ValidityError::Expired(self.not_after))
        } else if at < self.not_before {
            Some(ValidityError::NotYetValid(self.not_before))
        } else {
            None
        }
    }
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    let subject = certificate.subject().to_string();
    let names = certificate.subject_alternative_name().ok().flatten();
    if !subject.is_empty() {
        return subject;
    }
    let mut names = names.iter().flat_map(|names| &names.value.general_names);
    let name = names.find_map(|name| match name {
        GeneralName::URI(name) | GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    name.unwrap_or_default()
}

/// Converts Unix seconds, saturating: X.509 times exceed the range of [`Timestamp`].
#[must_use]
pub fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_out_of_range_saturate() {
        assert_eq!(time(i64::MAX), Timestamp::MAX);
        assert_eq!(time(i64::MIN), Timestamp::MIN);
        assert_eq!(time(0), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn a_certificate_is_valid_from_its_first_second_to_its_last() {
        let validity = Validity {
            subject: "CN=a".to_owned(),
            not_before: time(100),
            not_after: time(200),
        };
        assert_eq!(
            validity.error_at(time(99)),
            Some(ValidityError::NotYetValid(time(100)))
        );
        assert_eq!(validity.error_at(time(100)), None);
        assert_eq!(validity.error_at(time(200)), None);
        assert_eq!(
            validity.error_at(time(201)),
            Some(ValidityError::Expired(time(200)))
        );
    }
}
