//! Signatures of sessions: a sender signs each session once, with its certificate's private key.
//!
//! ```text
//!   signed    = each of these fields, its length before it (32 bits, big-endian):
//!               "CipherMQ sender 1", suite, sender_client_id, receiver_client_id, receiver_key_id,
//!               session_time, sender_certificate, bytes of enc_session_key
//!   signature = by the certificate's key over signed: ES384, ES256 or EdDSA, as the key dictates
//! ```
//!
//! Only the sender and the receiver have the session key, so a message that is authentic under it
//! comes from the sender that signed the session. The broker is not trusted: the receiver verifies
//! the certificate against its own authority, as of the session's start.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use crate::encoding::put_field;
use crate::identity::{Authority, CertificateError, Fingerprint, Intermediate, fingerprint};

const DOMAIN: &[u8] = b"CipherMQ sender 1";

/// The limit of cached chains, of a few kilobytes each.
const MAX_CHAINS: usize = 1024;

/// The sender's signature of a session, and its certificate's fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) certificate: Fingerprint,
    pub(crate) signature: Vec<u8>,
}

/// The fields of a session that its sender signs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedFields<'a> {
    pub(crate) suite: &'a str,
    pub(crate) sender: &'a str,
    pub(crate) receiver: &'a str,
    pub(crate) receiver_key_id: &'a str,
    pub(crate) session_time: &'a str,
    pub(crate) enc_session_key: &'a [u8],
}

impl SignedFields<'_> {
    /// Returns the bytes to sign with this certificate's key.
    pub(crate) fn bytes(&self, certificate: Fingerprint) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512 + self.enc_session_key.len());
        put_field(&mut bytes, DOMAIN);
        put_field(&mut bytes, self.suite.as_bytes());
        put_field(&mut bytes, self.sender.as_bytes());
        put_field(&mut bytes, self.receiver.as_bytes());
        put_field(&mut bytes, self.receiver_key_id.as_bytes());
        put_field(&mut bytes, self.session_time.as_bytes());
        put_field(&mut bytes, certificate.to_string().as_bytes());
        put_field(&mut bytes, self.enc_session_key);
        bytes
    }
}

/// The reason why a signature does not prove the session's sender.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    /// The sender's certificate is refused as of the session's start.
    #[error("the sender's certificate is refused: {0}")]
    Certificate(#[from] CertificateError),
    /// The certificate names another client.
    #[error("the sender's certificate is that of `{0}`")]
    OtherClient(ClientId),
}

ciphermq_protocol::debug_as_report!(SenderError);

/// The reason why the signature of a session was not verified.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum VerifyError {
    /// The certificate chain is unknown.
    CertificateNeeded,
    /// The signature is wrong.
    Forged,
    /// The certificate is not the sender's, whether the signature is right or not.
    Sender(SenderError),
}

/// A cache of senders' certificate chains from untrusted sources.
///
/// Each use verifies the chain.
#[derive(Debug)]
pub(crate) struct SenderCertificates {
    authority: Authority,
    /// Whether a session is accepted if its certificate was revoked only after its start.
    before_revocation: bool,
    chains: HashMap<Fingerprint, Vec<CertificateDer<'static>>>,
}

impl SenderCertificates {
    pub(crate) fn new(authority: Authority, before_revocation: bool) -> Self {
        Self {
            authority,
            before_revocation,
            chains: HashMap::new(),
        }
    }

    pub(crate) fn set_authority(&mut self, authority: Authority) {
        self.authority = authority;
    }

    pub(crate) fn require_lists_made_in(&mut self, times: Option<RangeInclusive<Timestamp>>) {
        self.authority.require_lists_made_in(times);
    }

    /// Checks that the lists about a verified session are as new as is required.
    pub(crate) fn check_lists_of(&self, issuers: &[Intermediate]) -> Result<(), SenderError> {
        Ok(self.authority.check_lists_of(issuers)?)
    }

    /// Adds a chain under its first certificate's fingerprint.
    pub(crate) fn add(&mut self, chain: Vec<CertificateDer<'static>>) {
        let Some(own) = chain.first() else { return };
        let fingerprint = fingerprint(own);
        if self.chains.len() >= MAX_CHAINS && !self.chains.contains_key(&fingerprint) {
            // Any one will do: it can be requested again.
            if let Some(&any) = self.chains.keys().next() {
                self.chains.remove(&any);
            }
        }
        self.chains.insert(fingerprint, chain);
    }

