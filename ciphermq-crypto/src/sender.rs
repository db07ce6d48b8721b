//! Who sent it: a sender signs each of its sessions once, with its certificate's private key.
//!
//! ```text
//!   signed    = each of these fields, its length before it (32 bits, big-endian):
//!               "CipherMQ sender 1", suite, sender_client_id, receiver_client_id, receiver_key_id,
//!               session_time, sender_certificate, bytes of enc_session_key
//!   signature = by the certificate's key over signed: ES384, ES256 or EdDSA, as the key dictates
//! ```
//!
//! Whoever can open the session key knows that only the sender has had it besides; so what is
//! authenticated under it comes from who signed. The broker is not believed in any of this: the
//! receiver verifies the certificate against its own authority, as of the session's time.

use std::collections::HashMap;

use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use crate::encoding::put_field;
use crate::identity::{Authority, CertificateError, Fingerprint};

const DOMAIN: &[u8] = b"CipherMQ sender 1";

/// How many senders' chains are kept. They are a few kilobytes each.
const MAX_CHAINS: usize = 1024;

/// A session's certificate and signature, as they stand in the envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) certificate: Fingerprint,
    pub(crate) signature: Vec<u8>,
}

/// What a sender signs of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) suite: &'a str,
    pub(crate) sender: &'a str,
    pub(crate) receiver: &'a str,
    pub(crate) receiver_key_id: &'a str,
    pub(crate) session_time: &'a str,
    pub(crate) enc_session_key: &'a [u8],
}

impl Signed<'_> {
    /// The bytes that are signed with this certificate's key.
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

/// Why a session is not its sender's.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    /// The sender's certificate is not accepted as of the session's time.
    #[error("of its sender, {0}")]
    Certificate(#[from] CertificateError),
    /// The certificate names another client.
    #[error("its sender's certificate is that of `{0}`")]
    OtherClient(ClientId),
}

ciphermq_protocol::debug_as_report!(SenderError);

/// Why a session was not verified, inside this crate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unverified {
    /// The chain is not known.
    CertificateNeeded,
    /// The signature is wrong.
    Forged,
    /// The signature is right, or was not looked at: the certificate is not the sender's.
    Sender(SenderError),
}

/// The senders' certificate chains that are known, whoever gave them: they are verified whenever
/// they are used.
#[derive(Debug)]
pub(crate) struct Senders {
    authority: Authority,
    chains: HashMap<Fingerprint, Vec<CertificateDer<'static>>>,
}

impl Senders {
    pub(crate) fn new(authority: Authority) -> Self {
        Self {
            authority,
            chains: HashMap::new(),
        }
    }

    /// Keeps a chain under its first certificate's fingerprint.
    pub(crate) fn learn(&mut self, chain: Vec<CertificateDer<'static>>) {
        let Some(own) = chain.first() else { return };
        let fingerprint = Fingerprint::of(own);
        if self.chains.len() >= MAX_CHAINS && !self.chains.contains_key(&fingerprint) {
            // Which one is let go of matters little: it can be asked for again.
            if let Some(&any) = self.chains.keys().next() {
                self.chains.remove(&any);
            }
        }
        self.chains.insert(fingerprint, chain);
    }

