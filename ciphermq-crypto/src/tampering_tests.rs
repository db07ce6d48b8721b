//! An altered envelope does not open, and the error does not reveal what was altered.

use ciphermq_protocol::envelope::{Encoded, Fields};
use ciphermq_protocol::{ClientId, Envelope, MessageId};
use jiff::Timestamp;

use crate::encoding::{decode, encode};
use crate::identity::fingerprint;
use crate::identity::testing::Ca;
use crate::vector_tests::{header, name};
use crate::{
    Authority, Keyring, OpenError, OpenPolicy, Opener, PrivateKey, SenderError, SendingSession,
};

struct Case {
    envelope: Envelope,
    keyring: Keyring,
    authority: Authority,
    sender: Ca,
    ca: Ca,
}

impl Case {
    fn new(payload: &[u8]) -> Self {
        let [key, other] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let now = Timestamp::from_second(1_757_314_980).unwrap();
        let receiver: ClientId = name("receiver_1");
        let ca = Ca::new("ca");
        let sender = ca.issue("sender_1");
        let mut session = SendingSession::start(
            &sender.identity(),
            &receiver,
            &(*key.public_key()).into(),
            now,
        )
        .unwrap();
        let message_id: MessageId = name("01992a3b-4c5d-8fff-bfff-ff0000000000");
        let envelope = session.seal(&header(&message_id, now), payload).unwrap();
        Self {
            envelope,
            keyring: Keyring::new(key).with_older(other),
            authority: ca.authority(),
            sender,
            ca,
        }
    }

    fn opener(&self, receiver: &str) -> Opener {
        let policy = OpenPolicy {
            unverified_senders: true,
            ..OpenPolicy::default()
        };
        self.opener_with(receiver, self.keyring.clone(), policy)
    }

    fn opener_with(&self, receiver: &str, keyring: Keyring, policy: OpenPolicy) -> Opener {
        let mut opener = Opener::new(name(receiver), keyring, self.authority.clone(), policy);
        opener.add_sender_chain(self.sender.chain.clone());
        opener
    }

