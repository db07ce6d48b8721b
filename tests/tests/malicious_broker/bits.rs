//! Every bit of an envelope, as it stands on the wire, is turned over: one bit a message, in
//! thousands of messages. There is none that does not matter.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ciphermq_client::dedup::Durable;
use ciphermq_client::{ConsumeError, OpenError, UnopenableReason};
use ciphermq_tests::evil::EvilFixture;
use ciphermq_tests::evil::fixture::{next, opened, text};
use ciphermq_tests::server::Options;
use serde_json::Value;

use crate::envelopes::{
    no_certificate, no_envelope, no_private_key, not_authentic, other_id, other_receiver,
};
use crate::published;

/// Among so many attacked messages there is one that is not.
const HONEST_EVERY: usize = 100;

/// Every refused message keeps its place until the consumer ends.
const PREFETCH: NonZeroU32 = NonZeroU32::new(65_535).unwrap();

/// The field in whose value a byte of an envelope stands; none for names, quotes, commas and
/// braces.
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

/// Whether this is what must be said of an envelope with one wrong bit in that field's value, or in
/// none's.
fn is_expected(field: Option<&str>, reason: &UnopenableReason) -> bool {
    // A bit can make a quote, a backslash or a control character of any other, and so end or break
    // the text.
    if no_envelope(reason) {
        return true;
    }
    match field {
        Some("message_id") => other_id(reason),
        Some("receiver_client_id") => other_receiver(reason),
        Some("receiver_key_id") => no_private_key(reason) || not_authentic(reason),
        Some("sender_certificate") => no_certificate(reason) || not_authentic(reason),
        Some("suite") => matches!(reason, UnopenableReason::Sealed(OpenError::UnknownSuite(_))),
        Some(_) => not_authentic(reason),
        // The name of a field that is missed then.
        None => {
            not_authentic(reason) || *reason == UnopenableReason::Sealed(OpenError::OlderClient)
        }
    }
}

/// What is done to a message.
#[derive(Debug, Clone, Copy)]
enum Plan {
    Honest,
    Flip { byte: usize, bit: u8 },
}

/// With `stride` 1 all bits; with more the first one, and every so many after it.
async fn bits(fixture: &EvilFixture, stride: usize) {
    fixture.publish(["00000"]).await;
    let length = published(fixture, "sender")[0].len();
    let mut plans = Vec::new();
    for (number, place) in (0..length * 8).step_by(stride).enumerate() {
        if number % HONEST_EVERY == 0 {
            plans.push(Plan::Honest);
        }
        plans.push(Plan::Flip {
            byte: place / 8,
            bit: u8::try_from(place % 8).unwrap(),
        });
    }
    assert!(plans.len() < PREFETCH.get() as usize);
    let payloads: Vec<String> = (1..=plans.len())
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

    let by_id: HashMap<String, Plan> = ids
        .iter()
        .map(ToString::to_string)
        .zip(plans.iter().copied())
        .collect();
    // What would end the line is a case of its own: see `a_delivery_torn_into_two_lines`.
    let torn: Arc<Mutex<Vec<String>>> = Arc::default();
    fixture.evil.play({
        let torn = Arc::clone(&torn);
        move |line| {
            let mut bytes = line.text.as_bytes().to_vec();
            if let Some((id, envelope)) = line.delivery_to("receiver")
                && let Some(Plan::Flip { byte, bit }) = by_id.get(id)
            {
                let start = bytes.len() - envelope.len();
                bytes[start + byte] ^= 1 << bit;
                if bytes[start + byte] == b'\n' {
                    torn.lock().unwrap().push(id.to_owned());
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
    let mut plan = ids.iter().zip(&plans).zip(&payloads);
    while let Some(((mut id, mut done), mut payload)) = plan.next() {
        let came = next(&mut consumer).await;
        let came_id = match &came {
            Ok(message) => message.message_id().to_string(),
            Err(ConsumeError::Unopenable(unopenable)) => unopenable.message_id().to_string(),
            Err(error) => panic!("{error}"),
        };
        while id.as_str() != came_id {
            assert!(
                torn.lock().unwrap().contains(&id.to_string()),
                "{id} does not come"
            );
            withheld += 1;
            ((id, done), payload) = plan.next().expect("all others come in order");
        }
        match (done, came) {
            (Plan::Honest, Ok(message)) => {
                assert_eq!(text(&message), payload);
                assert_eq!(message.verified_sender(), Some(fixture.sender.id()));
                message.ack_later().unwrap();
            }
            (Plan::Flip { byte, bit }, Err(ConsumeError::Unopenable(refused))) => {
                let envelope = &envelopes[id.as_str()];
                let field = field_at(envelope, *byte);
                assert!(
                    is_expected(field.as_deref(), &refused.reason),
                    "bit {bit} of byte {byte}, in {field:?}: {:?}; {envelope}",
                    refused.reason
                );
            }
            (done, came) => panic!("{done:?}: {came:?}"),
        }
        let torn = torn.lock().unwrap().len();
        assert!(torn * 20 < plans.len(), "{torn} are too many to leave out");
    }
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
    consumer.close().await;

    // The broker becomes honest: the original of each is there, once.
    fixture.evil.play_honest();
    let consumer = fixture.consumer().prefetch(PREFETCH).dedup(record());
    let mut consumer = consumer.start().await.unwrap();
    let flipped = plans
        .iter()
        .zip(&payloads)
        .filter(|(plan, _)| matches!(plan, Plan::Flip { .. }));
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
    assert!(withheld <= torn.lock().unwrap().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bit_of_an_envelope_is_flipped() {
    bits(&EvilFixture::new().await, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bits_all_over_a_post_quantum_envelope_are_flipped() {
    let fixture = EvilFixture::post_quantum(Options::sqlite()).await;
    // Another bit from byte to byte.
    bits(&fixture, 9).await;
    let suite = "\"suite\":\"XWING-AES256GCM\"";
    assert!(published(&fixture, "sender")[0].contains(suite));
}

/// A line feed within an envelope ends the line: what stands before it is no envelope, what comes
/// after no line of the protocol's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_torn_into_two_lines() {
    let fixture = EvilFixture::new().await;
    fixture.publish(["torn", "behind"]).await;
    let deliveries = AtomicUsize::new(0);
    fixture.evil.play(move |line| {
        let mut bytes = line.text.as_bytes().to_vec();
        if line.delivery_to("receiver").is_some() && deliveries.fetch_add(1, Ordering::SeqCst) == 0
        {
            let middle = bytes.len() / 2;
            bytes[middle] = b'\n';
        }
        vec![bytes]
    });
    let mut consumer = fixture.consumer().start().await.unwrap();
    // The second half ends the connection, and with it what the consumer has not looked at yet.
    let mut came = next(&mut consumer).await;
    if let Err(ConsumeError::Unopenable(refused)) = came {
        assert!(no_envelope(&refused.reason), "{:?}", refused.reason);
        drop(refused);
        came = next(&mut consumer).await;
    }
    let message = came.unwrap();
    assert_eq!(text(&message), "torn");
    message.ack().await.unwrap();
    let message = opened(&mut consumer).await;
    assert_eq!(text(&message), "behind");
    message.ack().await.unwrap();
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
    assert_eq!(consumer.duplicates(), 0);
}