    /// Verifies the signature of a session as of its start, and returns the intermediate
    /// authorities above its certificate.
    pub(crate) fn verify(
        &self,
        signed: &SignedFields<'_>,
        session_time: Timestamp,
        signature: &Signature,
    ) -> Result<Vec<Intermediate>, VerifyError> {
        let chain = self
            .chains
            .get(&signature.certificate)
            .ok_or(VerifyError::CertificateNeeded)?;
        // The time is the sender's word, and whoever has its key can state any.
        let certificate = match self.before_revocation {
            true => self.authority.verify_before_revocation(chain, session_time),
            false => self.authority.verify(chain, session_time),
        };
        let certificate = certificate.map_err(|error| VerifyError::Sender(error.into()))?;
        if certificate.client_id().as_str() != signed.sender {
            let other = certificate.client_id().clone();
            return Err(VerifyError::Sender(SenderError::OtherClient(other)));
        }
        if certificate.has_signed(&signed.bytes(signature.certificate), &signature.signature) {
            Ok(certificate.issuers().to_vec())
        } else {
            Err(VerifyError::Forged)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{Ca, CertificateSpec};

    const SIGNED: SignedFields<'_> = SignedFields {
        suite: "X25519-AES256GCM",
        sender: "sender_1",
        receiver: "receiver_1",
        receiver_key_id: "66687aadf862bd77",
        session_time: "2027-01-15T08:00:00.000Z",
        enc_session_key: &[7; 80],
    };

    fn start() -> Timestamp {
        SIGNED.session_time.parse().unwrap()
    }

    fn sign(ca: &Ca) -> Signature {
        let identity = ca.identity();
        Signature {
            certificate: identity.fingerprint(),
            signature: identity
                .sign(&SIGNED.bytes(identity.fingerprint()))
                .unwrap(),
        }
    }

    #[test]
    fn a_senders_signature_is_verified_once_its_chain_is_known() {
        let ca = Ca::new("ca");
        let sender = ca.issue("sender_1");
        let signature = sign(&sender);
        let mut certificates = SenderCertificates::new(ca.authority(), false);
        let verify =
            |certificates: &SenderCertificates| certificates.verify(&SIGNED, start(), &signature);
        assert_eq!(verify(&certificates), Err(VerifyError::CertificateNeeded));
        certificates.add(ca.issue("sender_1").chain);
        assert_eq!(verify(&certificates), Err(VerifyError::CertificateNeeded));
        certificates.add(sender.chain);
        assert_eq!(verify(&certificates), Ok(Vec::new()));
    }

    #[test]
    fn altering_any_signed_field_breaks_the_signature() {
        let ca = Ca::new("ca");
        let sender = ca.issue("sender_1");
        let signature = sign(&sender);
        let mut certificates = SenderCertificates::new(ca.authority(), false);
        certificates.add(sender.chain);
        for altered in [
            SignedFields {
                suite: "XWING-AES256GCM",
                ..SIGNED
            },
            SignedFields {
                receiver: "receiver_2",
                ..SIGNED
            },
            SignedFields {
                receiver_key_id: "66687aadf862bd78",
                ..SIGNED
            },
            SignedFields {
                session_time: "2027-01-15T08:00:00.001Z",
                ..SIGNED
            },
            SignedFields {
                enc_session_key: &[8; 80],
                ..SIGNED
            },
            SignedFields {
                enc_session_key: &[7; 79],
                ..SIGNED
            },
        ] {
            assert_eq!(
                certificates.verify(&altered, start(), &signature),
                Err(VerifyError::Forged)
            );
        }
        let other = SignedFields {
            sender: "sender_2",
            ..SIGNED
        };
        assert!(matches!(
            certificates.verify(&other, start(), &signature),
            Err(VerifyError::Sender(SenderError::OtherClient(client))) if client.as_str() == "sender_1"
        ));
    }

    #[test]
    fn another_client_cannot_sign_for_the_sender() {
        let [ca, evil] = ["ca", "ca"].map(Ca::new);
        let mut certificates = SenderCertificates::new(ca.authority(), false);
        for (sender, is_other_client) in
            [(ca.issue("mallory"), true), (evil.issue("sender_1"), false)]
        {
            let signature = sign(&sender);
            certificates.add(sender.chain);
            let error = certificates
                .verify(&SIGNED, start(), &signature)
                .unwrap_err();
            match error {
                VerifyError::Sender(SenderError::OtherClient(_)) => assert!(is_other_client),
                VerifyError::Sender(SenderError::Certificate(CertificateError::NotTrusted(_))) => {
                    assert!(!is_other_client);
                }
                error => panic!("{error:?}"),
            }
        }
    }

    #[test]
    fn the_certificate_must_be_valid_when_the_session_started() {
        let ca = Ca::new("ca");
        let second = start().as_second();
        let spec = CertificateSpec {
            valid: Some((second - 60, second + 60)),
            ..CertificateSpec::default()
        };
        let sender = ca.issue_as("sender_1", &spec);
        let signature = sign(&sender);
        let mut certificates = SenderCertificates::new(ca.authority(), false);
        certificates.add(sender.chain);
        let verified = certificates.verify(&SIGNED, start(), &signature);
        assert_eq!(verified, Ok(Vec::new()));
        let later = start() + std::time::Duration::from_secs(61);
        assert!(matches!(
            certificates.verify(&SIGNED, later, &signature),
            Err(VerifyError::Sender(SenderError::Certificate(
                CertificateError::Expired(_)
            )))
        ));
    }

    #[test]
    fn a_session_before_the_revocation_is_accepted_on_request() {
        let ca = Ca::new("ca");
        let sender = ca.issue("sender_1");
        let signature = sign(&sender);
        for (revoked, lenient, accepted) in [
            (1, false, false),
            (1, true, true),
            (0, true, false),
            (-1, true, false),
        ] {
            let list = ca.list(1, &[(&sender, start().as_second() + revoked)]);
            let authority = ca.authority();
            let authority = authority.with_lists(vec![authority.read_list(&list).unwrap()]);
            let mut certificates = SenderCertificates::new(authority, lenient);
            certificates.add(sender.chain.clone());
            let verified = certificates.verify(&SIGNED, start(), &signature);
            let is_revoked = matches!(
                verified,
                Err(VerifyError::Sender(SenderError::Certificate(
                    CertificateError::Revoked(Some(_))
                )))
            );
            assert_eq!(
                (verified.is_ok(), is_revoked),
                (accepted, !accepted),
                "{revoked}"
            );
        }
    }

    /// A list that is to be ignored for this session must be new enough all the same.
    #[test]
    fn a_session_before_the_revocation_needs_a_list_that_is_new_enough() {
        let ca = Ca::new("ca");
        let department = ca.intermediate("department");
        let sender = department.issue("sender_1");
        let signature = sign(&sender);
        let chain = vec![sender.chain[0].clone(), department.certificate()];
        let mut authority = ca.authority().refuse_unknown_issuers(true);
        let Err(CertificateError::UnknownIssuers(issuers)) = authority.verify(&chain, start())
        else {
            panic!("the department is not known");
        };
        authority.learn(&issuers);
        let list = department.list(1, &[(&sender, start().as_second() + 1)]);
        let list = authority.read_list(&list).unwrap();
        let made = list.validity().not_before;
        let later = made + std::time::Duration::from_secs(1);
        let mut certificates = SenderCertificates::new(authority.with_lists(vec![list]), true);
        certificates.add(chain);
        let mut verify = |from| {
            certificates.require_lists_made_in(Some(from..=Timestamp::MAX));
            certificates.verify(&SIGNED, start(), &signature)
        };
        assert_eq!(verify(made), Ok(issuers));
        assert!(matches!(
            verify(later),
            Err(VerifyError::Sender(SenderError::Certificate(
                CertificateError::OldList { .. }
            )))
        ));
    }

    /// The list that counts is that of the authority that has issued the certificate, and no list
    /// excuses an authority that is revoked itself.
    #[test]
    fn a_revoked_department_cannot_date_the_revocation_of_its_client() {
        const LATE: i64 = 4_080_000_000;
        let ca = Ca::new("ca");
        let [department, namesake] = ["department"; 2].map(|name| ca.intermediate(name));
        let sender = department.issue("sender_1");
        let signature = sign(&sender);
        let chain = vec![sender.chain[0].clone(), department.certificate()];
        let mut authority = ca.authority().refuse_unknown_issuers(true);
        for issuer in [&namesake, &department] {
            let below = [issuer.issue("other").chain[0].clone(), issuer.certificate()];
            match authority.verify(&below, start()) {
                Err(CertificateError::UnknownIssuers(issuers)) => authority.learn(&issuers),
                verified => panic!("{verified:?}"),
            };
        }
        let before = start().as_second() - 1;
        let late = Timestamp::from_second(LATE).unwrap();
        let dated_late = department.list(9, &[(&sender, LATE)]);
        let verify = |lists: &[Vec<u8>], is_lenient| {
            let lists = lists.iter().map(|der| authority.read_list(der).unwrap());
            let authority = authority.with_lists(lists.collect());
            let mut certificates = SenderCertificates::new(authority, is_lenient);
            certificates.add(chain.clone());
            certificates.verify(&SIGNED, start(), &signature).map(drop)
        };
        let revoked = |at| {
            let error = CertificateError::Revoked(at);
            Err(VerifyError::Sender(error.into()))
        };
        // As long as the department is trusted, so is its date.
        let trusted = [dated_late.clone()];
        assert_eq!(verify(&trusted, true), Ok(()));
        assert_eq!(verify(&trusted, false), revoked(Some(late)));

        let of_ca = ca.list(1, &[(&department, before)]);
        for lists in [
            [dated_late.clone(), of_ca.clone()],
            [of_ca, dated_late.clone()],
        ] {
            for is_lenient in [true, false] {
                assert_eq!(verify(&lists, is_lenient), revoked(None));
            }
        }

        // A namesake's list says nothing about the clients of the other.
        let of_namesake = namesake.list(9, &[(&sender, LATE)]);
        let at = Timestamp::from_second(before).unwrap();
        let lists = [
            of_namesake.clone(),
            department.list(1, &[(&sender, before)]),
        ];
        assert_eq!(verify(&lists, true), revoked(Some(at)));
        assert_eq!(verify(&[of_namesake], false), Ok(()));
    }

    #[test]
    fn the_number_of_cached_chains_is_bounded() {
        let ca = Ca::new("ca");
        let mut certificates = SenderCertificates::new(ca.authority(), false);
        for index in 0..MAX_CHAINS + 10 {
            certificates.add(vec![CertificateDer::from(index.to_be_bytes().to_vec())]);
            assert!(certificates.chains.len() <= MAX_CHAINS);
        }
        certificates.add(Vec::new());
    }
}
