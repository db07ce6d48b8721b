use super::super::own::KEYS;
use super::*;
use crate::envelope::{Envelope, EnvelopeReader, can_pack};
use crate::name::MessageId;
use proptest::prelude::*;

const SHARED: &str = r#"{"receiver_client_id":"receiver_1","enc_session_key":"AA==","suite":"S","sender_client_id":"sender_1","exchange":"e","routing_key":"k","content_type":"text/plain; charset=utf-8","more":{"a":[1, 2]}}"#;

fn own(id: &str) -> String {
    format!(
        r#"{{"message_id":"{id}","sent_time":"2025-09-08T07:03:00.000Z","nonce":"Tm9u","ciphertext":"Q2lw","tag":"VGFn"}}"#
    )
}

fn split_list(list: &str) -> Option<Vec<EnvelopeBytes>> {
    let line = Bytes::copy_from_slice(list.as_bytes());
    split(&line, &line).ok()
}

fn list(ids: &[&str]) -> String {
    let own: Vec<String> = ids.iter().map(|id| own(id)).collect();
    format!("{} {} {SHARED}", ids.len(), own.join(" "))
}

#[test]
fn a_packed_envelope_is_the_union_of_both_parts() {
    let parts = split_list(&list(&["m-1", "温度"])).unwrap();
    let mut reader = EnvelopeReader::default();
    for (bytes, id) in parts.iter().zip(["m-1", "温度"]) {
        let (envelope, fields) = reader.read(bytes).unwrap();
        let whole = format!("{},{}", own(id).trim_end_matches('}'), &SHARED[1..]);
        assert_eq!(envelope.raw().to_bytes(), whole.as_bytes());
        let in_one = Envelope::parse(Bytes::from(whole)).unwrap();
        assert_eq!(envelope, in_one);
        assert_eq!(fields, in_one.fields().unwrap());
        assert_eq!(envelope.fields().unwrap(), fields);
    }
    let mut written = BytesMut::new();
    put(parts.iter(), parts[0].shared().unwrap(), &mut written);
    assert_eq!(written, list(&["m-1", "温度"]).as_bytes());
}

#[test]
fn another_shared_part_is_parsed_anew() {
    let (one, other) = (
        list(&["a"]),
        list(&["b"]).replace("receiver_1", "receiver_2"),
    );
    let (one, other) = (split_list(&one).unwrap(), split_list(&other).unwrap());
    let mut reader = EnvelopeReader::default();
    for (bytes, receiver) in [
        (&one[0], "receiver_1"),
        (&other[0], "receiver_2"),
        (&one[0], "receiver_1"),
    ] {
        let (envelope, fields) = reader.read(bytes).unwrap();
        assert_eq!(envelope.receiver_client_id.as_str(), receiver);
        assert_eq!(fields.receiver_client_id, receiver);
    }
    assert!(!one[0].shares_with(&other[0]) && one[0].shares_with(&one[0].detached()));
}

#[test]
fn malformed_lists_are_refused() {
    let good = list(&["a", "b"]);
    for bad in [
        "",
        "0",
        "1",
        &good[2..],
        &good.replacen('2', "0", 1),
        &good.replacen('2', "-2", 1),
        &good.replacen('2', "99999999999999999999", 1),
        &good.replacen('2', "4000000000", 1),
        &good.replace("} {", "}{"),
        &good.replacen("\"}", "\"", 1),
    ] {
        assert!(split_list(bad).is_none(), "{bad}");
    }
    // With a wrong count, the last word is not the shared part.
    let mut reader = EnvelopeReader::default();
    for (count, message) in [("1", 0), ("3", 2)] {
        let parts = split_list(&good.replacen('2', count, 1)).unwrap_or_default();
        assert!(
            parts
                .get(message)
                .is_none_or(|bytes| reader.read(bytes).is_err())
        );
    }
}

#[test]
fn own_parts_have_one_spelling() {
    let good = own("m-1");
    for bad in [
        good.replace("m-1", "m 1"),
        good.replace("m-1", "m\\u0031"),
        good.replace("m-1", ""),
        good.replace("\"nonce\":\"Tm9u\",", ""),
        good.replace("nonce", "Nonce"),
        good.replace("\"tag\":\"VGFn\"", "\"tag\":null"),
        good.replace("\"tag\":\"VGFn\"", "\"tag\":\"VGFn\",\"more\":\"x\""),
        good.replace("\"VGFn\"", "\"VGFn"),
        good.replace("Tm9u", "Tm\u{7f}9u"),
        good.replace(':', ": "),
        "{}".to_owned(),
    ] {
        let bytes = split_list(&format!("1 {bad} {SHARED}"));
        let read = bytes.map(|bytes| EnvelopeReader::default().read(&bytes[0]).is_ok());
        assert_ne!(read, Some(true), "{bad}");
    }
}

#[test]
fn shared_parts_with_own_or_duplicate_fields_are_refused() {
    for bad in [
        "{}".to_owned(),
        SHARED.replace("\"more\"", "\"tag\":\"x\",\"more\""),
        SHARED.replace("\"more\"", "\"message\\u005fid\":\"x\",\"more\""),
        SHARED.replace("\"more\"", "\"suite\":\"x\",\"more\""),
        SHARED.replace("\"receiver_client_id\":\"receiver_1\",", ""),
        SHARED.replace("receiver_1", "receiver 1"),
        SHARED.replace("]}}", "]}"),
        format!("{SHARED}{SHARED}"),
    ] {
        let bytes = split_list(&format!("1 {} {bad}", own("m"))).unwrap();
        assert!(EnvelopeReader::default().read(&bytes[0]).is_err(), "{bad}");
    }
}

#[test]
fn ids_that_need_escapes_are_not_packed() {
    for (id, packs) in [
        ("m-1", true),
        ("温度", true),
        ("a\"b", false),
        ("a\\b", false),
    ] {
        assert_eq!(can_pack(&MessageId::new(id).unwrap()), packs);
    }
}

proptest! {
    /// Parsing a packed envelope and parsing its whole object agree.
    #[test]
    fn packed_and_whole_envelopes_are_equal(
        values in proptest::collection::vec("[ -~é]{0,6}", 5),
        shared in "(\\{\"receiver_client_id\":\"r\",\"enc_session_key\":\"[ \
                   -~]{0,4}\"(,\"[a-z]{1,3}\":[0-9]{1,2})?\\})|[ -~]{0,20}",
    ) {
        let own: String = KEYS.iter().zip(&values).map(|(key, value)| format!("{key}{value}")).collect();
        let Some(bytes) = split_list(&format!("1 {own}\"}} {shared}")) else { return Ok(()) };
        let mut reader = EnvelopeReader::default();
        if let Ok((envelope, fields)) = reader.read(&bytes[0]) {
            let whole = Envelope::parse(bytes[0].to_bytes()).unwrap();
            prop_assert_eq!(&envelope, &whole);
            prop_assert_eq!(fields, whole.fields().unwrap());
        }
    }
}
