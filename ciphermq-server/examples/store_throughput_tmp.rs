#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing, clippy::cast_possible_truncation)]
use std::sync::Arc;
use std::time::Instant;
use bytes::Bytes;
use ciphermq_protocol::*;
use ciphermq_server::config::{self, Secret, Target};
use ciphermq_server::store::*;

#[tokio::main]
async fn main() {
    let which = std::env::args().nth(1).unwrap();
    let total: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let batch: usize = std::env::args().nth(3).unwrap().parse().unwrap();
    let random = std::env::args().nth(4).is_some();
    let pg;
    let dir = tempfile::tempdir_in("/work").unwrap();
    let settings = if which == "sqlite" {
        Settings::Sqlite { path: dir.path().join("mq.db"), disk_reserve: 0 }
    } else {
        pg = ciphermq_tests::Postgres::start_with(ciphermq_tests::postgres::Options{ tls: false, settings: vec!["shared_buffers=128MB".into(), "max_wal_size=1GB".into()] }).await;
        let name = pg.create_database().await;
        Settings::Postgres(config::Postgres { target: Target::Url(Secret::from(pg.url(&name))), sslmode: None, sslrootcert: None })
    };
    let mut store = open(&settings).await.unwrap();
    let out = store.committer.commit(&Transaction { changes: vec![Change::DeclareQueue(QueueName::new("q").unwrap())], ..Default::default() }).await.unwrap();
    let queue = out.changes[0].unwrap();
    let stream = StreamId::new(1_700_000_000_000, 42);
    let payload = "A".repeat(420);
    let mid = |n: usize| if random { let x = (n as u64).wrapping_mul(0x9E3779B97F4A7C15); let y = x.rotate_left(29).wrapping_mul(0xBF58476D1CE4E5B9); MessageId::new(&format!("{:08x}-{:04x}-4{:03x}-9{:03x}-{:012x}", x as u32, (x>>32) as u16, (x>>48)&0xfff, y&0xfff, y>>16)).unwrap() } else { stream.message_id(n as u64).unwrap() };
    let make = |n: usize| {
        let json = format!(r#"{{"message_id":"{}","receiver_client_id":"receiver_1","enc_session_key":"YQ==","nonce":"Yg==","ciphertext":"{payload}","suite":"X25519-AES256GCM"}}"#, mid(n));
        Arc::new(Publish { sender: ClientId::new("sender_1").unwrap(), exchange: ExchangeName::new("ciphermq_exchange").unwrap(), routing_key: RoutingKey::new("receiver_1_key").unwrap(), queues: [queue].into(), envelope: Envelope::parse(Bytes::from(json)).unwrap(), digest: [n as u8; 32], sent_time: Time::now() })
    };
    let all: Vec<_> = (0..total).map(make).collect();
    println!("{} bytes each", all[0].envelope.raw().len());
    let receiver = ClientId::new("receiver_1").unwrap();
    let ack = |n: usize| Ack { message_id: mid(n), client_id: receiver.clone(), delivered_time: Some(Time::now()), time: Time::now() };
    // publish and ack in the same pass, acks lag by 4 batches
    let start = Instant::now();
    let lag = 4 * batch;
    let mut at = 0;
    while at < total + lag {
        let publishes = all.get(at..(at + batch).min(total)).unwrap_or(&[]).to_vec();
        let acks = if at >= lag { (at - lag..(at - lag + batch).min(total)).map(ack).collect() } else { vec![] };
        let out = store.committer.commit(&Transaction { publishes, acks, ..Default::default() }).await.unwrap();
        assert!(out.acks.iter().all(|a| matches!(a, AckOutcome::Done(_))));
        at += batch;
    }
    let t = start.elapsed();
    println!("publish+ack {which} batch {batch}: {:.0}/s ({:.1} ms a commit)", total as f64 / t.as_secs_f64(), t.as_secs_f64() * 1e3 / (total as f64 / batch as f64));
    // publish only, then read, then ack only
    let make2: Vec<_> = (total..2*total).map(make).collect();
    let start = Instant::now();
    for chunk in make2.chunks(batch) { store.committer.commit(&Transaction { publishes: chunk.to_vec(), ..Default::default() }).await.unwrap(); }
    println!("publish only: {:.0}/s", total as f64 / start.elapsed().as_secs_f64());
    let start = Instant::now();
    let mut after = Seq(0); let mut n = 0;
    loop { let p = store.reader.lane(&LaneKey { queue, receiver: receiver.clone() }, after, PageLimit { messages: 1000, bytes: 4 << 20 }).await.unwrap(); n += p.messages.len(); if let Some(l) = p.messages.last() { after = l.seq; } if !p.more { break; } }
    println!("read: {:.0}/s ({n})", n as f64 / start.elapsed().as_secs_f64());
    let start = Instant::now();
    let ids: Vec<usize> = (total..2*total).collect();
    for chunk in ids.chunks(batch) { store.committer.commit(&Transaction { acks: chunk.iter().map(|n| ack(*n)).collect(), ..Default::default() }).await.unwrap(); }
    println!("ack only: {:.0}/s", total as f64 / start.elapsed().as_secs_f64());
    store.committer.close().await; store.reader.close().await;
}
