//! Certificate revocation lists, as a client verifies them (RFC 5280, section 5).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use ciphermq_certificates::Validity;
use ciphermq_certificates::validity::time;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

/// The limit of bytes in a list, above that of real lists.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A revocation list that an authority has signed. Cheap to clone.
#[derive(Clone)]
pub struct RevocationList(Arc<Inner>);

struct Inner {
    der: Vec<u8>,
    list: CertRevocationList<'static>,
    /// The issuer's name in DER.
    issuer: Vec<u8>,
    number: Number,
    validity: Validity,
}

/// The number of a list (RFC 5280, section 5.2.3): each list of an authority has a greater one than
/// the list before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(Vec<u8>);

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.iter().try_fold(0u128, |value, &byte| {
            value.checked_mul(256)?.checked_add(u128::from(byte))
        }) {
            Some(value) => write!(f, "{value}"),
            None => write!(f, "0x{}", hex::encode(&self.0)),
        }
    }
}

/// The reason why a revocation list is not believed; the text continues "the revocation list".
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationListError {
    /// It cannot be parsed as one, or has extensions that are not understood.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It is longer than any real one, in bytes.
    #[error("is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It has no number (RFC 5280, section 5.2.3) or does not say when the next one comes.
    #[error("has no number, or does not say when the next one comes")]
    Incomplete,
    /// Its issuer is no trusted authority.
    #[error("is of {0}, which is not an authority that is trusted here")]
    OtherIssuer(String),
    /// The authority that it names has not signed it.
    #[error("names {0}, and was not signed by it")]
    Signature(String),
}

ciphermq_protocol::debug_as_report!(RevocationListError);

impl RevocationList {
    /// Reads a list in DER, and verifies that one of these authorities has signed it.
    ///
    /// # Errors
    ///
    /// [`RevocationListError`].
    pub(super) fn read(
        der: &[u8],
        authorities: &[CertificateDer<'_>],
    ) -> Result<Self, RevocationListError> {
        if der.len() > MAX_BYTES {
            return Err(RevocationListError::TooLong);
        }
        let unreadable =
            |error: &dyn fmt::Display| RevocationListError::Unreadable(error.to_string());
        let list = OwnedCertRevocationList::from_der(der).map_err(|error| unreadable(&error))?;
        let (_, parsed) =
            CertificateRevocationList::from_der(der).map_err(|error| unreadable(&error))?;
        let limits = x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
        if parsed
            .extensions()
            .iter()
            .any(|extension| extension.oid == limits)
        {
            return Err(unreadable(
                &"it covers only some certificates of its authority",
            ));
        }
        let (Some(number), Some(next_update)) = (parsed.crl_number(), parsed.next_update()) else {
            return Err(RevocationListError::Incomplete);
        };
        let validity = Validity {
            subject: parsed.issuer().to_string(),
            not_before: time(parsed.last_update().timestamp()),
            not_after: time(next_update.timestamp()),
        };
        verify_signature(&parsed, authorities, &validity.subject)?;
        Ok(Self(Arc::new(Inner {
            der: der.to_owned(),
            list: CertRevocationList::Owned(list),
            issuer: parsed.issuer().as_raw().to_owned(),
            number: Number(number.to_bytes_be()),
            validity,
        })))
    }

    /// Returns the list in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// Returns the issuer's name in DER: two lists of one authority have the same.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        &self.0.issuer
    }

    /// Returns the list's number.
    #[must_use]
    pub fn number(&self) -> &Number {
        &self.0.number
    }

    /// Returns the issuer as text, when the list was made, and when the next one comes at the
    /// latest.
    #[must_use]
    pub fn validity(&self) -> &Validity {
        &self.0.validity
    }

    pub(super) fn list(&self) -> &CertRevocationList<'static> {
        &self.0.list
    }

    /// Returns when a certificate of the list's issuer was revoked; `None` if it was not.
    pub(super) fn revoked_at(&self, certificate: &X509Certificate<'_>) -> Option<Timestamp> {
        if certificate.issuer().as_raw() != self.issuer() {
            return None;
        }
        let (_, list) = CertificateRevocationList::from_der(&self.0.der).ok()?;
        let revoked = list
            .iter_revoked_certificates()
            .find(|revoked| revoked.serial() == &certificate.serial)?;
        Some(time(revoked.revocation_date.timestamp()))
    }
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationList")
            .field("validity", &self.0.validity)
            .field("number", &self.0.number)
            .finish_non_exhaustive()
    }
}

