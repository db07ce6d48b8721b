//! Cost of parsing lines, commands and envelopes, at the server and at the receiver.

#![allow(missing_docs, reason = "criterion's macros make functions")]
#![allow(clippy::unwrap_used, reason = "a measurement fails by panicking")]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use ciphermq_protocol::line::LineDecoder;
use ciphermq_protocol::{Command, Envelope};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const LIMIT: usize = 1 << 20;

/// An own part with a ciphertext of `ciphertext` characters.
fn own(position: usize, ciphertext: usize) -> String {
    format!(
        r#"{{"message_id":"01a20937-573d-8b38-8abe-0a{position:010x}","sent_time":"2025-09-08T07:03:00.123Z","nonce":"AAECAwQFBgcICQoL","ciphertext":"{}","tag":"AAECAwQFBgcICQoLDA0ODw=="}}"#,
        "A".repeat(ciphertext),
    )
}

/// The shared part of a signed session.
fn shared() -> String {
    format!(
        r#"{{"receiver_client_id":"receiver_1","enc_session_key":"{}","suite":"X25519-AES256GCM","sender_client_id":"sender_1","receiver_key_id":"6636bbd97ffc80ee","exchange":"ciphermq_exchange","routing_key":"receiver_1_key","content_type":"application/json","session_time":"2025-09-08T07:03:00.000Z","sender_certificate":"{}","sender_signature":"{}"}}"#,
        "A".repeat(108),
        "9f".repeat(32),
        "A".repeat(140),
    )
}

/// An envelope of a signed session.
fn envelope(position: usize, ciphertext: usize) -> String {
    let (own, shared) = (own(position, ciphertext), shared());
    format!(
        "{},{}",
        own.trim_end_matches('}'),
        shared.trim_start_matches('{')
    )
}

fn codec(criterion: &mut Criterion) {
    for ciphertext in [344, 87_384] {
        let json = envelope(0, ciphertext);
        let raw = Bytes::from(json.clone());
        let mut group = criterion.benchmark_group(format!("envelope of {} bytes", raw.len()));
        group.throughput(Throughput::Bytes(raw.len() as u64));
        group.bench_function("parse", |bencher| {
            bencher.iter(|| Envelope::parse(black_box(raw.clone())).unwrap());
        });
        let parsed = Envelope::parse(raw).unwrap();
        group.bench_function("fields", |bencher| {
            bencher.iter(|| black_box(&parsed).fields().unwrap().ciphertext.text().len());
        });
        let line = Bytes::from(format!("publish ciphermq_exchange receiver_1_key {json}"));
        group.bench_function("publish", |bencher| {
            bencher.iter(|| Command::parse(black_box(&line)).unwrap());
        });
        group.finish();
    }

    let batch: Vec<String> = (0..100).map(|position| envelope(position, 344)).collect();
    let line = Bytes::from(format!(
        "publish_batch ciphermq_exchange receiver_1_key [{}]",
        batch.join(",")
    ));
    let mut group = criterion.benchmark_group("100 envelopes");
    group.throughput(Throughput::Elements(100));
    group.bench_function("publish_batch", |bencher| {
        bencher.iter(|| Command::parse(black_box(&line)).unwrap());
    });
    let own: Vec<String> = (0..100).map(|position| own(position, 344)).collect();
    let packed = Bytes::from(format!(
        "publish_packed ciphermq_exchange receiver_1_key 100 {} {}",
        own.join(" "),
        shared()
    ));
    group.bench_function("publish_packed", |bencher| {
        bencher.iter(|| Command::parse(black_box(&packed)).unwrap());
    });
    let lines = batch.join("\n") + "\n";
    group.bench_function("lines", |bencher| {
        bencher.iter_batched(
            || (LineDecoder::new(LIMIT), BytesMut::from(lines.as_str())),
            |(mut decoder, mut buffer)| {
                let mut count = 0;
                while decoder.decode(&mut buffer).unwrap().is_some() {
                    count += 1;
                }
                assert_eq!(count, 100);
            },
            BatchSize::SmallInput,
        );
    });
    let ids: Vec<String> = (0..100)
        .map(|position| format!("01a20937-573d-8b38-8abe-0a{position:010x}"))
        .collect();
    let acks = Bytes::from(format!("ack {}", ids.join(" ")));
    group.bench_function("ack", |bencher| {
        bencher.iter(|| Command::parse(black_box(&acks)).unwrap());
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
