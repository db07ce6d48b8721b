//! Test vectors of `docs/test-vectors/x25519-aes256gcm.json`, generated from fixed inputs.
//!
//! With `CIPHERMQ_WRITE_VECTORS=1` in the environment the file is written instead of compared.

use std::convert::Infallible;
use std::path::Path;
use std::str::FromStr;

use ciphermq_protocol::envelope::Fields;
use ciphermq_protocol::{ClientId, Envelope, MessageId, StreamId};
use jiff::Timestamp;
use rand::{TryCryptoRng, TryRng};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::encoding::{decode, encode};
use crate::seal::SessionStart;
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

fn seal(input: &Input) -> Message {
    let receiver = name::<ClientId>("receiver_1");
    let sender = name::<ClientId>(input.sender);
    let private = key(0xa0);
    let session_key = Zeroizing::new([0x50 + input.session; 32]);
    let ikm = [0xe0 + input.session; 32];
    let start = time(input.session_millis);
    let key = (*private.public_key()).into();
    let mut session = SessionStart::with_key(
        &sender,
        &receiver,
        &key,
        start,
        session_key.clone(),
        &mut FixedRng::new(&ikm),
    )
    .unwrap()
    .session(None);
    let (exchange, routing_key) = (name(input.exchange), name(input.routing_key));
    let header = Header {
        message_id: &input.message_id,
        exchange: &exchange,
        routing_key: &routing_key,
        content_type: input.content_type,
        sent_time: time(input.sent_millis),
    };
    let envelope = session
        .seal_with_nonce(&header, input.payload, input.nonce)
        .unwrap();
    let fields = envelope.fields().unwrap();
    let enc_session_key = decode(&fields.enc_session_key).unwrap();
    Message {
        about: input.about.to_owned(),
        sender_client_id: input.sender.to_owned(),
        session_time: fields.session_time.clone().unwrap().into_owned(),
        session_key: to_hex(*session_key),
        ephemeral_ikm: to_hex(ikm),
        info: to_hex(crate::session::info_of(
            Suite::X25519Aes256Gcm,
            &sender,
            &receiver,
            private.public_key().key_id(),
            start,
        )),
        enc_session_key_sha256: to_hex(crate::payload::hash(&enc_session_key)),
        enc_session_key: to_hex(&enc_session_key),
        message_id: input.message_id.to_string(),
        exchange: input.exchange.to_owned(),
        routing_key: input.routing_key.to_owned(),
        sent_time: fields.sent_time.clone().unwrap().into_owned(),
        content_type: input.content_type.to_owned(),
        payload: to_hex(input.payload),
        nonce: to_hex(input.nonce),
        aad: to_hex(session.last_aad()),
        ciphertext: to_hex(decode(&fields.ciphertext).unwrap()),
        tag: to_hex(decode(fields.tag.as_deref().unwrap()).unwrap()),
        envelope: String::from_utf8(envelope.raw().to_bytes().to_vec()).unwrap(),
    }
}

fn flip(base64: &str, byte: usize) -> String {
    let mut bytes = decode(base64).unwrap();
    bytes[byte] ^= 1;
    encode(&bytes)
}

/// Returns equivalent envelopes: the fields are authenticated, their JSON is not.
fn other_spellings() -> Vec<OtherSpelling> {
    let good = seal(&inputs().remove(0)).envelope;
    let inner = good.trim_start_matches('{').trim_end_matches('}');
    let mut reversed: Vec<&str> = inner.split(',').collect();
    reversed.reverse();
    let spelling = |about: &str, envelope: String| OtherSpelling {
        about: about.to_owned(),
        envelope,
    };
    vec![
        spelling(
            "another order, and white space",
            format!(
                "{{ {} }}",
                reversed.join(" ,\r\n\t").replace("\":\"", "\" : \"")
            ),
        ),
        spelling(
            "characters escaped that need not be",
            good.replacen("sender_1", "\\u0073ender\\u005F1", 1)
                .replacen("\"nonce\"", "\"n\\u006fnce\"", 1)
                .replace("text/plain", "text\\/plain"),
        ),
        spelling(
            "fields that are not known, with null, and with a key twice inside",
            good.replacen('{', "{\"new\":{\"a\":1,\"a\":[null]},\"newer\":null,", 1),
        ),
        spelling(
            "certificate and signature are null",
            good.replacen(
                '{',
                "{\"sender_certificate\":null,\"sender_signature\":null,",
                1,
            ),
        ),
    ]
}

