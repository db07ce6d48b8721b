//! Messages that older generations of clients have sealed, and the key that opens them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use ciphermq_crypto::{
    Authority, Form, Keyring, OlderForm, OpenError, OpenPolicy, Opener, PrivateKey, PublicKey,
};
use ciphermq_protocol::Envelope;
use ciphermq_protocol::envelope::{Encoded, Fields};
use serde::Deserialize;
use serde_json::value::RawValue;

const FILE: &str = include_str!("../../docs/test-vectors/older-envelopes.json");

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
fn the_key_matches_the_file() {
    assert_eq!(
        *key().public_key(),
        PublicKey::from_base64(&file().receiver_public_key).unwrap()
    );
}

#[test]
fn every_case_opens() {
    // With an older key as well: the envelopes do not name theirs.
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
                "0" => OlderForm::Zero,
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
        assert_eq!(seen.concat(), "00AAAABBBBCCCC");
    }
}

#[test]
fn older_clients_are_refused_unless_admitted() {
    let mut opener = opener(Keyring::new(key()), false);
    for case in file().cases {
        assert_eq!(opener.open(&case.envelope()), Err(OpenError::OlderClient));
    }
}

#[test]
fn another_key_opens_none() {
    let mut opener = opener(Keyring::new(PrivateKey::generate().unwrap()), true);
    for case in file().cases {
        assert_eq!(opener.open(&case.envelope()), Err(OpenError::NotAuthentic));
    }
}

#[test]
fn altered_messages_do_not_open() {
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
            refused(&|f| f.nonce = flip(&f.nonce.text(), at).into());
        }
        refused(&|f| f.enc_session_key = shorter(&f.enc_session_key).into());
        refused(&|f| f.enc_session_key = String::new().into());
        refused(&|f| f.nonce = shorter(&f.nonce.text()).into());
        refused(&|f| f.ciphertext = String::new().into());
        for at in 0..envelope
            .fields()
            .unwrap()
            .ciphertext
            .text()
            .trim_end_matches('=')
            .len()
            - 1
        {
            refused(&|f| f.ciphertext = flip(&f.ciphertext.text(), at).into());
        }
        refused(&|f| match &f.tag {
            Some(tag) => f.tag = Some(flip(&tag.text(), 7).into()),
            None => f.ciphertext = shorter(&f.ciphertext.text()).into(),
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

/// Generation 0 has its tag twice: if either differs, the message is refused, even if the other one
/// is right in another form.
#[test]
fn both_tags_of_generation_0_are_checked() {
    let mut opener = opener(Keyring::new(key()), true);
    let of_0: Vec<Case<'_>> = file()
        .cases
        .into_iter()
        .filter(|case| case.generation == "0")
        .collect();
    assert_eq!(of_0.len(), 2);
    for case in of_0 {
        let envelope = case.envelope();
        let whole = envelope.fields().unwrap().into_owned();
        let ciphertext = whole.ciphertext.bytes().unwrap().into_owned();
        let tag = whole
            .tag
            .as_ref()
            .and_then(Encoded::bytes)
            .unwrap()
            .into_owned();
        let payload = ciphertext.strip_suffix(&tag[..]).unwrap();
        let mut open = |ciphertext: &[u8], tag: Option<&[u8]>| {
            let mut fields = whole.clone();
            fields.ciphertext = BASE64_STANDARD.encode(ciphertext).into();
            fields.tag = tag.map(|tag| BASE64_STANDARD.encode(tag).into());
            opener
                .open(&Envelope::build(&fields).unwrap())
                .map(|opened| opened.payload)
        };
        assert_eq!(
            open(&ciphertext, Some(&tag)).unwrap(),
            case.plaintext.as_bytes()
        );
        let mut other = tag.clone();
        other[3] ^= 1;
        let with_other = [payload, &other].concat();
        for (ciphertext, tag) in [
            (&ciphertext[..], Some(&other[..])),
            (&with_other, Some(&tag)),
            // Both differ, but agree with each other.
            (&with_other, Some(&other)),
            // As generation A, and as B.
            (payload, Some(&tag)),
            (&ciphertext, None),
            (&ciphertext, Some(&tag[..15])),
            (&ciphertext, Some(&[])),
            ([payload, &tag, &tag].concat().as_slice(), Some(&tag)),
        ] {
            assert_eq!(open(ciphertext, tag), Err(OpenError::NotAuthentic));
        }
    }
}
