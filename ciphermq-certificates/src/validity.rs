//! From when until when a certificate counts.

use jiff::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Whose a certificate is and when it is valid, of the certificate of an authority or of the server
/// itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// Its subject, as people write it: `CN=CipherMQ CA`.
    pub subject: String,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// What is wrong with a certificate's time: what stands after "the certificate".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// It is over.
    #[error("expired at {0}")]
    Expired(Timestamp),
    /// It has not come.
    #[error("is valid only from {0} on")]
    NotYetValid(Timestamp),
}

impl Validity {
    /// Reads a certificate's; `None` if it cannot be read.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self::of(&certificate))
    }

    /// The validity of a certificate that was read.
    #[must_use]
    pub fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            subject: certificate.subject().to_string(),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        }
    }

    /// What is wrong with it at this time, if anything is.
    #[must_use]
    pub fn trouble(&self, at: Timestamp) -> Option<Trouble> {
        if at > self.not_after {
            Some(Trouble::Expired(self.not_after))
        } else if at < self.not_before {
            Some(Trouble::NotYetValid(self.not_before))
        } else {
            None
        }
    }
}

/// X.509 times reach further than ours; what lies beyond is as far away as we can say.
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
    fn times_beyond_ours_are_far_away() {
        assert_eq!(time(i64::MAX), Timestamp::MAX);
        assert_eq!(time(i64::MIN), Timestamp::MIN);
        assert_eq!(time(0), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn a_certificate_counts_from_its_first_second_to_its_last() {
        let validity = Validity {
            subject: "CN=a".to_owned(),
            not_before: time(100),
            not_after: time(200),
        };
        assert_eq!(
            validity.trouble(time(99)),
            Some(Trouble::NotYetValid(time(100)))
        );
        assert_eq!(validity.trouble(time(100)), None);
        assert_eq!(validity.trouble(time(200)), None);
        assert_eq!(
            validity.trouble(time(201)),
            Some(Trouble::Expired(time(200)))
        );
    }
}
