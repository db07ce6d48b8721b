//! Sealing for older clients: receivers without a signed key, and only on request.
//!
//! ```text
//!               enc_session_key            payload            tag         further fields
//!   LEGACY-0    libsodium sealed box       AES-256-GCM        both        none
//!   LEGACY-A    libsodium sealed box       ChaCha20-Poly1305  `tag`       sent_time, routing_key
//!   LEGACY-B    libsodium sealed box       ChaCha20-Poly1305  appended    sent_time
//!   LEGACY-C    the older Rust clients'    ChaCha20-Poly1305  appended    sent_time
//! ```
//!
//! In LEGACY-0 the tag is both at the end of the ciphertext and in `tag`.
//!
//! Only the payload is authenticated, and nothing proves who sealed it: whoever passes such a
//! message on can give it another id or route. Every message has a session key of its own, as older
//! clients do it.

use std::borrow::Cow;

use ciphermq_protocol::envelope::Fields;
use ciphermq_protocol::{ClientId, Envelope};
use jiff::Timestamp;

use crate::encoding::encode;
use crate::error::SealError;
use crate::keys::PublicKey;
use crate::payload::Header;
use crate::suite::OlderForm;
use crate::suite::older::{self, OneTimeSecrets};

/// Seals a payload as older clients do, with a random session key.
///
/// It writes the header fields that they write: the message id, the time except in
/// [`OlderForm::Zero`], and the routing key in [`OlderForm::A`].
///
/// Older receivers expect UTF-8 payloads, and do not ack others. The Python ones drop their
/// connection at a line longer than 64 KiB.
///
/// # Errors
///
/// [`SealError::ReceiverKey`], [`SealError::PayloadTooLong`], [`SealError::Random`].
pub fn seal_older(
    form: OlderForm,
    receiver: &ClientId,
    key: &PublicKey,
    header: &Header<'_>,
    payload: &[u8],
) -> Result<Envelope, SealError> {
    seal_with(
        form,
        receiver,
        key,
        header,
        payload,
        OneTimeSecrets::fresh()?,
    )
}

fn seal_with(
    form: OlderForm,
    receiver: &ClientId,
    key: &PublicKey,
    header: &Header<'_>,
    payload: &[u8],
    once: OneTimeSecrets,
) -> Result<Envelope, SealError> {
    let sealed = older::seal(form, key, payload, once)?;
    let routing_key = (form == OlderForm::A).then(|| header.routing_key.as_str().into());
    Ok(Envelope::build(&Fields {
        message_id: header.message_id.as_str().into(),
        receiver_client_id: receiver.as_str().into(),
        enc_session_key: encode(&sealed.enc_session_key).into(),
        nonce: encode(&sealed.nonce).into(),
        ciphertext: encode(&sealed.ciphertext).into(),
        tag: sealed.tag.map(|tag| encode(&tag).into()),
        suite: None,
        sender_client_id: None,
        receiver_key_id: None,
        exchange: None,
        routing_key,
        sent_time: sent_time(form, header.sent_time).map(Cow::from),
        content_type: None,
        session_time: None,
        sender_certificate: None,
        sender_signature: None,
    })?)
}

