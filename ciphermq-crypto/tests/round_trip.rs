//! Sealed messages open, whatever their names and payload.

use ciphermq_crypto::{
    Authority, Form, Header, Keyring, OpenPolicy, Opener, PrivateKey, SendingSession, Suite, stream,
};
use ciphermq_protocol::{ClientId, ExchangeName, RoutingKey};
use jiff::Timestamp;
use proptest::prelude::*;

/// Generates names with all allowed kinds of characters, including those that JSON escapes.
fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        "[!-~]{1,255}",
        "[!-~\u{a1}-\u{ac}\u{4e00}-\u{4e20}😀]{1,60}"
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn sealed_messages_open(
        sender in names(),
        receiver in names(),
        exchange in names(),
        routing_key in names(),
        content_type in ".{0,40}",
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..4),
        start in 0i64..4_000_000_000_000,
        ages in prop::collection::vec(0i64..=600_000, 4),
    ) {
        let (sender, receiver): (ClientId, ClientId) = (sender.parse().unwrap(), receiver.parse().unwrap());
        let (exchange, routing_key): (ExchangeName, RoutingKey) =
            (exchange.parse().unwrap(), routing_key.parse().unwrap());
        let key = PrivateKey::generate().unwrap();
        let now = Timestamp::from_millisecond(start).unwrap();
        let ids = stream::start(now).unwrap();
        let mut session = SendingSession::start_unsigned(&sender, &receiver, &(*key.public_key()).into(), now).unwrap();
        let policy = OpenPolicy {
            exchange: Some(exchange.clone()),
            routing_key: Some(routing_key.clone()),
            unverified_senders: true,
            ..OpenPolicy::default()
        };
        let mut opener = Opener::new(receiver, Keyring::new(key), Authority::nobody(), policy);
        for (position, (payload, age)) in (0..).zip(payloads.iter().zip(ages)) {
            let message_id = ids.message_id(position).unwrap();
            let sent_time = Timestamp::from_millisecond(start + age).unwrap();
            let header = Header {
                message_id: &message_id,
                exchange: &exchange,
                routing_key: &routing_key,
                content_type: &content_type,
                sent_time,
            };
            let envelope = session.seal(&header, payload).unwrap();
            prop_assert!(envelope.has_suite);
            prop_assert!(!envelope.raw().to_bytes().contains(&b'\n'), "an envelope is one line");
            let opened = opener.open(&envelope).unwrap();
            prop_assert_eq!(&opened.payload, payload);
            prop_assert_eq!(&opened.message_id, &message_id);
            prop_assert_eq!(opened.sender.as_ref(), Some(&sender));
            prop_assert_eq!(opened.form, Form::Suite(Suite::X25519Aes256Gcm));
            prop_assert_eq!(opened.sent_time, Some(sent_time));
            prop_assert_eq!(opened.content_type.as_ref(), Some(&content_type));
        }
    }
}
