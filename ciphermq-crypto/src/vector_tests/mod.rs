//! Test vectors of `docs/test-vectors/x25519-aes256gcm.json`, generated from fixed inputs.
//!
//! With `CIPHERMQ_WRITE_VECTORS=1` in the environment the file is written instead of compared.

mod bad;
mod good;

use std::convert::Infallible;
use std::path::Path;
use std::str::FromStr;

use ciphermq_protocol::{Envelope, MessageId, StreamId};
use jiff::Timestamp;
use rand::{TryCryptoRng, TryRng};
use serde::{Deserialize, Serialize};

use self::bad::must_fail;
use self::good::{other_spellings, seal};
use crate::{Authority, Header, Keyring, OpenError, OpenPolicy, Opener, PrivateKey, Suite};

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/test-vectors/x25519-aes256gcm.json"
);

/// Decodes hexadecimal text.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

pub(crate) use hex::encode as to_hex;

/// Parses a name of any type.
pub(crate) fn name<T: FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// Returns a header with this id and time.
pub(crate) fn header(message_id: &MessageId, sent_time: Timestamp) -> Header<'_> {
    use std::sync::LazyLock;
    static EXCHANGE: LazyLock<ciphermq_protocol::ExchangeName> =
        LazyLock::new(|| name("ciphermq_exchange"));
    static ROUTING_KEY: LazyLock<ciphermq_protocol::RoutingKey> =
        LazyLock::new(|| name("receiver_1_key"));
    Header {
        message_id,
        exchange: &EXCHANGE,
        routing_key: &ROUTING_KEY,
        content_type: "text/plain",
        sent_time,
    }
}

/// A generator of given bytes, which panics when they are used up.
pub(crate) struct FixedRng<'a>(&'a [u8]);

impl<'a> FixedRng<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl TryRng for FixedRng<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("only bytes are asked for")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("only bytes are asked for")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let (now, later) = self.0.split_at(out.len());
        out.copy_from_slice(now);
        self.0 = later;
        Ok(())
    }
}

impl TryCryptoRng for FixedRng<'_> {}

