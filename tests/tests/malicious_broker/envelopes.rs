//! Envelopes that are altered in transit, field by field and bit by bit.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciphermq_client::dedup::Durable;
use ciphermq_client::{OpenError, UnopenableReason};
use ciphermq_tests::malicious::MaliciousBrokerFixture;
use ciphermq_tests::malicious::fixture::{expect_texts, opened, text, unopenable};
use ciphermq_tests::server::Options;
use serde_json::{Map, Value};

type Fields = Map<String, Value>;

/// A change to an envelope, and the expected reason of the receiver's refusal.
struct Attack {
    what: String,
    change: Box<dyn Fn(&mut Fields) + Send + Sync>,
    refused_as: fn(&UnopenableReason) -> bool,
}

fn attack(
    what: impl Into<String>,
    refused_as: fn(&UnopenableReason) -> bool,
    change: impl Fn(&mut Fields) + Send + Sync + 'static,
) -> Attack {
    Attack {
        what: what.into(),
        change: Box::new(change),
        refused_as,
    }
}

/// An attack that overwrites a field.
fn write(
    field: &'static str,
    value: &'static str,
    refused_as: fn(&UnopenableReason) -> bool,
) -> Attack {
    attack(format!("{field} = {value}"), refused_as, move |fields| {
        let before = fields.insert(field.to_owned(), value.into());
        assert!(
            before.is_some_and(|before| before != value),
            "{field} is changed"
        );
    })
}

/// An attack that removes a field.
fn strip(field: &'static str, refused_as: fn(&UnopenableReason) -> bool) -> Attack {
    attack(format!("without {field}"), refused_as, move |fields| {
        assert!(fields.remove(field).is_some(), "{field} was there");
    })
}

/// An attack that flips a bit of a field's decoded base64.
fn flip(field: &'static str, bit: Bit) -> Attack {
    attack(format!("{field}, {bit:?}"), not_authentic, move |fields| {
        let mut bytes = BASE64_STANDARD
            .decode(fields[field].as_str().unwrap())
            .unwrap();
        let (byte, mask) = match bit {
            Bit::First => (0, 0x80),
            Bit::Middle => (bytes.len() / 2, 0x10),
            Bit::Last => (bytes.len() - 1, 0x01),
        };
        bytes[byte] ^= mask;
        fields.insert(field.to_owned(), BASE64_STANDARD.encode(bytes).into());
    })
}

#[derive(Debug, Clone, Copy)]
enum Bit {
    First,
    Middle,
    Last,
}

pub(crate) fn not_authentic(reason: &UnopenableReason) -> bool {
    *reason == UnopenableReason::Sealed(OpenError::NotAuthentic)
}

pub(crate) fn other_id(reason: &UnopenableReason) -> bool {
    *reason == UnopenableReason::OtherId
}

pub(crate) fn other_receiver(reason: &UnopenableReason) -> bool {
    matches!(
        reason,
        UnopenableReason::Sealed(OpenError::OtherReceiver(_))
    )
}

pub(crate) fn no_private_key(reason: &UnopenableReason) -> bool {
    matches!(reason, UnopenableReason::Sealed(OpenError::NoPrivateKey(_)))
}

pub(crate) fn no_certificate(reason: &UnopenableReason) -> bool {
    matches!(reason, UnopenableReason::NoCertificate { .. })
}

pub(crate) fn not_an_envelope(reason: &UnopenableReason) -> bool {
    matches!(reason, UnopenableReason::NoEnvelope(_))
}

/// Publishes a message for each attack, and an unattacked one after it. Runs the attacks, and
/// checks the refusals. Then the broker becomes honest, and each original arrives, once.
async fn expect_all(fixture: &MaliciousBrokerFixture, attacks: Vec<Attack>) {
    let payloads: Vec<String> = attacks
        .iter()
        .flat_map(|attack| {
            [
                format!("attacked: {}", attack.what),
                format!("after: {}", attack.what),
            ]
        })
        .collect();
    let ids = fixture.publish(payloads.iter().map(String::as_str)).await;
    let attacks = Arc::new(attacks);
    let attacked: BTreeMap<String, usize> = ids
        .iter()
        .step_by(2)
        .enumerate()
        .map(|(index, id)| (id.to_string(), index))
        .collect();
    fixture.broker.intercept({
        let attacks = Arc::clone(&attacks);
        move |line| {
            let Some((id, envelope)) = line.delivery_to("receiver") else {
                return line.honest();
            };
            let Some(index) = attacked.get(id) else {
                return line.honest();
            };
            let mut fields: Fields = serde_json::from_str(envelope).unwrap();
            (attacks[*index].change)(&mut fields);
            vec![format!("Message: {id} {}", Value::Object(fields))]
        }
    });

    let folder = tempfile::tempdir().unwrap();
    let record = || Durable::open(&folder.path().join("processed")).unwrap();
    let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
    for (attack, payloads) in attacks.iter().zip(payloads.chunks(2)) {
        let refused = unopenable(&mut consumer, &attack.what).await;
        assert!(
            (attack.refused_as)(&refused.reason),
            "{}: {:?}",
            attack.what,
            refused.reason
        );
        let message = opened(&mut consumer).await;
        assert_eq!(text(&message), payloads[1]);
        assert_eq!(message.verified_sender(), Some(fixture.sender.id()));
        message.ack().await.unwrap();
    }
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
    consumer.close().await;

    fixture.broker.stop_intercepting();
    let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
    expect_texts(&mut consumer, payloads.iter().step_by(2)).await;
    fixture
        .honest_traffic_arrives(&mut consumer, "the last")
        .await;
    assert_eq!(consumer.duplicates(), 0);
    consumer.close().await;
}

