//! Test vectors of `docs/test-vectors/signed.json`: signed keys, client ids and signed sessions,
//! with the expected results.
//!
//! Most signatures are random, so the file cannot be reproduced and compared. These tests verify
//! it; it is generated with new keys by
//!
//! ```text
//! cargo test -p ciphermq-crypto --lib signed_vector_tests -- --ignored
//! ```
//!
//! The file contains all times, so the results never change.

mod generate;

use ciphermq_protocol::Envelope;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::encoding::{decode, parse_time};
use crate::identity::{Authority, CertificateError, fingerprint};
use crate::keys::{PrivateKey, RecipientKey};
use crate::sender::{SenderError, SignedFields};
use crate::signed_key::{Pin, PinError, SignedKeyError, verify};
use crate::vector_tests::{hex, name, to_hex};
use crate::{Keyring, OpenError, OpenPolicy, Opener};

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/test-vectors/signed.json"
);

/// The contents of the file. Certificates are base64 of DER, the client's own first; all other
/// bytes are hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
struct Vectors {
    about: Vec<String>,
    authority: String,
    receiver_client_id: String,
    receiver_private_key: String,
    signed_keys: Vec<GoodKey>,
    signed_keys_must_fail: Vec<BadKey>,
    client_ids: Vec<NamedClient>,
    sessions: Vec<GoodSession>,
    sessions_must_fail: Vec<BadSession>,
}

