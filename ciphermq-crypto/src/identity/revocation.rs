//! Certificate revocation lists, as a client verifies them (RFC 5280, section 5).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use ciphermq_certificates::Validity;
use ciphermq_certificates::validity::time;
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use webpki::{Cert, CertRevocationList, OwnedCertRevocationList, VerifiedPath};
use x509_parser::error::X509Error;
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use super::fingerprint;

/// The limit of bytes in a list, above that of real lists.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A revocation list that an authority has signed. Cheap to clone.
#[derive(Clone)]
pub struct RevocationList(Arc<Inner>);

struct Inner {
    der: Vec<u8>,
    list: CertRevocationList<'static>,
    signer: ListSigner,
    number: Number,
    validity: Validity,
}

/// What lists name on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Revoked {
    /// The client's own certificate and nothing else, revoked at this time.
    Own(Timestamp),
    /// An authority above it.
    Above,
}

/// An authority as the signer of lists: its name and its key. An authority that gets a new key
/// keeps its name, and has lists of its own then.
#[derive(Clone, PartialEq, Eq)]
pub struct ListSigner {
    /// The contents of the name in DER.
    subject: Vec<u8>,
    /// The contents of the key in DER (RFC 5280, section 4.1.2.7).
    key: Vec<u8>,
}

impl ListSigner {
    pub(super) fn of(anchor: &TrustAnchor<'_>) -> Self {
        Self {
            subject: anchor.subject.to_vec(),
            key: anchor.subject_public_key_info.to_vec(),
        }
    }

    pub(super) fn of_intermediate(certificate: &Cert<'_>) -> Self {
        Self {
            subject: certificate.subject().to_vec(),
            key: contents(&certificate.subject_public_key_info()).to_vec(),
        }
    }

    /// Returns 16 hexadecimal digits for names of files: the beginning of the SHA-256 of the
    /// contents of name and key in DER.
    #[must_use]
    pub fn short_hash(&self) -> String {
        let hash = fingerprint(&[self.subject.as_slice(), &self.key].concat()).to_string();
        hash.get(..16).unwrap_or(&hash).to_owned()
    }

    fn is(&self, subject: &[u8], key: &[u8]) -> bool {
        subject == self.subject && key == self.key
    }
}

impl fmt::Debug for ListSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListSigner({})", self.short_hash())
    }
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
        authorities: &[(ListSigner, &CertificateDer<'_>)],
    ) -> Result<Self, RevocationListError> {
        if der.len() > MAX_BYTES {
            return Err(RevocationListError::TooLong);
        }
        let unreadable =
            |error: &dyn fmt::Display| RevocationListError::Unreadable(error.to_string());
        let list = OwnedCertRevocationList::from_der(der).map_err(|error| unreadable(&error))?;
        let (_, parsed) =
            CertificateRevocationList::from_der(der).map_err(|error| unreadable(&error))?;
        let limits = OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
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
        let signer = signer(&parsed, authorities, &validity.subject)?;
        Ok(Self(Arc::new(Inner {
            der: der.to_owned(),
            list: CertRevocationList::Owned(list),
            signer,
            number: Number(number.to_bytes_be()),
            validity,
        })))
    }

    /// Returns the list in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// Returns the authority that has signed the list: it has one list.
    #[must_use]
    pub fn signer(&self) -> &ListSigner {
        &self.0.signer
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

    /// Returns what the list names on a path, of the certificates that its signer has issued.
    pub(super) fn revokes(&self, path: &VerifiedPath<'_>) -> Option<Revoked> {
        let signer = &self.0.signer;
        let (mut own, mut above) = (None, false);
        let mut issued: &Cert<'_> = path.end_entity();
        let mut is_own = true;
        let mut look_up = |issued: &Cert<'_>, subject: &[u8], key: &[u8], is_own| {
            let named = signer.is(subject, key).then(|| self.names(issued));
            match named.flatten() {
                Some(at) if is_own => own = Some(at),
                named => above |= named.is_some(),
            }
        };
        for issuer in path.intermediate_certificates() {
            let key = issuer.subject_public_key_info();
            look_up(issued, issuer.subject(), contents(&key), is_own);
            (issued, is_own) = (issuer, false);
        }
        let anchor = path.anchor();
        let key = &anchor.subject_public_key_info;
        look_up(issued, &anchor.subject, key, is_own);
        match above {
            true => Some(Revoked::Above),
            false => own.map(Revoked::Own),
        }
    }

    /// Returns when a certificate with this serial number was revoked, whoever has issued it.
    fn names(&self, certificate: &Cert<'_>) -> Option<Timestamp> {
        // A list whose entries cannot be read was refused before.
        let revoked = self.0.list.find_serial(certificate.serial()).ok()??;
        let seconds = i64::try_from(revoked.revocation_date.as_secs()).unwrap_or(i64::MAX);
        Some(time(seconds))
    }
}