    fn fields(&self) -> Fields<'_> {
        self.envelope.fields().unwrap()
    }

    /// Opens the altered envelope, with the session not cached and cached.
    fn open_altered(&self, alter: impl FnOnce(&mut Fields<'_>)) -> [Result<Vec<u8>, OpenError>; 2] {
        let mut fields = self.fields();
        alter(&mut fields);
        assert_ne!(fields, self.fields(), "nothing was altered");
        let altered = Envelope::build(&fields).unwrap();
        let mut warm = self.opener("receiver_1");
        warm.open(&self.envelope).unwrap();
        [self.opener("receiver_1"), warm]
            .map(|mut opener| opener.open(&altered).map(|opened| opened.payload))
    }

    fn assert_not_authentic(&self, what: &str, alter: impl FnOnce(&mut Fields<'_>)) {
        for opened in self.open_altered(alter) {
            assert_eq!(opened, Err(OpenError::NotAuthentic), "{what}");
        }
    }
}

/// An accessor of a part of an envelope, for iteration: its bytes, and their replacement.
struct Part {
    name: &'static str,
    bytes: fn(&Fields<'_>) -> Option<Vec<u8>>,
    replace: fn(&mut Fields<'_>, String),
}

#[test]
fn every_flipped_bit_of_every_sealed_part_is_detected() {
    let case = Case::new(b"a payload of 24 bytes...");
    let parts = [
        Part {
            name: "enc_session_key",
            bytes: |f| decode(&f.enc_session_key),
            replace: |f, text| f.enc_session_key = text.into(),
        },
        Part {
            name: "nonce",
            bytes: |f| Some(f.nonce.bytes()?.into_owned()),
            replace: |f, text| f.nonce = text.into(),
        },
        Part {
            name: "ciphertext",
            bytes: |f| Some(f.ciphertext.bytes()?.into_owned()),
            replace: |f, text| f.ciphertext = text.into(),
        },
        Part {
            name: "tag",
            bytes: |f| Some(f.tag.as_ref()?.bytes()?.into_owned()),
            replace: |f, text| f.tag = Some(text.into()),
        },
        Part {
            name: "sender_signature",
            bytes: |f| decode(f.sender_signature.as_deref()?),
            replace: |f, text| f.sender_signature = Some(text.into()),
        },
    ];
    let mut bits = 0;
    for part in parts {
        let bytes = (part.bytes)(&case.fields()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let altered = encode(&bytes);
            let what = format!("bit {bit} of {}", part.name);
            case.assert_not_authentic(&what, |f| (part.replace)(f, altered));
            bits += 1;
        }
    }
    assert_eq!(bits, (80 + 12 + 24 + 16 + 96) * 8);
}

#[test]
fn every_other_length_of_every_sealed_part_is_detected() {
    let case = Case::new(b"a payload of 24 bytes...");
    for length in [0, 1, 31, 32, 47, 79, 81, 160] {
        let mut bytes = decode(&case.fields().enc_session_key).unwrap();
        bytes.resize(length, 0);
        case.assert_not_authentic("enc_session_key", |f| {
            f.enc_session_key = encode(&bytes).into();
        });
    }
    for length in [0, 11, 13, 16] {
        let mut bytes = case.fields().nonce.bytes().unwrap().into_owned();
        bytes.resize(length, 0);
        case.assert_not_authentic("nonce", |f| f.nonce = encode(&bytes).into());
    }
    for length in [0, 23, 25] {
        let mut bytes = case.fields().ciphertext.bytes().unwrap().into_owned();
        bytes.resize(length, 0);
        case.assert_not_authentic("ciphertext", |f| f.ciphertext = encode(&bytes).into());
    }
    for length in [0, 4, 8, 12, 15, 17] {
        let tag = case.fields().tag.unwrap();
        let mut bytes = tag.bytes().unwrap().into_owned();
        bytes.resize(length, 0);
        case.assert_not_authentic("tag", |f| f.tag = Some(encode(&bytes).into()));
    }
}

#[test]
fn every_altered_header_field_is_detected() {
    let case = Case::new(b"payload");
    let other_key = case
        .keyring
        .keys()
        .nth(1)
        .unwrap()
        .public_key()
        .key_id()
        .to_string();
    case.assert_not_authentic("message_id", |f| {
        f.message_id = "01992a3b-4c5d-8fff-bfff-ff0000000001".into();
    });
    case.assert_not_authentic("sender_client_id", |f| {
        f.sender_client_id = Some("sender_2".into());
    });
    case.assert_not_authentic("receiver_key_id", |f| {
        f.receiver_key_id = Some(other_key.into());
    });
    case.assert_not_authentic("exchange", |f| f.exchange = Some("x".into()));
    case.assert_not_authentic("routing_key", |f| f.routing_key = Some("x".into()));
    case.assert_not_authentic("sent_time", |f| {
        f.sent_time = Some("2025-09-08T07:03:00.001Z".into());
    });
    case.assert_not_authentic("content_type", |f| {
        f.content_type = Some("text/plain ".into());
    });
    case.assert_not_authentic("session_time", |f| {
        f.session_time = Some("2025-09-08T07:02:59.999Z".into());
    });
    case.assert_not_authentic("exchange and routing key exchanged", |f| {
        std::mem::swap(&mut f.exchange, &mut f.routing_key);
    });
    // Moving characters from one field into the next leaves the concatenation unchanged.
    case.assert_not_authentic("the border between exchange and routing key", |f| {
        f.exchange = Some("ciphermq_exchang".into());
        f.routing_key = Some("ereceiver_1_key".into());
    });

    // Another receiver with the same key does not accept the message either.
    let mut fields = case.fields();
    fields.receiver_client_id = "receiver_2".into();
    let envelope = Envelope::build(&fields).unwrap();
    let opened = case.opener("receiver_2").open(&envelope);
    assert_eq!(opened, Err(OpenError::NotAuthentic));
}

#[test]
fn every_removed_field_is_detected() {
    let case = Case::new(b"payload");
    case.assert_not_authentic("tag", |f| f.tag = None);
    case.assert_not_authentic("sender_client_id", |f| f.sender_client_id = None);
    case.assert_not_authentic("receiver_key_id", |f| f.receiver_key_id = None);
    case.assert_not_authentic("exchange", |f| f.exchange = None);
    case.assert_not_authentic("routing_key", |f| f.routing_key = None);
    case.assert_not_authentic("sent_time", |f| f.sent_time = None);
    case.assert_not_authentic("content_type", |f| f.content_type = None);
    case.assert_not_authentic("session_time", |f| f.session_time = None);
    case.assert_not_authentic("sender_signature", |f| f.sender_signature = None);
    case.assert_not_authentic("sender_certificate", |f| f.sender_certificate = None);
    // Without a suite it looks like an older client's, and does not open as one either.
    case.assert_not_authentic("suite", |f| f.suite = None);
}

#[test]
fn errors_before_decryption_are_specific() {
    let case = Case::new(b"payload");
    let unknown = case.open_altered(|f| f.suite = Some("XYZ".into()));
    assert_eq!(
        unknown,
        [(); 2].map(|()| Err(OpenError::UnknownSuite("XYZ".to_owned())))
    );
    let no_key = case.open_altered(|f| f.receiver_key_id = Some("0123456789abcdef".into()));
    assert_eq!(
        no_key,
        [(); 2].map(|()| Err(OpenError::NoPrivateKey("0123456789abcdef".parse().unwrap())))
    );
    let opened = case.opener("receiver_2").open(&case.envelope);
    assert_eq!(opened, Err(OpenError::OtherReceiver(name("receiver_1"))));
}

#[test]
fn another_certificate_is_requested_and_does_not_verify() {
    let case = Case::new(b"payload");
    let other = case.ca.issue("sender_1");
    let fingerprint = fingerprint(&other.chain[0]);
    let mut fields = case.fields();
    fields.sender_certificate = Some(fingerprint.to_string().into());
    let altered = Envelope::build(&fields).unwrap();
    let mut opener = case.opener("receiver_1");
    let needed = OpenError::CertificateNeeded {
        sender: name("sender_1"),
        fingerprint,
    };
    assert_eq!(opener.open(&altered), Err(needed));
    opener.add_sender_chain(other.chain);
    assert_eq!(opener.open(&altered), Err(OpenError::NotAuthentic));
    for text in ["", "x", &fingerprint.to_string().to_uppercase()] {
        case.assert_not_authentic("sender_certificate", |f| {
            f.sender_certificate = Some(text.to_owned().into());
        });
    }
}

#[test]
fn signed_sessions_are_verified_and_unsigned_ones_refused() {
    let case = Case::new(b"payload");
    let strict = || case.opener_with("receiver_1", case.keyring.clone(), OpenPolicy::default());
    let opened = strict().open(&case.envelope).unwrap();
    assert!(opened.is_sender_verified);
    assert_eq!(opened.sender, Some(name("sender_1")));

    let mut fields = case.fields();
    (fields.sender_certificate, fields.sender_signature) = (None, None);
    let stripped = Envelope::build(&fields).unwrap();
    assert_eq!(strict().open(&stripped), Err(OpenError::UnsignedSession));
    // With unverified senders admitted, it opens as unverified; the signed one is still verified.
    let mut lenient = case.opener("receiver_1");
    assert!(!lenient.open(&stripped).unwrap().is_sender_verified);
    assert!(lenient.open(&case.envelope).unwrap().is_sender_verified);
}

#[test]
fn a_certificate_not_valid_at_the_sessions_start_is_refused() {
    let mut case = Case::new(b"payload");
    // The receiver trusts another authority of the same name.
    case.authority = Ca::new("ca").authority();
    let error = case.opener("receiver_1").open(&case.envelope).unwrap_err();
    assert!(
        matches!(&error, OpenError::Sender(SenderError::Certificate(_))),
        "{error}"
    );
}

#[test]
fn parts_of_two_messages_cannot_be_combined() {
    let [case, other] = [Case::new(b"payload"), Case::new(b"payload")];
    let other = other.fields();
    case.assert_not_authentic("enc_session_key", |f| {
        f.enc_session_key = other.enc_session_key.to_string().into();
    });
    case.assert_not_authentic("ciphertext and tag", |f| {
        f.ciphertext = other.ciphertext.clone().into_owned();
        f.tag = other.tag.clone().map(Encoded::into_owned);
    });
}

#[test]
fn another_exchange_or_routing_key_than_expected_is_refused() {
    let case = Case::new(b"payload");
    let open = |policy| {
        case.opener_with("receiver_1", case.keyring.clone(), policy)
            .open(&case.envelope)
    };
    let policy = OpenPolicy::default;
    let fitting = OpenPolicy {
        exchange: Some(name("ciphermq_exchange")),
        routing_key: Some(name("receiver_1_key")),
        ..policy()
    };
    assert_eq!(open(fitting).unwrap().payload, b"payload");
    assert_eq!(
        open(OpenPolicy {
            exchange: Some(name("x")),
            ..policy()
        }),
        Err(OpenError::OtherExchange(name("ciphermq_exchange")))
    );
    assert_eq!(
        open(OpenPolicy {
            routing_key: Some(name("x")),
            ..policy()
        }),
        Err(OpenError::OtherRoutingKey(name("receiver_1_key")))
    );
}

#[test]
fn senders_that_are_not_admitted_are_refused() {
    let case = Case::new(b"payload");
    let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let admitting = |texts: &[&str], unverified_senders| OpenPolicy {
        senders: Some(patterns(texts)),
        unverified_senders,
        ..OpenPolicy::default()
    };
    let open = |envelope: &Envelope, policy| {
        case.opener_with("receiver_1", case.keyring.clone(), policy)
            .open(envelope)
    };
    let own = &case.envelope;
    for texts in [&["sender_?"][..], &["x", "*_1"], &["sender_1"], &["*"]] {
        let opened = open(own, admitting(texts, false)).unwrap();
        assert!(opened.is_sender_verified, "{texts:?}");
    }
    for texts in [&["sender_2"][..], &["sender"], &["Sender_1"], &[]] {
        for unverified_senders in [false, true] {
            assert_eq!(
                open(own, admitting(texts, unverified_senders)),
                Err(OpenError::OtherSender(name("sender_1"))),
                "{texts:?}"
            );
        }
    }
    // Somebody else's message with the name of an admitted sender.
    let naming = |sender: Option<&'static str>| {
        let mut fields = case.fields();
        fields.sender_client_id = sender.map(Into::into);
        Envelope::build(&fields).unwrap()
    };
    for unverified_senders in [false, true] {
        let relabelled = open(
            &naming(Some("sender_2")),
            admitting(&["sender_2"], unverified_senders),
        );
        assert!(relabelled.is_err_and(|error| !matches!(error, OpenError::OtherSender(_))));
        assert_eq!(
            open(&naming(None), admitting(&["*"], unverified_senders)),
            Err(OpenError::NoSender)
        );
    }
}

#[test]
fn an_older_key_still_opens() {
    let case = Case::new(b"payload");
    let newest = PrivateKey::generate().unwrap();
    let keyring = Keyring::new(newest.clone()).with_older(case.keyring.newest().clone());
    let opened = case
        .opener_with("receiver_1", keyring, OpenPolicy::default())
        .open(&case.envelope)
        .unwrap();
    assert_eq!(opened.payload, b"payload");
    let error = case
        .opener_with("receiver_1", Keyring::new(newest), OpenPolicy::default())
        .open(&case.envelope);
    assert_eq!(
        error,
        Err(OpenError::NoPrivateKey(
            case.keyring.newest().public_key().key_id()
        ))
    );
}

#[test]
fn debug_omits_the_payload() {
    let case = Case::new(b"payload in words");
    let opened = case.opener("receiver_1").open(&case.envelope).unwrap();
    let printed = format!("{opened:?} {:?}", case.opener("receiver_1"));
    assert!(
        printed.contains("sender_1") && !printed.contains("words"),
        "{printed}"
    );
    assert!(!printed.contains(&format!("{:?}", opened.payload)));
}