#[derive(Debug, Serialize, Deserialize)]
struct GoodKey {
    about: String,
    now: String,
    /// The sender's authority, if not that of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
    algorithm: String,
    epoch: u64,
    not_before: String,
    not_after: String,
    keys: Vec<AnnouncedKey>,
    signed_key: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AnnouncedKey {
    suite: String,
    key_id: String,
    key: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct BadKey {
    about: String,
    now: String,
    /// The sender's authority, if not that of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority: Option<String>,
    /// The signed key of this file that the sender has pinned before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinned: Option<String>,
    expect: String,
    signed_key: String,
}

/// A certificate, and the client that it names; without one it must be refused.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NamedClient {
    about: String,
    client_id_from: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    certificate: String,
}

impl NamedClient {
    /// Reads the client id of the certificate, on a path to this authority.
    fn read(&self, authority: &Authority) -> Result<String, CertificateError> {
        let from = self.client_id_from.join(",").parse().unwrap();
        authority
            .with_client_id_from(from)
            .verify(
                &[decode(&self.certificate).unwrap().into()],
                generate::now(),
            )
            .map(|certificate| certificate.client_id().to_string())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct GoodSession {
    about: String,
    sender_client_id: String,
    algorithm: String,
    certificates: Vec<String>,
    sender_certificate: String,
    session_time: String,
    enc_session_key: String,
    signed: String,
    signature: String,
    payload: String,
    envelope: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct BadSession {
    about: String,
    /// The server's reply to `get_certificate`.
    certificates: Vec<String>,
    expect: String,
    envelope: String,
}

fn chain(texts: &[String]) -> Vec<CertificateDer<'static>> {
    texts
        .iter()
        .map(|text| decode(text).unwrap().into())
        .collect()
}

fn key_texts(keys: &[RecipientKey]) -> Vec<AnnouncedKey> {
    keys.iter()
        .map(|key| AnnouncedKey {
            suite: key.suite().to_string(),
            key_id: key.key_id().to_string(),
            key: key.to_base64(),
        })
        .collect()
}

fn file() -> Vectors {
    serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap()
}

fn authority(certificate: &str) -> Authority {
    Authority::new([decode(certificate).unwrap().into()]).unwrap()
}

impl Vectors {
    fn authority(&self) -> Authority {
        authority(&self.authority)
    }

    fn opener(&self, unverified_senders: bool) -> Opener {
        let key = PrivateKey::from_bytes(&hex(&self.receiver_private_key).try_into().unwrap());
        let policy = OpenPolicy {
            unverified_senders,
            ..OpenPolicy::default()
        };
        let receiver = name(&self.receiver_client_id);
        Opener::new(receiver, Keyring::new(key), self.authority(), policy)
    }
}

fn certificate_reason(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Missing => "certificate_missing",
        CertificateError::TooLong => "certificate_too_long",
        CertificateError::Unreadable(_) => "certificate_unreadable",
        CertificateError::NotTrusted(_) => "certificate_not_trusted",
        CertificateError::Expired(_) => "certificate_expired",
        CertificateError::NotYetValid(_) => "certificate_not_yet_valid",
        CertificateError::Revoked(_) => "certificate_revoked",
        CertificateError::UnknownIssuers(_) => "certificate_issuers_unknown",
        CertificateError::OldList { .. } => "certificate_list_old",
        CertificateError::Usage(_) => "certificate_usage",
        CertificateError::Name(_) => "certificate_name",
        CertificateError::KeyKind => "certificate_key_kind",
    }
}

fn key_reason(error: &SignedKeyError) -> &'static str {
    match error {
        SignedKeyError::Malformed(_) => "malformed",
        SignedKeyError::Certificate(error) => certificate_reason(error),
        SignedKeyError::OtherSigner(_) => "other_signer",
        SignedKeyError::Algorithm { .. } => "algorithm",
        SignedKeyError::Signature => "signature",
        SignedKeyError::OtherClient(_) => "other_client",
        SignedKeyError::Expired(_) => "expired",
        SignedKeyError::NotYetValid(_) => "not_yet_valid",
        SignedKeyError::NoKnownSuite => "no_known_suite",
    }
}

fn pin_reason(error: &PinError) -> &'static str {
    match error {
        PinError::Older { .. } => "pinned_epoch_is_higher",
        PinError::OtherKeys(_) => "pinned_keys_are_others",
        PinError::NoLongerSigned => "no_longer_signed",
        PinError::Changed => "changed",
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn every_signed_key_of_the_file_is_accepted() {
    let file = file();
    let receiver = name(&file.receiver_client_id);
    assert!(file.signed_keys.len() >= 20);
    for good in &file.signed_keys {
        let trusted = good.authority.as_deref().unwrap_or(&file.authority);
        let verified = verify(
            &good.signed_key,
            &receiver,
            &authority(trusted),
            time(&good.now),
        )
        .unwrap_or_else(|error| panic!("{}: {error}", good.about));
        let announcement = &verified.announcement;
        assert_eq!(key_texts(&announcement.keys), good.keys, "{}", good.about);
        assert_eq!(announcement.epoch, good.epoch);
        assert_eq!(Some(announcement.not_before), parse_time(&good.not_before));
        assert_eq!(Some(announcement.not_after), parse_time(&good.not_after));
        assert_eq!(verified.certificate.algorithm().as_str(), good.algorithm);
        assert_eq!(Pin::accept(None, &verified.pin()), Ok(()));
    }
}

#[test]
fn every_bad_signed_key_of_the_file_is_refused_as_stated() {
    let file = file();
    assert!(file.signed_keys_must_fail.len() >= 90);
    refuses_keys(&file);
}

fn refuses_keys(file: &Vectors) {
    let receiver = name(&file.receiver_client_id);
    for bad in &file.signed_keys_must_fail {
        let authority = authority(bad.authority.as_deref().unwrap_or(&file.authority));
        let at = time(&bad.now);
        let seen = match verify(&bad.signed_key, &receiver, &authority, at) {
            Err(error) => key_reason(&error),
            Ok(verified) => {
                let pinned = bad
                    .pinned
                    .as_ref()
                    .unwrap_or_else(|| panic!("{} is believed", bad.about));
                let pinned = verify(pinned, &receiver, &authority, at).unwrap().pin();
                pin_reason(&Pin::accept(Some(&pinned), &verified.pin()).unwrap_err())
            }
        };
        assert_eq!(seen, bad.expect, "{}", bad.about);
    }
}

#[test]
fn certificates_of_the_file_name_the_stated_clients() {
    let file = file();
    let authority = file.authority();
    assert!(file.client_ids.len() >= 40);
    for case in &file.client_ids {
        match (case.read(&authority), &case.client_id) {
            (Ok(client_id), Some(expected)) => assert_eq!(client_id, *expected, "{case:?}"),
            (Err(CertificateError::Name(_)), None) => {}
            (read, _) => panic!("{case:?}: {read:?}"),
        }
    }
}

#[test]
fn every_signed_session_of_the_file_opens_with_its_sender() {
    let file = file();
    assert!(file.sessions.len() >= 8);
    for good in &file.sessions {
        let envelope = Envelope::parse(good.envelope.clone().into()).unwrap();
        let mut opener = file.opener(false);
        let certificates = chain(&good.certificates);
        let fingerprint = fingerprint(&certificates[0]);
        assert_eq!(fingerprint.to_string(), good.sender_certificate);
        assert!(matches!(
            opener.open(&envelope).unwrap_err(),
            OpenError::CertificateNeeded { fingerprint: asked, .. } if asked == fingerprint
        ));
        opener.add_sender_chain(certificates.clone());
        let opened = opener.open(&envelope).unwrap();
        assert_eq!(to_hex(&opened.payload), good.payload, "{}", good.about);
        assert_eq!(opened.sender, Some(name(&good.sender_client_id)));
        assert!(opened.is_sender_verified);

        // The intermediate values.
        let fields = envelope.fields().unwrap();
        let enc_session_key = decode(&fields.enc_session_key).unwrap();
        assert_eq!(to_hex(&enc_session_key), good.enc_session_key);
        assert_eq!(
            fields.session_time.as_deref(),
            Some(good.session_time.as_str())
        );
        let signed = SignedFields {
            suite: fields.suite.as_deref().unwrap(),
            sender: &good.sender_client_id,
            receiver: &file.receiver_client_id,
            receiver_key_id: fields.receiver_key_id.as_deref().unwrap(),
            session_time: &good.session_time,
            enc_session_key: &enc_session_key,
        };
        assert_eq!(to_hex(signed.bytes(fingerprint)), good.signed);
        let certificate = file
            .authority()
            .verify(&certificates, time(&good.session_time))
            .unwrap();
        assert_eq!(certificate.algorithm().as_str(), good.algorithm);
        assert!(certificate.has_signed(&hex(&good.signed), &hex(&good.signature)));
    }
}

#[test]
fn every_bad_session_of_the_file_is_refused_as_stated() {
    let file = file();
    assert!(file.sessions_must_fail.len() >= 35);
    refuses_sessions(&file);
}

fn refuses_sessions(file: &Vectors) {
    for bad in &file.sessions_must_fail {
        let envelope = Envelope::parse(bad.envelope.clone().into()).unwrap();
        // Admitting unverified senders admits unsigned sessions, but none with a wrong signature.
        for unverified_senders in [false, true] {
            let mut opener = file.opener(unverified_senders);
            opener.add_sender_chain(chain(&bad.certificates));
            let seen = match opener.open(&envelope) {
                Ok(opened) => {
                    assert!(
                        unverified_senders && !opened.is_sender_verified,
                        "{}",
                        bad.about
                    );
                    "unsigned_session"
                }
                Err(OpenError::UnsignedSession) => "unsigned_session",
                Err(OpenError::NotAuthentic) => "not_authentic",
                Err(OpenError::CertificateNeeded { .. }) => "certificate_needed",
                Err(OpenError::Sender(SenderError::OtherClient(_))) => "other_client",
                Err(OpenError::Sender(SenderError::Certificate(error))) => {
                    certificate_reason(&error)
                }
                Err(error) => panic!("{}: {error}", bad.about),
            };
            assert_eq!(seen, bad.expect, "{}", bad.about);
        }
    }
}

/// Generation verifies for every bad case that a variant without the single fault is accepted.
#[test]
fn every_bad_case_has_a_single_fault() {
    let generated = generate::vectors();
    refuses_keys(&generated);
    refuses_sessions(&generated);
    // The file has the same cases in the same order.
    let file = file();
    let good = |of: &Vectors| -> Vec<_> {
        let keys = of.signed_keys.iter().map(|case| case.about.clone());
        keys.chain(of.sessions.iter().map(|case| case.about.clone()))
            .collect()
    };
    assert_eq!(good(&file), good(&generated));
    let keys = |of: &Vectors| -> Vec<_> {
        let cases = of.signed_keys_must_fail.iter();
        cases
            .map(|case| (case.about.clone(), case.expect.clone()))
            .collect()
    };
    assert_eq!(keys(&file), keys(&generated));
    let client_ids = |of: &Vectors| -> Vec<_> {
        let cases = of.client_ids.iter();
        cases
            .map(|case| {
                let from = case.client_id_from.clone();
                (case.about.clone(), from, case.client_id.clone())
            })
            .collect()
    };
    assert_eq!(client_ids(&file), client_ids(&generated));
    let sessions = |of: &Vectors| -> Vec<_> {
        let cases = of.sessions_must_fail.iter();
        cases
            .map(|case| (case.about.clone(), case.expect.clone()))
            .collect()
    };
    assert_eq!(sessions(&file), sessions(&generated));
}

#[test]
#[ignore = "writes the file with new keys and signatures"]
fn write_file() {
    std::fs::write(
        FILE,
        serde_json::to_string_pretty(&generate::vectors()).unwrap() + "\n",
    )
    .unwrap();
}