/// Returns the contents of a DER sequence, without its tag and length.
fn contents(der: &[u8]) -> &[u8] {
    let skipped = match der.get(1) {
        Some(length @ 0x80..) => 2 + usize::from(length & 0x7f),
        _ => 2,
    };
    der.get(skipped..).unwrap_or_default()
}

impl fmt::Debug for RevocationList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationList")
            .field("validity", &self.0.validity)
            .field("number", &self.0.number)
            .finish_non_exhaustive()
    }
}

/// Returns which of the authorities that a list names has signed it. Several may have the name.
fn signer(
    list: &CertificateRevocationList<'_>,
    authorities: &[(ListSigner, &CertificateDer<'_>)],
    issuer: &str,
) -> Result<ListSigner, RevocationListError> {
    if list.signature_algorithm.algorithm == OID_PKCS1_SHA1WITHRSA {
        let what = "it is signed with SHA-1".to_owned();
        return Err(RevocationListError::Unreadable(what));
    }
    let mut refusal = RevocationListError::OtherIssuer(issuer.to_owned());
    for (signer, certificate) in authorities {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            continue;
        };
        if certificate.subject().as_raw() != list.issuer().as_raw() {
            continue;
        }
        refusal = match list.verify_signature(certificate.public_key()) {
            Ok(()) => return Ok(signer.clone()),
            Err(X509Error::SignatureUnsupportedAlgorithm) => RevocationListError::Unreadable(
                "it is signed with an algorithm that is not supported here".to_owned(),
            ),
            Err(_) => RevocationListError::Signature(issuer.to_owned()),
        };
    }
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{Ca, CertificateSpec};
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
    fn the_list_of_an_intermediate_authority_counts_for_its_clients() {
        let ca = Ca::new("ca");
        let [issuing, other] = ["issuing", "other"].map(|name| ca.intermediate(name));
        let chain = |issuer: &Ca, name| {
            let client = issuer.issue(name);
            let chain = vec![client.chain[0].clone(), issuer.certificate()];
            (client, chain)
        };
        let (_, own) = chain(&issuing, "own");
        let (revoked, revoked_chain) = chain(&issuing, "revoked");
        let list = issuing.list(1, &[(&revoked, NOW)]);
        assert!(ca.authority().read_list(&list).is_err());
        let authority = ca.authority().with_intermediates_of(&own, at(NOW));
        assert!(authority.read_list(&other.list(1, &[])).is_err());
        let authority = with_list(&authority, &list);
        assert_eq!(
            authority.verify(&revoked_chain, at(NOW)),
            Err(CertificateError::Revoked(Some(at(NOW))))
        );
        assert!(authority.verify(&own, at(NOW)).is_ok());
        let (_, of_other) = chain(&other, "revoked");
        assert!(authority.verify(&of_other, at(NOW)).is_ok());
        // There is none of the root.
        assert_eq!(authority.lists_made_at(), None);
        // Who is not below the authority vouches for no list.
        let stranger = Ca::new("stranger");
        let (_, of_stranger) = chain(&stranger, "own");
        let authority = ca.authority().with_intermediates_of(&of_stranger, at(NOW));
        assert_eq!(authority.signers().count(), 1);
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

    /// Whoever has the key of a revoked certificate makes the chain, and adds what they like to it.
    #[test]
    fn what_else_is_in_the_chain_hides_no_revocation() {
        let ca = Ca::new("ca");
        let [revoked, other] = ["revoked", "other"].map(|name| ca.issue(name));
        let authority = with_list(&ca.authority(), &ca.list(1, &[(&revoked, NOW)]));
        let expired = CertificateSpec {
            valid: Some((NOW - 100, NOW - 1)),
            ..CertificateSpec::default()
        };
        let namesakes: Vec<_> = (0..7).map(|_| Ca::new("ca").certificate()).collect();
        for junk in [vec![Ca::new_as("ca", expired).certificate()], namesakes] {
            for own in [&revoked, &other] {
                let chain = [own.chain.clone(), junk.clone()].concat();
                let verified = authority.verify(&chain, at(NOW));
                let is_revoked = matches!(verified, Err(CertificateError::Revoked(Some(_))));
                assert_eq!(is_revoked, own.chain == revoked.chain, "{verified:?}");
                assert_eq!(verified.is_ok(), !is_revoked);
            }
        }
    }

    #[test]
    fn an_authority_with_a_new_key_has_a_list_of_its_own() {
        let [former, current] = ["ca", "ca"].map(Ca::new);
        let authority = Authority::new([former.certificate(), current.certificate()]).unwrap();
        let lists = [&former, &current].map(|ca| authority.read_list(&ca.list(1, &[])).unwrap());
        assert_ne!(lists[0].signer(), lists[1].signer());
        assert_ne!(
            lists[0].signer().short_hash(),
            lists[1].signer().short_hash()
        );
        let one = authority.with_lists(lists[..1].to_vec());
        assert_eq!(one.lists_made_at(), None);
        assert!(
            authority
                .with_lists(lists.to_vec())
                .lists_made_at()
                .is_some()
        );
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
