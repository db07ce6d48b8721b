//! Messages that are dropped, delayed, reordered and repeated. A broker can do all of this, and the
//! receiver can detect it. The receiver still gets only originals, each once.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Mutex;

use ciphermq_client::dedup::Durable;
use ciphermq_tests::malicious::MaliciousBrokerFixture;
use ciphermq_tests::malicious::fixture::{expect_texts, opened, text};
use ciphermq_tests::{Backend, on_both_databases};

const MESSAGES: usize = 200;

/// Number of deliveries that are held back, and then delivered in reverse order.
const HELD: usize = 10;

/// Interval of dropped messages: one of this number.
const DROPPED_OF: usize = 7;

const PREFETCH: NonZeroU32 = NonZeroU32::new(1000).unwrap();

async fn dropped_reordered_and_repeated(backend: Backend) {
    let mut fixture = MaliciousBrokerFixture::with(backend.options().await).await;
    let payloads: Vec<String> = (0..MESSAGES)
        .map(|number| format!("number {number}"))
        .collect();
    let ids = fixture.publish(payloads.iter().map(String::as_str)).await;
    let dropped: HashSet<String> = ids
        .iter()
        .step_by(DROPPED_OF)
        .map(ToString::to_string)
        .collect();
    let kept: Vec<usize> = (0..MESSAGES)
        .filter(|number| number % DROPPED_OF != 0)
        .collect();
    let (left, held) = (Mutex::new(kept.len()), Mutex::new(Vec::new()));
    let attacked: HashSet<String> = ids.iter().map(ToString::to_string).collect();
    fixture.broker.intercept(move |line| {
        let Some((id, _)) = line
            .delivery_to("receiver")
            .filter(|(id, _)| attacked.contains(*id))
        else {
            return line.honest();
        };
        if dropped.contains(id) {
            return Vec::new();
        }
        let (mut left, mut held) = (left.lock().unwrap(), held.lock().unwrap());
        *left = left.saturating_sub(1);
        held.push(line.text.to_owned());
        if held.len() < HELD && *left > 0 {
            return Vec::new();
        }
        // In reverse order, and all of them twice.
        held.reverse();
        let lines: Vec<String> = held.drain(..).collect();
        [lines.clone(), lines].concat()
    });

    let folder = tempfile::tempdir().unwrap();
    let record = || Durable::open(&folder.path().join("processed")).unwrap();
    let consumer = fixture.consumer().prefetch(PREFETCH).dedup(record());
    let mut consumer = consumer.start().await.unwrap();
    let mut arrived = Vec::new();
    for _ in &kept {
        let message = opened(&mut consumer).await;
        let number = ids
            .iter()
            .position(|id| id == message.message_id())
            .unwrap();
        assert_eq!(text(&message), payloads[number]);
        assert_eq!(message.verified_sender(), Some(fixture.sender.id()));
        message.ack().await.unwrap();
        arrived.push(number);
    }
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
    consumer.close().await;
    // The authenticated ids reveal all of it, because those of one stream are consecutive.
    let expected: Vec<usize> = kept
        .chunks(HELD)
        .flat_map(|group| group.iter().rev().copied())
        .collect();
    assert_eq!(arrived, expected);

    // The broker becomes honest: the dropped messages arrive, once and in order, even after a
    // restart of the server.
    fixture.broker.stop_intercepting();
    fixture.server.restart().await;
    let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
    expect_texts(&mut consumer, payloads.iter().step_by(DROPPED_OF)).await;
    fixture
        .honest_traffic_arrives(&mut consumer, "the last")
        .await;
    assert_eq!(consumer.duplicates(), 0);
}

on_both_databases!(dropped_reordered_and_repeated);
