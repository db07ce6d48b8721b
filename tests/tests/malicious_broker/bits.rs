//! Every bit of an envelope on the wire is flipped, one bit per message, in thousands of messages.
//! Each flip is detected.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ciphermq_client::dedup::Durable;
use ciphermq_client::{ConsumeError, OpenError, UnopenableReason};
use ciphermq_tests::malicious::MaliciousBrokerFixture;
use ciphermq_tests::malicious::fixture::{expect_texts, next, opened, text};
use ciphermq_tests::server::Options;
use serde_json::Value;

use crate::envelopes::{
    no_certificate, no_private_key, not_an_envelope, not_authentic, other_id, other_receiver,
};
use crate::published;

/// One message is left unchanged for this number of attacked ones.
const HONEST_EVERY: usize = 100;

/// Prefetch of the consumer, where every refused message takes a place until the consumer ends.
const PREFETCH: NonZeroU32 = NonZeroU32::new(65_535).unwrap();

/// The field whose value contains a byte of an envelope, or `None` for names and punctuation.
fn field_at(envelope: &str, byte: usize) -> Option<String> {
    let fields: serde_json::Map<String, Value> = serde_json::from_str(envelope).unwrap();
    fields.into_iter().find_map(|(name, value)| {
        let before = format!("\"{name}\":\"");
        let start = envelope.find(&before)? + before.len();
        (start..start + value.as_str()?.len())
            .contains(&byte)
            .then_some(name)
    })
}

/// Whether `reason` is right for an envelope with a flipped bit in the value of `field`, or outside
/// of all values.
fn is_expected(field: Option<&str>, reason: &UnopenableReason) -> bool {
    // A flip can turn any character into a quote, a backslash or a control character, and so end or
    // break the string.
    if not_an_envelope(reason) {
        return true;
    }
    match field {
        Some("message_id") => other_id(reason),
        Some("receiver_client_id") => other_receiver(reason),
        Some("receiver_key_id") => no_private_key(reason) || not_authentic(reason),
        Some("sender_certificate") => no_certificate(reason) || not_authentic(reason),
        Some("suite") => matches!(reason, UnopenableReason::Sealed(OpenError::UnknownSuite(_))),
        Some(_) => not_authentic(reason),
        // The flip changes the name of a field, which is then missing.
        None => {
            not_authentic(reason) || *reason == UnopenableReason::Sealed(OpenError::OlderClient)
        }
    }
}

/// Change to a message.
#[derive(Debug, Clone, Copy)]
enum Tampering {
    None,
    Flip { byte: usize, bit: u8 },
}