/// Formats the time as the generation of clients does, with microseconds; the oldest sends none.
fn sent_time(form: OlderForm, time: Timestamp) -> Option<String> {
    let text = format!("{time:.6}");
    match form {
        OlderForm::Zero => None,
        OlderForm::A => Some(text),
        OlderForm::B | OlderForm::C => Some(format!("{}+00:00", text.trim_end_matches('Z'))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keyring;
    use crate::encoding::decode;
    use crate::keys::PrivateKey;
    use crate::vector_tests::{header, hex, name};
    use zeroize::Zeroizing;

    const TEXT: &str = "Température: 47,8 °F — 温度";

    fn time() -> Timestamp {
        Timestamp::from_microsecond(1_757_314_980_007_123).unwrap()
    }

    fn seal(form: OlderForm, key: &PrivateKey, payload: &[u8]) -> Envelope {
        let id = name("sender_1-a18240b5-receiver_1");
        let header = header(&id, time());
        seal_older(
            form,
            &name("receiver_1"),
            key.public_key(),
            &header,
            payload,
        )
        .unwrap()
    }

    fn open(key: &PrivateKey, envelope: &Envelope) -> Option<(Vec<u8>, OlderForm)> {
        older::open(&Keyring::new(key.clone()), &envelope.fields().unwrap())
    }

    #[test]
    fn every_form_is_opened() {
        let [key, other] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        for form in OlderForm::ALL {
            for payload in [TEXT.as_bytes(), b"", &[b'x'; 100_000]] {
                let envelope = seal(form, &key, payload);
                assert_eq!(open(&key, &envelope), Some((payload.to_vec(), form)));
                assert_eq!(open(&other, &envelope), None);
                assert!(!envelope.has_suite);
                let sent_time = envelope.fields().unwrap().sent_time;
                let expected = (form != OlderForm::Zero).then(time);
                assert_eq!(sent_time.map(|time| time.parse().unwrap()), expected);
            }
        }
    }

    /// Expected values from libsodium (`crypto_box`, `crypto_secretbox`, through PyNaCl 1.6.2),
    /// Python's BLAKE2b and OpenSSL's ChaCha20-Poly1305 and AES-256-GCM, for the receiver of
    /// `docs/test-vectors/older-envelopes.json`.
    #[test]
    fn sealing_agrees_with_libsodium() {
        let key = PrivateKey::from_base64("K4VbXlsVnBp9LHug8g4ossvvOYkMdCXM3oKpDzrCJg8=").unwrap();
        let id = name("m-1");
        let ephemeral = "736845d54e87de09d6bb114aa7042c50a4a015bd9901d1a0026f5956533a1519";
        let libsodium = "f08a6ac1b07eba0bac49cf93bd4382a699f9256d9c9c2d6010c5a781ff8eba9e13c4a50418bf33a4517b99d4f61ebde9";
        let raw_agreement = "61bdb40102d6f7c85733e1b6dd37d3f6ceffae62c0a8463904877e7c0321dacce01ab45ea3e47087b7dab0c6eeb1ab26";
        let chacha = "0cf1e53e9873e7411d79842d516df95ccddeb29e81751b4a353e43abf6fe435b884169";
        let aes = "e8a3016234baebc6c0fb002e85a6d1a6869d8141b61c389c6300a094a797cd33d999dd";
        for (form, boxed, payload) in [
            (OlderForm::Zero, libsodium, aes),
            (OlderForm::A, libsodium, chacha),
            (OlderForm::B, libsodium, chacha),
            (OlderForm::C, raw_agreement, chacha),
        ] {
            let once = OneTimeSecrets {
                session_key: Zeroizing::new([0x51; 32]),
                ephemeral: PrivateKey::from_bytes(&std::array::from_fn(|index| {
                    0xe0 + u8::try_from(index).unwrap()
                })),
                nonce: std::array::from_fn(|index| u8::try_from(index).unwrap()),
            };
            let text = "47,8 °F — 温度".as_bytes();
            let header = header(&id, time());
            let envelope = seal_with(
                form,
                &name("receiver_1"),
                key.public_key(),
                &header,
                text,
                once,
            )
            .unwrap();
            let fields = envelope.fields().unwrap();
            let sealed = decode(&fields.enc_session_key).unwrap();
            assert_eq!(sealed, [hex(ephemeral), hex(boxed)].concat(), "{form}");
            let tag = fields
                .tag
                .as_ref()
                .map(|tag| tag.bytes().unwrap().into_owned());
            let mut sealed = fields.ciphertext.bytes().unwrap().into_owned();
            if form == OlderForm::A {
                sealed.extend(tag.as_deref().unwrap());
            }
            assert_eq!(sealed, hex(payload), "{form}");
            let states_tag = matches!(form, OlderForm::Zero | OlderForm::A);
            assert_eq!(
                tag,
                states_tag.then(|| hex(payload).split_off(payload.len() / 2 - 16))
            );
        }
    }

    /// A message of generation A that looks like one of generation 0: its ciphertext equals its
    /// tag.
    ///
    /// It was computed with Poly1305's one-time key, which follows from the session key.
    #[test]
    fn a_ciphertext_of_generation_a_may_end_with_its_tag() {
        let key = PrivateKey::generate().unwrap();
        let once = OneTimeSecrets {
            session_key: Zeroizing::new([0x51; 32]),
            ephemeral: PrivateKey::generate().unwrap(),
            nonce: hex("000102030405060708090a00").try_into().unwrap(),
        };
        let payload = hex("4dbc0abfea84b26eea5cc5bd26c30c51");
        let id = name("m-1");
        let (header, receiver) = (header(&id, time()), name("receiver_1"));
        let envelope = seal_with(
            OlderForm::A,
            &receiver,
            key.public_key(),
            &header,
            &payload,
            once,
        )
        .unwrap();
        let fields = envelope.fields().unwrap();
        assert_eq!(fields.tag.as_ref(), Some(&fields.ciphertext));
        assert_eq!(open(&key, &envelope), Some((payload, OlderForm::A)));
    }

    #[test]
    fn fields_are_those_of_older_senders() {
        let key = PrivateKey::generate().unwrap();
        let common = [
            "message_id",
            "receiver_client_id",
            "enc_session_key",
            "nonce",
            "ciphertext",
        ];
        let offset = Some("2025-09-08T07:03:00.007123+00:00");
        for (form, further, sent_time) in [
            (OlderForm::Zero, &["tag"][..], None),
            (
                OlderForm::A,
                &["tag", "routing_key", "sent_time"],
                Some("2025-09-08T07:03:00.007123Z"),
            ),
            (OlderForm::B, &["sent_time"], offset),
            (OlderForm::C, &["sent_time"], offset),
        ] {
            let envelope = seal(form, &key, TEXT.as_bytes());
            let json: serde_json::Value =
                serde_json::from_slice(&envelope.raw().to_bytes()).unwrap();
            let mut fields: Vec<_> = json
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            let mut expected = [&common, further].concat();
            fields.sort_unstable();
            expected.sort_unstable();
            assert_eq!(fields, expected, "{form}");
            assert_eq!(
                json.get("sent_time").and_then(|time| time.as_str()),
                sent_time
            );
            assert_eq!(json["message_id"], "sender_1-a18240b5-receiver_1");
            let length = |field: &str| decode(json[field].as_str().unwrap()).unwrap().len();
            assert_eq!(length("enc_session_key"), 80);
            assert_eq!(length("nonce"), 12);
            let tag = if form == OlderForm::A { 0 } else { 16 };
            assert_eq!(length("ciphertext"), TEXT.len() + tag);
            if further.contains(&"tag") {
                assert_eq!(length("tag"), 16);
            }
            if form == OlderForm::A {
                assert_eq!(json["routing_key"], "receiver_1_key");
            }
        }
    }

    #[test]
    fn nonces_and_session_keys_differ() {
        let key = PrivateKey::generate().unwrap();
        for form in OlderForm::ALL {
            let [one, other] = [(); 2].map(|()| seal(form, &key, b"the same"));
            let (one, other) = (one.fields().unwrap(), other.fields().unwrap());
            assert_ne!(one.enc_session_key[..43], other.enc_session_key[..43]);
            assert_ne!(one.nonce, other.nonce);
            assert_ne!(one.ciphertext, other.ciphertext);
        }
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        let id = name("m-1");
        let zeros = PublicKey::from_bytes([0; 32]);
        for form in OlderForm::ALL {
            let sealed = seal_older(form, &name("r"), &zeros, &header(&id, time()), b"");
            assert!(matches!(sealed, Err(SealError::ReceiverKey)), "{form}");
        }
    }
}