async fn every_field_of_an_envelope_is_changed(fixture: MaliciousBrokerFixture) {
    // Another client that exists, so that its name is plausible.
    fixture.connect("mallory").await;
    let attacks = vec![
        write("message_id", "another-id", other_id),
        write("receiver_client_id", "mallory", other_receiver),
        write("sender_client_id", "mallory", not_authentic),
        write("sender_client_id", "bystander", not_authentic),
        write("receiver_key_id", "0123456789abcdef", no_private_key),
        write("exchange", "another_exchange", not_authentic),
        write("routing_key", "another_key", not_authentic),
        write("sent_time", "2026-01-01T00:00:00.000Z", not_authentic),
        write("session_time", "2026-01-01T00:00:00.000Z", not_authentic),
        write("content_type", "text/html", not_authentic),
        write(
            "sender_certificate",
            "0000000000000000000000000000000000000000000000000000000000000000",
            no_certificate,
        ),
        strip("message_id", not_an_envelope),
        strip("sender_client_id", not_authentic),
        strip("receiver_key_id", not_authentic),
        strip("exchange", not_authentic),
        strip("routing_key", not_authentic),
        strip("sent_time", not_authentic),
        strip("session_time", not_authentic),
        strip("content_type", not_authentic),
        strip("tag", not_authentic),
        strip("nonce", not_an_envelope),
        strip("ciphertext", not_an_envelope),
        strip("enc_session_key", not_an_envelope),
    ];
    expect_all(&fixture, attacks).await;
}

async fn bits_of_an_envelope_are_flipped(fixture: MaliciousBrokerFixture) {
    let fields = [
        "enc_session_key",
        "nonce",
        "ciphertext",
        "tag",
        "sender_signature",
    ];
    let attacks = fields
        .into_iter()
        .flat_map(|field| [Bit::First, Bit::Middle, Bit::Last].map(|bit| flip(field, bit)))
        .collect();
    expect_all(&fixture, attacks).await;
}

async fn the_suite_and_the_signature_are_stripped_or_replaced(fixture: MaliciousBrokerFixture) {
    let older =
        |reason: &UnopenableReason| *reason == UnopenableReason::Sealed(OpenError::OlderClient);
    let unknown = |reason: &UnopenableReason| {
        matches!(reason, UnopenableReason::Sealed(OpenError::UnknownSuite(_)))
    };
    let unsigned =
        |reason: &UnopenableReason| *reason == UnopenableReason::Sealed(OpenError::UnsignedSession);
    // The other suite needs another kind of key.
    let other_suite = attack("the other suite", no_private_key, |fields| {
        let other = match fields["suite"].as_str() {
            Some("XWING-AES256GCM") => "X25519-AES256GCM",
            _ => "XWING-AES256GCM",
        };
        fields.insert("suite".to_owned(), other.into());
    });
    let attacks = vec![
        strip("suite", older),
        other_suite,
        write("suite", "NONE", unknown),
        write("suite", "x25519-aes256gcm", unknown),
        attack("without certificate and signature", unsigned, |fields| {
            fields.remove("sender_certificate").unwrap();
            fields.remove("sender_signature").unwrap();
        }),
        strip("sender_certificate", not_authentic),
        strip("sender_signature", not_authentic),
    ];
    expect_all(&fixture, attacks).await;
}

/// Defines two tests for each function: one with an X25519 key, and one with an X-Wing key.
macro_rules! with_both_suites {
    ($($case:ident),+ $(,)?) => {
        mod x25519 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::MaliciousBrokerFixture::new().await).await;
            })+
        }

        mod x_wing {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let fixture = super::MaliciousBrokerFixture::post_quantum(super::Options::sqlite()).await;
                super::$case(fixture).await;
            })+
        }
    };
}

with_both_suites!(
    every_field_of_an_envelope_is_changed,
    bits_of_an_envelope_are_flipped,
    the_suite_and_the_signature_are_stripped_or_replaced,
);