    /// Verifies a session's signature as of the time when it began.
    pub(crate) fn verify(
        &self,
        signed: &Signed<'_>,
        session_time: Timestamp,
        signature: &Signature,
    ) -> Result<(), Unverified> {
        let chain = self
            .chains
            .get(&signature.certificate)
            .ok_or(Unverified::CertificateNeeded)?;
        let certificate = self
            .authority
            .verify(chain, session_time)
            .map_err(|error| Unverified::Sender(error.into()))?;
        if certificate.client_id().as_str() != signed.sender {
            let other = certificate.client_id().clone();
            return Err(Unverified::Sender(SenderError::OtherClient(other)));
        }
        if certificate.has_signed(&signed.bytes(signature.certificate), &signature.signature) {
            Ok(())
        } else {
            Err(Unverified::Forged)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{Ca, Wish};

    const SIGNED: Signed<'_> = Signed {
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
    fn a_senders_own_signature_is_verified_once_its_chain_is_known() {
        let ca = Ca::new("ca");
        let sender = ca.issue("sender_1");
        let signature = sign(&sender);
        let mut senders = Senders::new(ca.authority());
        let verify = |senders: &Senders| senders.verify(&SIGNED, start(), &signature);
        assert_eq!(verify(&senders), Err(Unverified::CertificateNeeded));
        senders.learn(ca.issue("sender_1").chain);
        assert_eq!(verify(&senders), Err(Unverified::CertificateNeeded));
        senders.learn(sender.chain);
        assert_eq!(verify(&senders), Ok(()));
    }

    #[test]
    fn each_field_is_signed() {
        let ca = Ca::new("ca");
        let sender = ca.issue("sender_1");
        let signature = sign(&sender);
        let mut senders = Senders::new(ca.authority());
        senders.learn(sender.chain);
        for altered in [
            Signed {
                suite: "XWING-AES256GCM",
                ..SIGNED
            },
            Signed {
                receiver: "receiver_2",
                ..SIGNED
            },
            Signed {
                receiver_key_id: "66687aadf862bd78",
                ..SIGNED
            },
            Signed {
                session_time: "2027-01-15T08:00:00.001Z",
                ..SIGNED
            },
            Signed {
                enc_session_key: &[8; 80],
                ..SIGNED
            },
            Signed {
                enc_session_key: &[7; 79],
                ..SIGNED
            },
        ] {
            assert_eq!(
                senders.verify(&altered, start(), &signature),
                Err(Unverified::Forged)
            );
        }
        let other = Signed {
            sender: "sender_2",
            ..SIGNED
        };
        assert!(matches!(
            senders.verify(&other, start(), &signature),
            Err(Unverified::Sender(SenderError::OtherClient(client))) if client.as_str() == "sender_1"
        ));
    }

    #[test]
    fn another_client_cannot_sign_for_the_sender() {
        let [ca, evil] = ["ca", "ca"].map(Ca::new);
        let mut senders = Senders::new(ca.authority());
        for (sender, is_other_client) in
            [(ca.issue("mallory"), true), (evil.issue("sender_1"), false)]
        {
            let signature = sign(&sender);
            senders.learn(sender.chain);
            let error = senders.verify(&SIGNED, start(), &signature).unwrap_err();
            match error {
                Unverified::Sender(SenderError::OtherClient(_)) => assert!(is_other_client),
                Unverified::Sender(SenderError::Certificate(CertificateError::NotTrusted(_))) => {
                    assert!(!is_other_client);
                }
                error => panic!("{error:?}"),
            }
        }
    }

    #[test]
    fn the_certificate_must_be_valid_when_the_session_began_not_now() {
        let ca = Ca::new("ca");
        let second = start().as_second();
        let wish = Wish {
            valid: Some((second - 60, second + 60)),
            ..Wish::default()
        };
        let sender = ca.issue_as("sender_1", &wish);
        let signature = sign(&sender);
        let mut senders = Senders::new(ca.authority());
        senders.learn(sender.chain);
        assert_eq!(senders.verify(&SIGNED, start(), &signature), Ok(()));
        let later = start() + std::time::Duration::from_secs(61);
        assert!(matches!(
            senders.verify(&SIGNED, later, &signature),
            Err(Unverified::Sender(SenderError::Certificate(
                CertificateError::Expired(_)
            )))
        ));
    }

    #[test]
    fn the_chains_that_are_kept_are_bounded() {
        let ca = Ca::new("ca");
        let mut senders = Senders::new(ca.authority());
        for index in 0..MAX_CHAINS + 10 {
            senders.learn(vec![CertificateDer::from(index.to_be_bytes().to_vec())]);
            assert!(senders.chains.len() <= MAX_CHAINS);
        }
        senders.learn(Vec::new());
    }
}
