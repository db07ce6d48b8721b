//! Packed lines that are altered in transit: whatever the change, each envelope in the line is
//! either the original, or refused.

use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use ciphermq_client::dedup::Durable;
use ciphermq_crypto::{Authority, OpenPolicy, Opener};
use ciphermq_protocol::envelope::{EnvelopeBytes, EnvelopeReader};
use ciphermq_protocol::hello::Packing;
use ciphermq_protocol::{Delivery, PackedLines, Reply};
use ciphermq_tests::faults::proxy::Direction;
use ciphermq_tests::malicious::MaliciousBrokerFixture;
use ciphermq_tests::malicious::fixture::{expect_texts, opened, text, unopenable};
use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, on_both_databases};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::envelopes::not_authentic;

const PAYLOADS: [&str; 3] = ["the first", "the second", "the third"];

fn deliveries(line: &[u8]) -> Option<Vec<Delivery>> {
    match Reply::parse(&Bytes::copy_from_slice(line)) {
        Ok(Reply::Messages(deliveries)) => Some(deliveries),
        _ => None,
    }
}

/// Writes lines, with their endings, and with the bytes after them if they are binary.
fn lines(deliveries: &[Delivery], packing: Packing) -> Vec<u8> {
    let mut line = BytesMut::new();
    let is_binary = packing == Packing::Binary;
    let taken = PackedLines {
        binary: is_binary,
        ..PackedLines::ALL
    };
    Delivery::encode_packed(deliveries, taken, &mut line);
    line.to_vec()
}

/// Publishes and receives all payloads, and returns one line that contains their deliveries.
async fn delivered(fixture: &MaliciousBrokerFixture, packing: Packing) -> Vec<u8> {
    fixture.publish(PAYLOADS).await;
    let mut consumer = fixture.consumer().start().await.unwrap();
    expect_texts(&mut consumer, PAYLOADS).await;
    consumer.close().await;
    let sent = fixture.broker.published_by("sender");
    let word = match packing {
        Packing::Binary => "publish_binary ",
        _ => "publish_packed ",
    };
    assert!(sent.iter().all(|line| line.starts_with(word)), "{sent:?}");
    let recorded = fixture.broker.recorded().into_iter();
    let packed = recorded
        .filter(|line| line.direction == Direction::ToClient && line.client == "receiver")
        .filter_map(|line| deliveries(&line.bytes));
    let all: Vec<Delivery> = packed.flatten().collect();
    assert_eq!(all.len(), PAYLOADS.len());
    let mut line = lines(&all, packing);
    if packing == Packing::Text {
        line.pop();
    }
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bit_of_a_packed_line_is_flipped() {
    flips_every_bit(Packing::Text).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bit_of_a_binary_line_is_flipped() {
    flips_every_bit(Packing::Binary).await;
}

async fn flips_every_bit(packing: Packing) {
    let fixture = MaliciousBrokerFixture::packing(Options::sqlite(), packing).await;
    let line = delivered(&fixture, packing).await;
    let originals = deliveries(&line).unwrap();

    let pki = fixture.server.pki();
    let certificates = CertificateDer::pem_file_iter(pki.client("sender").certificate).unwrap();
    let sender: Vec<CertificateDer<'static>> = certificates.map(Result::unwrap).collect();
    let opener = || {
        let authority = Authority::new([pki.authority().certificate_der()]).unwrap();
        let receiver = fixture.receiver.id().clone();
        let mut opener = Opener::new(
            receiver,
            fixture.keyring(),
            authority,
            OpenPolicy::default(),
        );
        opener.add_sender_chain(sender.clone());
        opener
    };
    // One opener knows the session already, and the other one does not.
    let mut knows_session = opener();
    let mut open_all = |line: &[u8]| -> usize {
        let Some(deliveries) = deliveries(line) else {
            return 0;
        };
        let mut count = 0;
        for opener in [&mut knows_session, &mut opener()] {
            let mut reader = EnvelopeReader::default();
            for delivery in &deliveries {
                let Ok((envelope, fields)) = reader.read(&delivery.envelope) else {
                    continue;
                };
                let Ok(message) = opener.open_parsed(&envelope, &fields) else {
                    continue;
                };
                let original = originals
                    .iter()
                    .position(|original| original.message_id == message.message_id)
                    .unwrap_or_else(|| panic!("{} was never sent", message.message_id));
                assert_eq!(message.payload, PAYLOADS[original].as_bytes());
                assert!(message.is_sender_verified);
                count += 1;
            }
        }
        count
    };
    assert_eq!(open_all(&line), 6, "the original opens");
    let mut bytes = line;
    let mut total = 0;
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let opened = open_all(&bytes);
        assert!(opened < 6, "a flip of bit {bit} is not detected");
        total += opened;
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(
        total > 0,
        "unchanged envelopes in an altered line are opened"
    );
}

/// The broker combines a message's own part with the shared part of another session, repeats and
/// reorders messages, and splits and joins lines.
async fn packed_lines_are_recombined(backend: Backend) {
    for packing in [Packing::Text, Packing::Binary] {
        recombines(backend.options().await, packing).await;
    }
}

async fn recombines(options: Options, packing: Packing) {
    let fixture = MaliciousBrokerFixture::packing(options, packing).await;
    let other = delivered(&fixture, packing).await;
    let other = deliveries(&other).unwrap();
    let shared = other[0].envelope.shared().unwrap().clone();
    let ids = fixture.publish(PAYLOADS).await;
    let held = Mutex::new(Vec::new());
    fixture.broker.intercept(move |packed| {
        let intercepted = packed
            .reply_to("receiver", "")
            .and_then(|_| deliveries(packed.bytes))
            .filter(|deliveries| ids.contains(&deliveries[0].message_id));
        let Some(intercepted) = intercepted else {
            return packed.honest_bytes();
        };
        let mut held = held.lock().unwrap();
        held.extend(intercepted);
        let [first, second, third] = &held[..] else {
            return Vec::new();
        };
        let mixed = Delivery {
            message_id: first.message_id.clone(),
            envelope: EnvelopeBytes::packed(first.envelope.own().clone(), shared.clone()),
        };
        vec![
            lines(&[mixed], packing),
            lines(
                &[
                    third.clone(),
                    third.clone(),
                    other[0].clone(),
                    second.clone(),
                ],
                packing,
            ),
        ]
    });

    let folder = tempfile::tempdir().unwrap();
    let record = || Durable::open(&folder.path().join("processed")).unwrap();
    let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
    let refused = unopenable(&mut consumer, "another session").await;
    assert!(not_authentic(&refused.reason), "{:?}", refused.reason);
    drop(refused);
    // The record is new, so the old message, which it does not know, is delivered as well, once.
    for payload in ["the third", "the first", "the second"] {
        let message = opened(&mut consumer).await;
        assert_eq!(text(&message), payload);
        assert_eq!(message.verified_sender(), Some(fixture.sender.id()));
        // The ack of the old message is confirmed again.
        message.ack().await.unwrap();
    }
    fixture
        .honest_traffic_arrives(&mut consumer, "beside it")
        .await;
    consumer.close().await;

    fixture.broker.stop_intercepting();
    let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
    expect_texts(&mut consumer, ["the first"]).await;
    fixture
        .honest_traffic_arrives(&mut consumer, "the last")
        .await;
    assert_eq!(consumer.duplicates(), 0);
}

on_both_databases!(packed_lines_are_recombined);