/// Flips every `stride`-th bit of an envelope, each in a message of its own.
async fn bits(fixture: &MaliciousBrokerFixture, stride: usize) {
    fixture.publish(["00000"]).await;
    let length = published(fixture, "sender")[0].len();
    let mut tamperings = Vec::new();
    for (number, place) in (0..length * 8).step_by(stride).enumerate() {
        if number % HONEST_EVERY == 0 {
            tamperings.push(Tampering::None);
        }
        tamperings.push(Tampering::Flip {
            byte: place / 8,
            bit: u8::try_from(place % 8).unwrap(),
        });
    }
    assert!(tamperings.len() < PREFETCH.get() as usize);
    let payloads: Vec<String> = (1..=tamperings.len())
        .map(|number| format!("{number:05}"))
        .collect();
    let ids = fixture.publish(payloads.iter().map(String::as_str)).await;
    let envelopes: HashMap<String, String> = published(fixture, "sender")
        .into_iter()
        .map(|envelope| {
            assert_eq!(envelope.len(), length, "{envelope}");
            let fields: Value = serde_json::from_str(&envelope).unwrap();
            (fields["message_id"].as_str().unwrap().to_owned(), envelope)
        })
        .collect();

    let by_id: HashMap<String, Tampering> = ids
        .iter()
        .map(ToString::to_string)
        .zip(tamperings.iter().copied())
        .collect();
    // Flips that produce a line feed are tested in `a_delivery_split_into_two_lines`.
    let split: Arc<Mutex<Vec<String>>> = Arc::default();
    fixture.broker.intercept({
        let split = Arc::clone(&split);
        move |line| {
            let mut bytes = line.text.as_bytes().to_vec();
            if let Some((id, envelope)) = line.delivery_to("receiver")
                && let Some(Tampering::Flip { byte, bit }) = by_id.get(id)
            {
                let start = bytes.len() - envelope.len();
                bytes[start + byte] ^= 1 << bit;
                if bytes[start + byte] == b'\n' {
                    split.lock().unwrap().push(id.to_owned());
                    return Vec::new();
                }
            }
            vec![bytes]
        }
    });

    let folder = tempfile::tempdir().unwrap();
    let record = || Durable::open(&folder.path().join("processed")).unwrap();
    let consumer = fixture.consumer().prefetch(PREFETCH).dedup(record());
    let mut consumer = consumer.start().await.unwrap();
    assert_eq!(text(&opened(&mut consumer).await), "00000");
    let mut withheld = 0;
    let mut sent = ids.iter().zip(&tamperings).zip(&payloads);
    while let Some(((mut id, mut tampering), mut payload)) = sent.next() {
        let item = next(&mut consumer).await;
        let item_id = match &item {
            Ok(message) => message.message_id().to_string(),
            Err(ConsumeError::Unopenable(unopenable)) => unopenable.message_id().to_string(),
            Err(error) => panic!("{error}"),
        };
        while id.as_str() != item_id {
            assert!(
                split.lock().unwrap().contains(&id.to_string()),
                "{id} has not arrived"
            );
            withheld += 1;
            ((id, tampering), payload) = sent.next().expect("all others arrive in order");
        }
        match (tampering, item) {
            (Tampering::None, Ok(message)) => {
                assert_eq!(text(&message), payload);
                assert_eq!(message.verified_sender(), Some(fixture.sender.id()));
                message.ack_later().unwrap();
            }
            (Tampering::Flip { byte, bit }, Err(ConsumeError::Unopenable(refused))) => {
                let envelope = &envelopes[id.as_str()];
                let field = field_at(envelope, *byte);
                assert!(
                    is_expected(field.as_deref(), &refused.reason),
                    "bit {bit} of byte {byte}, in {field:?}: {:?}; {envelope}",
                    refused.reason
                );
            }
            (tampering, item) => panic!("{tampering:?}: {item:?}"),
        }
        let split = split.lock().unwrap().len();
        assert!(
            split * 20 < tamperings.len(),
            "{split} are too many to leave out"
        );
    }
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
    consumer.close().await;

    // The broker becomes honest: the original of each message arrives, once.
    fixture.broker.stop_intercepting();
    let consumer = fixture.consumer().prefetch(PREFETCH).dedup(record());
    let mut consumer = consumer.start().await.unwrap();
    let flipped = tamperings
        .iter()
        .zip(&payloads)
        .filter(|(tampering, _)| matches!(tampering, Tampering::Flip { .. }));
    let first = "00000".to_owned();
    for payload in std::iter::once(&first).chain(flipped.map(|(_, payload)| payload)) {
        let message = opened(&mut consumer).await;
        assert_eq!(text(&message), payload);
        message.ack_later().unwrap();
    }
    fixture
        .honest_traffic_arrives(&mut consumer, "the last")
        .await;
    assert_eq!(consumer.duplicates(), 0);
    let summary = consumer.close().await;
    assert_eq!(summary.unconfirmed, 0);
    assert!(withheld <= split.lock().unwrap().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bit_of_an_envelope_is_flipped() {
    bits(&MaliciousBrokerFixture::new().await, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bits_throughout_a_post_quantum_envelope_are_flipped() {
    let fixture = MaliciousBrokerFixture::post_quantum(Options::sqlite()).await;
    // With this stride, each byte has another bit flipped than the one before.
    bits(&fixture, 9).await;
    let suite = "\"suite\":\"XWING-AES256GCM\"";
    assert!(published(&fixture, "sender")[0].contains(suite));
}

/// A line feed within an envelope ends the line: the part before it is not an envelope, and the
/// part after it is not a line of the protocol.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_split_into_two_lines() {
    let fixture = MaliciousBrokerFixture::new().await;
    fixture.publish(["torn", "behind"]).await;
    let deliveries = AtomicUsize::new(0);
    fixture.broker.intercept(move |line| {
        let mut bytes = line.text.as_bytes().to_vec();
        if line.delivery_to("receiver").is_some() && deliveries.fetch_add(1, Ordering::SeqCst) == 0
        {
            let middle = bytes.len() / 2;
            bytes[middle] = b'\n';
        }
        vec![bytes]
    });
    let mut consumer = fixture.consumer().start().await.unwrap();
    // The second half ends the connection, and what the consumer has not read yet is discarded.
    let mut item = next(&mut consumer).await;
    if let Err(ConsumeError::Unopenable(refused)) = item {
        assert!(not_an_envelope(&refused.reason), "{:?}", refused.reason);
        drop(refused);
        item = next(&mut consumer).await;
    }
    let message = item.unwrap();
    assert_eq!(text(&message), "torn");
    message.ack().await.unwrap();
    expect_texts(&mut consumer, ["behind"]).await;
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
    assert_eq!(consumer.duplicates(), 0);
}