/// Verifies that one of the authorities that a list names has signed it. Several may have the same
/// name: an authority with a new key keeps it.
fn verify_signature(
    list: &CertificateRevocationList<'_>,
    authorities: &[CertificateDer<'_>],
    issuer: &str,
) -> Result<(), RevocationListError> {
    let mut is_named = false;
    for authority in authorities {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else {
            continue;
        };
        if authority.subject().as_raw() == list.issuer().as_raw() {
            is_named = true;
            if list.verify_signature(authority.public_key()).is_ok() {
                return Ok(());
            }
        }
    }
    match is_named {
        true => Err(RevocationListError::Signature(issuer.to_owned())),
        false => Err(RevocationListError::OtherIssuer(issuer.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::Ca;
    use crate::identity::{Authority, CertificateError};

    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn with_list(authority: &Authority, der: &[u8]) -> Authority {
        authority.with_lists(vec![authority.read_list(der).unwrap()])
    }

    #[test]
    fn what_a_list_names_is_refused_at_any_time() {
        let ca = Ca::new("ca");
        let [revoked, other] = ["revoked", "other"].map(|name| ca.issue(name));
        let authority = with_list(&ca.authority(), &ca.list(7, &[(&revoked, NOW)]));
        for second in [NOW - 1000, NOW, NOW + 1000] {
            let verified = authority.verify(&revoked.chain, at(second));
            assert_eq!(verified, Err(CertificateError::Revoked(Some(at(NOW)))));
            assert!(authority.verify(&other.chain, at(second)).is_ok());
        }
        let list = &authority.lists()[0];
        assert_eq!(list.number().to_string(), "7");
        assert_eq!(list.validity().subject, "CN=ca");
        assert_eq!(authority.lists_made_at(), Some(at(1_700_000_000)));
        assert_eq!(ca.authority().lists_made_at(), None);
    }

    #[test]
    fn a_revoked_intermediate_authority_vouches_for_nobody() {
        let ca = Ca::new("ca");
        let intermediate = ca.intermediate("department");
        let client = intermediate.issue("client");
        let chain = [client.chain[0].clone(), intermediate.certificate()];
        let authority = with_list(&ca.authority(), &ca.list(1, &[(&intermediate, NOW)]));
        assert_eq!(
            authority.verify(&chain, at(NOW)),
            Err(CertificateError::Revoked(None))
        );
    }

    #[test]
    fn only_the_authoritys_own_lists_are_read() {
        let [ca, same_name] = ["ca", "ca"].map(Ca::new);
        let other = Ca::new("other");
        let authority = ca.authority();
        let refused = |der: &[u8]| authority.read_list(der).unwrap_err();
        assert_eq!(
            refused(&other.list(1, &[])),
            RevocationListError::OtherIssuer("CN=other".to_owned())
        );
        assert_eq!(
            refused(&same_name.list(1, &[])),
            RevocationListError::Signature("CN=ca".to_owned())
        );
        let list = ca.list(1, &[]);
        assert!(authority.read_list(&list).is_ok());
        for length in 0..list.len() {
            assert!(authority.read_list(&list[..length]).is_err(), "{length}");
        }
        for byte in 0..list.len() {
            let mut flipped = list.clone();
            flipped[byte] ^= 1;
            assert!(authority.read_list(&flipped).is_err(), "byte {byte}");
        }
    }

    /// An authority that gets a new key keeps its name, and its old list says nothing about
    /// certificates of the new key.
    #[test]
    fn a_list_of_the_former_key_does_not_hinder_the_new_one() {
        let [former, current] = ["ca", "ca"].map(Ca::new);
        let client = current.issue("client");
        let authorities = [former.certificate(), current.certificate()];
        let authority = Authority::new(authorities).unwrap();
        let authority = with_list(&authority, &former.list(1, &[]));
        assert!(authority.verify(&client.chain, at(NOW)).is_ok());
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        let ca = Ca::new("ca");
        let read = |number| ca.authority().read_list(&ca.list(number, &[])).unwrap();
        let numbers = [1, 2, 255, 256, 65_535, 65_536, u64::MAX];
        for pair in numbers.windows(2) {
            assert!(read(pair[0]).number() < read(pair[1]).number(), "{pair:?}");
        }
        assert_eq!(read(u64::MAX).number().to_string(), u64::MAX.to_string());
    }
}