/// Returns texts that are not envelopes, which the broker refuses, too.
fn no_envelopes(good: &str) -> Vec<(&'static str, String)> {
    let more = |more: &str| good.replacen('{', &format!("{{{more},"), 1);
    let value = |field: &str, value: &str| {
        let start = good.find(&format!("\"{field}\":")).unwrap() + field.len() + 3;
        let end = start + 1 + good[start + 1..].find('"').unwrap() + 1;
        format!("{}{value}{}", &good[..start], &good[end..])
    };
    let long = format!("\"{}\"", "x".repeat(256));
    vec![
        (
            "a field stands twice",
            more("\"tag\":\"AAAAAAAAAAAAAAAAAAAAAA==\""),
        ),
        ("a field stands twice, once as null", more("\"tag\":null")),
        (
            "a field stands twice, once escaped",
            more("\"t\\u0061g\":null"),
        ),
        (
            "a field that is not known stands twice",
            more("\"new\":1,\"new\":1"),
        ),
        ("the message id is null", value("message_id", "null")),
        ("the nonce is null", value("nonce", "null")),
        ("the nonce is a number", value("nonce", "1")),
        ("the tag is a number", value("tag", "1")),
        ("the message id is empty", value("message_id", "\"\"")),
        ("the message id has a space", value("message_id", "\"m 1\"")),
        ("the message id has 256 bytes", value("message_id", &long)),
        (
            "the sender has an invisible character",
            value("sender_client_id", "\"sender_1\\u200b\""),
        ),
        (
            "the exchange has a line feed",
            value("exchange", "\"ciphermq\\nexchange\""),
        ),
        ("an array", format!("[{good}]")),
        ("something stands behind it", format!("{good} {{}}")),
        (
            "a byte order mark stands before it",
            format!("\u{feff}{good}"),
        ),
    ]
}

