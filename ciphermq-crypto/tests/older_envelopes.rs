//! Messages that the three older generations of clients sealed, with the key that opens them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use bytes::Bytes;
use ciphermq_crypto::{
    Authority, Form, Keyring, OlderForm, OpenError, OpenPolicy, Opener, PrivateKey, PublicKey,
};
use ciphermq_protocol::Envelope;
use ciphermq_protocol::envelope::Fields;
use serde::Deserialize;
use serde_json::value::RawValue;

const FILE: &str = include_str!("../../tests/data/older-envelopes.json");

#[derive(Deserialize)]
struct File<'a> {
    receiver_private_key: String,
    receiver_public_key: String,
    #[serde(borrow)]
    cases: Vec<Case<'a>>,
}

#[derive(Deserialize)]
struct Case<'a> {
    generation: String,
    #[serde(borrow)]
    envelope: &'a RawValue,
    plaintext: String,
}

impl Case<'_> {
    fn envelope(&self) -> Envelope {
        Envelope::parse(Bytes::copy_from_slice(self.envelope.get().as_bytes())).unwrap()
    }
}

fn file() -> File<'static> {
    serde_json::from_str(FILE).unwrap()
}

fn key() -> PrivateKey {
    PrivateKey::from_base64(&file().receiver_private_key).unwrap()
}

fn opener(keyring: Keyring, older_clients: bool) -> Opener {
    Opener::new(
        "receiver_1".parse().unwrap(),
        keyring,
        Authority::nobody(),
        OpenPolicy {
            unverified_senders: older_clients,
            ..OpenPolicy::default()
        },
    )
}

#[test]
fn the_key_is_the_files() {
    assert_eq!(
        *key().public_key(),
        PublicKey::from_base64(&file().receiver_public_key).unwrap()
    );
}

#[test]
fn every_case_opens() {
    // Also with a key that is not the newest: the envelopes do not name theirs.
    for keyring in [
        Keyring::new(key()),
        Keyring::new(PrivateKey::generate().unwrap()).with_older(key()),
    ] {
        let mut opener = opener(keyring, true);
        let mut seen = Vec::new();
        for case in file().cases {
            let opened = opener.open(&case.envelope()).unwrap();
            assert_eq!(opened.payload, case.plaintext.as_bytes());
            let form = match case.generation.as_str() {
                "A" => OlderForm::A,
                "B" => OlderForm::B,
                "C" => OlderForm::C,
                other => panic!("generation {other}"),
            };
            assert_eq!(opened.form, Form::Older(form));
            assert_eq!(opened.message_id, case.envelope().message_id);
            assert_eq!(
                opened.sent_time.is_some(),
                case.envelope().fields().unwrap().sent_time.is_some()
            );
            seen.push(case.generation);
        }
        assert_eq!(seen.concat(), "AAAABBBBCCCC");
    }
}

#[test]
fn they_are_refused_unless_admitted() {
    let mut opener = opener(Keyring::new(key()), false);
    for case in file().cases {
        assert_eq!(opener.open(&case.envelope()), Err(OpenError::OlderClient));
    }
}

#[test]
fn another_key_does_not_open_them() {
    let mut opener = opener(Keyring::new(PrivateKey::generate().unwrap()), true);
    for case in file().cases {
        assert_eq!(opener.open(&case.envelope()), Err(OpenError::NotAuthentic));
    }
}

#[test]
fn sealed_parts_that_were_altered_do_not_open() {
    let mut opener = opener(Keyring::new(key()), true);
    let flip = |base64: &str, at: usize| {
        let mut text = base64.as_bytes().to_vec();
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(text).unwrap()
    };
    let shorter = |base64: &str| base64[..base64.len() - 4].to_owned();
    for case in file().cases {
        let envelope = case.envelope();
        let mut refused = |alter: &dyn Fn(&mut Fields<'_>)| {
            let mut fields = envelope.fields().unwrap();
            alter(&mut fields);
            let altered = Envelope::build(&fields).unwrap();
            assert_eq!(
                opener.open(&altered),
                Err(OpenError::NotAuthentic),
                "{}",
                case.generation
            );
        };
        for at in 0..envelope.fields().unwrap().enc_session_key.len() - 2 {
            refused(&|f| f.enc_session_key = flip(&f.enc_session_key, at).into());
        }
        for at in 0..16 {
            refused(&|f| f.nonce = flip(&f.nonce, at).into());
        }
        refused(&|f| f.enc_session_key = shorter(&f.enc_session_key).into());
        refused(&|f| f.enc_session_key = String::new().into());
        refused(&|f| f.nonce = shorter(&f.nonce).into());
        refused(&|f| f.ciphertext = String::new().into());
        refused(&|f| f.ciphertext = flip(&f.ciphertext, 0).into());
        refused(&|f| match &f.tag {
            Some(tag) => f.tag = Some(flip(tag, 7).into()),
            None => f.ciphertext = shorter(&f.ciphertext).into(),
        });
        refused(&|f| {
            f.tag = if f.tag.is_some() {
                None
            } else {
                Some("AAAAAAAAAAAAAAAAAAAAAA==".into())
            }
        });
    }
}
