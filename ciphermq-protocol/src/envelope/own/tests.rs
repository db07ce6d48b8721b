use super::*;
use crate::envelope::{Envelope, EnvelopeBytes, EnvelopeReader};
use proptest::prelude::*;

const SHARED: &[u8] =
    br#","receiver_client_id":"receiver_1","enc_session_key":"AA==","suite":"S"}"#;
const TIME: &str = "2025-09-08T07:03:00.000Z";

fn part<'a>(message_id: &'a MessageId, ciphertext: &'a [u8]) -> OwnPart<'a> {
    OwnPart {
        message_id,
        sent_time: TIME,
        nonce: b"nonce-nonce-",
        ciphertext,
        tag: b"tag-tag-tag-tag-",
    }
}

fn envelope(own: Bytes) -> EnvelopeBytes {
    EnvelopeBytes::packed(own, Bytes::from_static(SHARED))
}

#[test]
fn the_binary_form_has_these_bytes_and_this_text() {
    let id = MessageId::new("m-1").unwrap();
    let own = part(&id, &[0, 10, 255]).to_binary().unwrap();
    assert_eq!(
        own,
        [
            b"\x01\x03\x18m-12025-09-08T07:03:00.000Znonce-nonce-tag-tag-tag-tag-".as_slice(),
            &[0, 10, 255]
        ]
        .concat()
    );
    let text = concat!(
        r#"{"message_id":"m-1","sent_time":"2025-09-08T07:03:00.000Z","#,
        r#""nonce":"bm9uY2Utbm9uY2Ut","ciphertext":"AAr/","tag":"dGFnLXRhZy10YWctdGFnLQ==""#
    );
    let bytes = envelope(own.clone());
    assert_eq!(bytes.with_text().own(), text.as_bytes());
    assert_eq!(bytes.to_bytes(), [text.as_bytes(), SHARED].concat());
    assert_eq!(bytes.len(), bytes.to_bytes().len());
    assert_eq!(bytes.stored_len(), own.len() + SHARED.len());
    assert!(bytes.is_binary() && !bytes.with_text().is_binary());
    assert_eq!(message_id(&own).unwrap(), id);
}

#[test]
fn both_forms_are_read_alike() {
    let id = MessageId::new("温度-1").unwrap();
    let bytes = envelope(part(&id, b"sealed").to_binary().unwrap());
    let (mut one, mut other) = (EnvelopeReader::default(), EnvelopeReader::default());
    let text = bytes.with_text();
    let (read, fields) = one.read(&bytes).unwrap();
    let (read_text, fields_of_text) = other.read(&text).unwrap();
    assert_eq!((&read, &fields), (&read_text, &fields_of_text));
    let whole = Envelope::parse(bytes.to_bytes()).unwrap();
    assert_eq!((&read, fields), (&whole, whole.fields().unwrap()));
    assert_eq!(read.fields().unwrap(), fields_of_text);
}

#[test]
fn ids_and_times_with_escapes_have_no_binary_form() {
    for (id, time, has_form) in [
        ("m-1", TIME, true),
        ("温度", "", true),
        ("a\"b", TIME, false),
        ("a\\b", TIME, false),
        ("m-1", "a\"b", false),
        ("m-1", "a\nb", false),
        ("m-1", &"x".repeat(255), true),
        ("m-1", &"x".repeat(256), false),
    ] {
        let id = MessageId::new(id).unwrap();
        let part = OwnPart {
            sent_time: time,
            ..part(&id, b"sealed")
        };
        assert_eq!(part.to_binary().is_some(), has_form, "{id} {time}");
    }
}

#[test]
fn malformed_binary_forms_are_refused_and_stand_for_themselves() {
    let id = MessageId::new("m-1").unwrap();
    let good = part(&id, b"").to_binary().unwrap();
    assert!(Own::read(&good).is_some());
    let escaped = [&good[..3], b"m\"1", &good[6..]].concat();
    let no_text = [&good[..3], b"m\xff1", &good[6..]].concat();
    let no_id = [&[1, 0, 24], &good[6..]].concat();
    let shorter = (0..good.len()).map(|length| good[..length].to_vec());
    for bad in shorter.chain([escaped, no_text, no_id, vec![1, 255, 255]]) {
        let bytes = envelope(bad.clone().into());
        assert!(EnvelopeReader::default().read(&bytes).is_err(), "{bad:?}");
        assert_eq!(bytes.len(), bytes.to_bytes().len(), "{bad:?}");
    }
}

proptest! {
    /// Text and binary form follow from each other, whatever is sealed.
    #[test]
    fn the_text_follows_from_the_binary_form(
        id in "[a-zA-Z0-9_.:é-]{1,20}",
        time in "[ -~]{0,30}",
        nonce in any::<[u8; 12]>(),
        tag in any::<[u8; 16]>(),
        ciphertext in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let id = MessageId::new(&id).unwrap();
        let part = OwnPart {
            message_id: &id,
            sent_time: &time,
            nonce: &nonce,
            ciphertext: &ciphertext,
            tag: &tag,
        };
        let Some(own) = part.to_binary() else { return Ok(()) };
        let (binary, mut reader) = (envelope(own.clone()), EnvelopeReader::default());
        let text = binary.with_text();
        prop_assert_eq!(&binary, &text);
        prop_assert_eq!(binary.len(), text.len());
        let (read, fields) = reader.read(&text).unwrap();
        prop_assert_eq!(read.message_id, id.clone());
        let (nonce, tag) = (fields.nonce.bytes().unwrap(), fields.tag.as_ref().unwrap().bytes().unwrap());
        let ciphertext = fields.ciphertext.bytes().unwrap();
        let again = OwnPart {
            message_id: &id,
            sent_time: fields.sent_time.as_deref().unwrap(),
            nonce: nonce[..].try_into().unwrap(),
            ciphertext: &ciphertext,
            tag: tag[..].try_into().unwrap(),
        };
        prop_assert_eq!(again.to_binary().unwrap(), own);
    }

    /// No bytes make the reader fail otherwise than with an error.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let bytes = envelope([&[BINARY], &bytes[..]].concat().into());
        let mut reader = EnvelopeReader::default();
        if let Ok((envelope, fields)) = reader.read(&bytes) {
            let whole = Envelope::parse(bytes.to_bytes()).unwrap();
            prop_assert_eq!(&envelope, &whole);
            prop_assert_eq!(fields, whole.fields().unwrap());
        }
        prop_assert_eq!(bytes.len(), bytes.to_bytes().len());
    }
}
