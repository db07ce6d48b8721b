//! The messages that open, and other spellings of them.

use ciphermq_protocol::ClientId;
use zeroize::Zeroizing;

use super::*;
use crate::encoding::decode;
use crate::seal::SessionStart;

pub(super) fn seal(input: &Input) -> Message {
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
        ciphertext: to_hex(fields.ciphertext.bytes().unwrap()),
        tag: to_hex(fields.tag.as_ref().unwrap().bytes().unwrap()),
        envelope: String::from_utf8(envelope.raw().to_bytes().to_vec()).unwrap(),
    }
}

/// Returns equivalent envelopes: the fields are authenticated, their JSON is not.
pub(super) fn other_spellings() -> Vec<OtherSpelling> {
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