fn must_fail() -> Vec<MustFail> {
    let input = inputs().remove(0);
    let good = seal(&input).envelope;
    let fields = || Fields::parse(&good).unwrap();
    let mut cases = Vec::new();
    let mut case = |about: &str, expect: &str, envelope: String| {
        cases.push(MustFail {
            about: about.to_owned(),
            expect: expect.to_owned(),
            envelope,
        });
    };
    let mut altered = |about: &str, expect: &str, alter: &dyn Fn(&mut Fields<'_>)| {
        let mut fields = fields();
        alter(&mut fields);
        case(
            about,
            expect,
            String::from_utf8(Envelope::build(&fields).unwrap().raw().to_bytes().to_vec()).unwrap(),
        );
    };
    let other_key_id = key(0xb0).public_key().key_id().to_string();
    altered("the message id is another", "not_authentic", &|f| {
        f.message_id = "m-1".into();
    });
    altered("the sender is another", "not_authentic", &|f| {
        f.sender_client_id = Some("sender_2".into());
    });
    altered("the exchange is another", "not_authentic", &|f| {
        f.exchange = Some("other".into());
    });
    altered("the routing key is another", "not_authentic", &|f| {
        f.routing_key = Some("other".into());
    });
    altered("the sent time is another", "not_authentic", &|f| {
        f.sent_time = Some("2025-09-08T07:03:00.001Z".into());
    });
    altered("the session time is another", "not_authentic", &|f| {
        f.session_time = Some("2025-09-08T07:02:59.999Z".into());
    });
    altered("the content type is another", "not_authentic", &|f| {
        f.content_type = Some("text/html".into());
    });
    altered(
        "another of the receiver's keys is named",
        "not_authentic",
        &|f| {
            f.receiver_key_id = Some(other_key_id.clone().into());
        },
    );
    altered(
        "a key that the receiver has not is named",
        "no_private_key",
        &|f| {
            f.receiver_key_id = Some("0123456789abcdef".into());
        },
    );
    altered("the key id is in capitals", "not_authentic", &|f| {
        f.receiver_key_id = f
            .receiver_key_id
            .as_ref()
            .map(|id| id.to_uppercase().into());
    });
    altered("the receiver is another", "other_receiver", &|f| {
        f.receiver_client_id = "receiver_2".into();
    });
    altered("the suite is another", "unknown_suite", &|f| {
        f.suite = Some("X25519-AES128GCM".into());
    });
    altered("the suite is in small letters", "unknown_suite", &|f| {
        f.suite = Some("x25519-aes256gcm".into());
    });
    altered("the suite was taken away", "older_client", &|f| {
        f.suite = None;
    });
    altered("a bit of the nonce", "not_authentic", &|f| {
        f.nonce = flip(&f.nonce, 0).into();
    });
    altered("a bit of the ciphertext", "not_authentic", &|f| {
        f.ciphertext = flip(&f.ciphertext, 38).into();
    });
    altered("a bit of the tag", "not_authentic", &|f| {
        f.tag = f.tag.as_ref().map(|tag| flip(tag, 15).into());
    });
    altered("a bit of the encapsulated key", "not_authentic", &|f| {
        f.enc_session_key = flip(&f.enc_session_key, 31).into();
    });
    altered(
        "the top bit of the encapsulated key, which X25519 does not look at",
        "not_authentic",
        &|f| {
            let mut bytes = decode(&f.enc_session_key).unwrap();
            bytes[31] ^= 0x80;
            f.enc_session_key = encode(&bytes).into();
        },
    );
    altered("a bit of the sealed session key", "not_authentic", &|f| {
        f.enc_session_key = flip(&f.enc_session_key, 32).into();
    });
    altered("an encapsulated key of zeros", "not_authentic", &|f| {
        let mut bytes = decode(&f.enc_session_key).unwrap();
        bytes[..32].fill(0);
        f.enc_session_key = encode(&bytes).into();
    });
    for (about, point) in [
        (
            "an encapsulated key of small order, 1",
            "01".to_owned() + &"00".repeat(31),
        ),
        (
            "an encapsulated key of small order, 8",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800".to_owned(),
        ),
        (
            "an encapsulated key of zeros in another spelling",
            "ed".to_owned() + &"ff".repeat(30) + "7f",
        ),
    ] {
        altered(about, "not_authentic", &|f| {
            let mut bytes = decode(&f.enc_session_key).unwrap();
            bytes[..32].copy_from_slice(&hex(&point));
            f.enc_session_key = encode(&bytes).into();
        });
    }
    for field in [
        "session_time",
        "sent_time",
        "content_type",
        "receiver_key_id",
        "sender_client_id",
    ] {
        let about = format!("`{field}` was taken away");
        altered(&about, "not_authentic", &|f| match field {
            "session_time" => f.session_time = None,
            "sent_time" => f.sent_time = None,
            "content_type" => f.content_type = None,
            "receiver_key_id" => f.receiver_key_id = None,
            _ => f.sender_client_id = None,
        });
    }
    altered("the ciphertext is a byte shorter", "not_authentic", &|f| {
        let bytes = decode(&f.ciphertext).unwrap();
        f.ciphertext = encode(&bytes[..bytes.len() - 1]).into();
    });
    altered(
        "the tag stands at the end of the ciphertext",
        "not_authentic",
        &|f| {
            let tag = f.tag.take().unwrap();
            f.ciphertext =
                encode(&[decode(&f.ciphertext).unwrap(), decode(&tag).unwrap()].concat()).into();
        },
    );
    altered("the tag is a byte shorter", "not_authentic", &|f| {
        f.tag = f
            .tag
            .as_ref()
            .map(|tag| encode(&decode(tag).unwrap()[..15]).into());
    });
    altered("the tag's base64 has no padding", "not_authentic", &|f| {
        f.tag = f
            .tag
            .as_ref()
            .map(|tag| tag.trim_end_matches('=').to_owned().into());
    });
    altered(
        "the tag's base64 has stray bits at its end",
        "not_authentic",
        &|f| {
            f.tag = f.tag.as_ref().map(|tag| {
                let mut text = tag.trim_end_matches('=').to_owned();
                let last = text.pop().unwrap();
                // The last of 22 digits is one of A, Q, g, w; the next digit differs in bits that
                // are not used.
                text.push(char::from(u8::try_from(last).unwrap() + 1));
                (text + "==").into()
            });
        },
    );
    altered(
        "the ciphertext's base64 holds a line feed",
        "not_authentic",
        &|f| {
            f.ciphertext = format!("{}\n{}", &f.ciphertext[..4], &f.ciphertext[4..]).into();
        },
    );
    altered("the sent time in another spelling", "not_authentic", &|f| {
        f.sent_time = Some("2025-09-08T07:03:00Z".into());
    });
    altered("the exchange was taken away", "not_authentic", &|f| {
        f.exchange = None;
    });

    for (about, envelope) in no_envelopes(&good) {
        case(about, "no_envelope", envelope);
    }
    let null = |field: &str| {
        let start = good.find(&format!("\"{field}\":")).unwrap() + field.len() + 3;
        let end = start + 1 + good[start + 1..].find('"').unwrap() + 1;
        format!("{}null{}", &good[..start], &good[end..])
    };
    case("the tag is null", "not_authentic", null("tag"));
    case("the suite is null", "older_client", null("suite"));

    for (about, sent_millis) in [
        (
            "sealed a millisecond after the session's end, by a sender that does not keep the \
             limits",
            600_001,
        ),
        (
            "sealed a millisecond before the session's start, by a sender that does not keep the \
             limits",
            -1,
        ),
    ] {
        let late = Input {
            sent_millis: SESSION_MILLIS + sent_millis,
            ..inputs().remove(0)
        };
        case(about, "outside_session", seal(&late).envelope);
    }
    cases
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