/// The contents of the file. All bytes are hexadecimal; envelopes are the exact text.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Vectors {
    about: Vec<String>,
    suite: String,
    receiver: Receiver,
    messages: Vec<Message>,
    /// Equivalent envelopes of the first message.
    other_spellings: Vec<OtherSpelling>,
    must_fail: Vec<MustFail>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OtherSpelling {
    about: String,
    envelope: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Receiver {
    client_id: String,
    private_key: String,
    public_key: String,
    key_id: String,
    /// A second key pair of the same receiver, which opens none of these.
    other_private_key: String,
    other_key_id: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Message {
    about: String,
    sender_client_id: String,
    session_time: String,
    session_key: String,
    /// HPKE's `ikmE`: the ephemeral key pair is DeriveKeyPair of it (RFC 9180, section 7.1.3).
    ephemeral_ikm: String,
    info: String,
    enc_session_key: String,
    enc_session_key_sha256: String,
    message_id: String,
    exchange: String,
    routing_key: String,
    sent_time: String,
    content_type: String,
    payload: String,
    nonce: String,
    aad: String,
    ciphertext: String,
    tag: String,
    envelope: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct MustFail {
    about: String,
    /// `no_envelope`, `not_authentic`, `no_private_key`, `other_receiver`, `unknown_suite`,
    /// `older_client`, `outside_session`
    expect: String,
    envelope: String,
}

struct Input {
    about: &'static str,
    sender: &'static str,
    session: u8,
    message_id: MessageId,
    exchange: &'static str,
    routing_key: &'static str,
    content_type: &'static str,
    session_millis: i64,
    sent_millis: i64,
    payload: &'static [u8],
    nonce: [u8; 12],
}

const SESSION_MILLIS: i64 = 1_757_314_980_000;

fn inputs() -> Vec<Input> {
    let stream = StreamId::new(1_757_314_979_999, 0x0001_2345_6789);
    let plain = |position| Input {
        about: "a text",
        sender: "sender_1",
        session: 1,
        message_id: stream.message_id(position).unwrap(),
        exchange: "ciphermq_exchange",
        routing_key: "receiver_1_key",
        content_type: "text/plain",
        session_millis: SESSION_MILLIS,
        sent_millis: SESSION_MILLIS,
        payload: b"Secure message from Sender to Receivers",
        nonce: std::array::from_fn(|index| {
            u8::try_from(index).unwrap() + 16 * u8::try_from(position).unwrap()
        }),
    };
    vec![
        plain(0),
        Input {
            about: "the last moment of the same session, an empty payload",
            payload: b"",
            content_type: "application/octet-stream",
            sent_millis: SESSION_MILLIS + 600_000,
            ..plain(1)
        },
        Input {
            about: "another session; names that JSON escapes or that are not ASCII; bytes that are \
                    no text",
            sender: "station/Zürich",
            session: 2,
            exchange: "\"quoted\"\\",
            routing_key: "温度.Zürich→Bern",
            content_type: "text/plain; charset=\"x\"\n",
            session_millis: SESSION_MILLIS + 1,
            sent_millis: SESSION_MILLIS + 86,
            payload: &[0, 255, 254, 10, 13, 34, 92, 128],
            ..plain(2)
        },
    ]
}

fn key(first: u8) -> PrivateKey {
    PrivateKey::from_bytes(&std::array::from_fn(|index| {
        u8::try_from(index).unwrap() ^ first
    }))
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap()
}

fn vectors() -> Vectors {
    let (private, other) = (key(0xa0), key(0xb0));
    Vectors {
        about: [
            "CipherMQ test vectors of the suite X25519-AES256GCM; docs/cryptography.md says what \
             they mean.",
            "Bytes are hexadecimal, texts are texts, an envelope is the exact text of the JSON \
             object.",
            "other_spellings: envelopes of the first message that open as it does.",
            "must_fail: what the receiver `receiver_1`, who has both private keys and expects no \
             particular exchange or routing key, must answer. Only `outside_session` may be told \
             after opening.",
            "Never use a key of this file.",
        ]
        .map(str::to_owned)
        .to_vec(),
        suite: Suite::X25519Aes256Gcm.to_string(),
        receiver: Receiver {
            client_id: "receiver_1".to_owned(),
            private_key: to_hex(private.as_bytes()),
            public_key: to_hex(private.public_key().as_bytes()),
            key_id: private.public_key().key_id().to_string(),
            other_private_key: to_hex(other.as_bytes()),
            other_key_id: other.public_key().key_id().to_string(),
        },
        messages: inputs().iter().map(seal).collect(),
        other_spellings: other_spellings(),
        must_fail: must_fail(),
    }
}

fn file() -> Vectors {
    serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap()
}

fn opener(receiver: &Receiver, unverified_senders: bool) -> Opener {
    let key = |text: &str| PrivateKey::from_bytes(&hex(text).try_into().unwrap());
    let keyring =
        Keyring::new(key(&receiver.private_key)).with_older(key(&receiver.other_private_key));
    let policy = OpenPolicy {
        unverified_senders,
        ..OpenPolicy::default()
    };
    Opener::new(
        name(&receiver.client_id),
        keyring,
        Authority::nobody(),
        policy,
    )
}

fn envelope(text: &str) -> Envelope {
    Envelope::parse(text.to_owned().into()).unwrap()
}

#[test]
fn the_file_matches_this_version() {
    if std::env::var_os("CIPHERMQ_WRITE_VECTORS").is_some() {
        std::fs::create_dir_all(Path::new(FILE).parent().unwrap()).unwrap();
        std::fs::write(
            FILE,
            serde_json::to_string_pretty(&vectors()).unwrap() + "\n",
        )
        .unwrap();
    }
    assert_eq!(file(), vectors());
}

#[test]
fn every_message_of_the_file_opens() {
    let file = file();
    assert_eq!(file.messages.len(), 3);
    let mut opener = opener(&file.receiver, true);
    for message in &file.messages {
        let opened = opener.open(&envelope(&message.envelope)).unwrap();
        assert_eq!(
            to_hex(&opened.payload),
            message.payload,
            "{}",
            message.about
        );
        assert_eq!(opened.message_id.as_str(), message.message_id);
        assert_eq!(opened.sender.unwrap().as_str(), message.sender_client_id);
        assert_eq!(opened.content_type.unwrap(), message.content_type);
    }
    let first = opener.open(&envelope(&file.messages[0].envelope)).unwrap();
    assert_eq!(file.other_spellings.len(), 4);
    for other in &file.other_spellings {
        assert_ne!(other.envelope, file.messages[0].envelope);
        let opened = opener.open(&envelope(&other.envelope));
        assert_eq!(opened.as_ref(), Ok(&first), "{}", other.about);
    }
}

#[test]
fn every_bad_message_of_the_file_fails_as_stated() {
    let file = file();
    assert!(file.must_fail.len() > 55);
    for bad in &file.must_fail {
        if bad.expect == "no_envelope" {
            let read = Envelope::parse(bad.envelope.clone().into());
            assert!(read.is_err(), "{}", bad.about);
            continue;
        }
        // With the session cached and not cached: the error is the same. The sessions of the
        // vectors are not signed; a receiver that requires proof refuses an older client's message.
        let admits = bad.expect != "older_client";
        let mut fresh = opener(&file.receiver, admits);
        let mut warm = opener(&file.receiver, admits);
        let warmed = warm.open(&envelope(&file.messages[0].envelope));
        assert_eq!(warmed.is_ok(), admits);
        for opener in [&mut fresh, &mut warm] {
            let error = opener.open(&envelope(&bad.envelope)).unwrap_err();
            let seen = match error {
                OpenError::UnsignedSession => "unsigned_session",
                OpenError::CertificateNeeded { .. } => "certificate_needed",
                OpenError::Sender(_) => "sender",
                OpenError::NotAuthentic => "not_authentic",
                OpenError::NoPrivateKey(_) => "no_private_key",
                OpenError::OtherReceiver(_) => "other_receiver",
                OpenError::UnknownSuite(_) => "unknown_suite",
                OpenError::OlderClient => "older_client",
                OpenError::OutsideSession => "outside_session",
                OpenError::OtherExchange(_) | OpenError::OtherRoutingKey(_) => "elsewhere",
                OpenError::OtherSender(_) | OpenError::NoSender => "sender",
            };
            assert_eq!(seen, bad.expect, "{}", bad.about);
        }
    }
}
