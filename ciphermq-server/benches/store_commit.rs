//! Measures durable commits: messages accepted and messages acknowledged, for several numbers of
//! messages in one transaction.
//!
//! `cargo bench -p ciphermq-server --bench store_commit` measures SQLite, in a temporary folder
//! (`TMPDIR` names another disk). PostgreSQL is measured, too, if `CIPHERMQ_BENCH_DATABASE_URL` is
//! a `postgres://` URL of a database that may be filled.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "whoever measures wants to see what fails"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ciphermq_protocol::envelope::{EnvelopeBytes, EnvelopeReader};
use ciphermq_protocol::{ClientId, ExchangeName, MessageId, QueueName, RoutingKey, StreamId};
use ciphermq_server::config::{self, Secret, Target};
use ciphermq_server::model::{
    Ack, AckOutcome, Change, Outcomes, Publish, PublishOutcome, QueueId, Time, Transaction,
};
use ciphermq_server::store::{self, DatabaseSettings, Store};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

const URL: &str = "CIPHERMQ_BENCH_DATABASE_URL";
/// The length of a payload of 256 bytes in base64.
const CIPHERTEXT: usize = 344;
/// The approximate number of bytes that the messages of a session share.
const SHARED_BYTES: usize = 670;

/// An open database, and ids that no message in it has.
struct Bench {
    runtime: Runtime,
    store: Store,
    queue: QueueId,
    stream: StreamId,
    next: u64,
}

impl Bench {
    fn open(settings: &DatabaseSettings) -> Self {
        let runtime = Runtime::new().unwrap();
        let mut store = runtime.block_on(store::open(settings)).unwrap();
        let declare = Transaction {
            changes: vec![Change::DeclareQueue {
                queue: QueueName::new("bench").unwrap(),
                made_by: ClientId::new("bench").unwrap(),
            }],
            ..Transaction::default()
        };
        let outcomes = runtime.block_on(store.committer.commit(&declare)).unwrap();
        // The stream of another run on the same database started in another millisecond.
        let millis = Time::now().timestamp().as_millisecond();
        Self {
            runtime,
            store,
            queue: outcomes.changes[0].queue().unwrap(),
            stream: StreamId::new(
                u64::try_from(millis).unwrap(),
                u64::from(std::process::id()),
            ),
            next: 0,
        }
    }

    /// Makes the next messages of the stream, for the queue.
    fn messages(&mut self, count: u64) -> Vec<Arc<Publish>> {
        let ids = (self.next..self.next + count)
            .map(|position| self.stream.message_id(position).unwrap());
        self.next += count;
        let shared = shared();
        // Messages of one line are sent at the same time.
        let time = Time::now();
        ids.map(|id| publish(&id, self.queue, &shared, time))
            .collect()
    }

    /// Commits, and returns the outcomes and the elapsed time.
    fn commit(&mut self, transaction: &Transaction) -> (Outcomes, Duration) {
        let start = Instant::now();
        let outcomes = self
            .runtime
            .block_on(self.store.committer.commit(transaction));
        (outcomes.unwrap(), start.elapsed())
    }

    /// Accepts messages in one commit and acknowledges them in another. Returns the time of each.
    fn round(&mut self, count: u64) -> [Duration; 2] {
        let publishes = self.messages(count);
        let time = Time::now();
        let acks = publishes.iter().map(|publish| ack(publish, time)).collect();
        let (outcomes, accepting) = self.commit(&Transaction {
            publishes,
            ..Transaction::default()
        });
        let is_stored = |outcome: &PublishOutcome| matches!(outcome, PublishOutcome::Stored { .. });
        assert!(outcomes.publishes.iter().all(is_stored));
        let (outcomes, acknowledging) = self.commit(&Transaction {
            acks,
            ..Transaction::default()
        });
        assert!(
            outcomes
                .acks
                .iter()
                .all(|outcome| matches!(outcome, AckOutcome::Done(_)))
        );
        [accepting, acknowledging]
    }

    fn close(self) {
        self.runtime.block_on(async {
            self.store.committer.close().await;
            self.store.reader.close().await;
        });
    }
}

/// Makes a message as `ciphermq-client` publishes it.
fn publish(id: &MessageId, queue: QueueId, shared: &Bytes, sent_time: Time) -> Arc<Publish> {
    let own = format!(
        r#"{{"message_id":"{id}","sent_time":"2026-01-01T00:00:00.000Z","nonce":"AAAAAAAAAAAAAAAA","ciphertext":"{}","tag":"AAAAAAAAAAAAAAAAAAAAAA==""#,
        "A".repeat(CIPHERTEXT)
    );
    let bytes = EnvelopeBytes::packed(own.into(), shared.clone());
    let (envelope, _) = EnvelopeReader::default().read(&bytes).unwrap();
    Arc::new(Publish {
        sender: ClientId::new("sender_1").unwrap(),
        exchange: ExchangeName::new("bench").unwrap(),
        routing_key: RoutingKey::new("bench").unwrap(),
        queues: [queue].into(),
        digest: None,
        envelope,
        sent_time,
    })
}

fn shared() -> Bytes {
    let head =
        r#","receiver_client_id":"receiver_1","suite":"X25519-AES256GCM","enc_session_key":""#;
    let key = "A".repeat(SHARED_BYTES - head.len() - 2);
    format!("{head}{key}\"}}").into()
}

fn ack(publish: &Publish, time: Time) -> Ack {
    Ack {
        message_id: publish.envelope.message_id.clone(),
        client_id: ClientId::new("receiver_1").unwrap(),
        delivered_time: None,
        time,
    }
}

fn commits(criterion: &mut Criterion, database: &str, settings: &DatabaseSettings) {
    let mut bench = Bench::open(settings);
    let mut group = criterion.benchmark_group(database);
    group.sample_size(20);
    for (place, what) in ["accept", "acknowledge"].into_iter().enumerate() {
        for count in [1, 100, 1000] {
            group.throughput(Throughput::Elements(count));
            group.bench_function(BenchmarkId::new(what, count), |bencher| {
                // Each needs the other: a database that only grows would become slower during the
                // measurement.
                bencher.iter_custom(|rounds| (0..rounds).map(|_| bench.round(count)[place]).sum());
            });
        }
    }
    group.finish();
    bench.close();
}

fn sqlite(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let settings = DatabaseSettings::Sqlite {
        path: folder.path().join("mq.db"),
        disk_reserve: 0,
    };
    commits(criterion, "sqlite", &settings);
}

fn postgres(criterion: &mut Criterion) {
    let Ok(url) = std::env::var(URL) else {
        eprintln!("PostgreSQL is not measured: {URL} names no database.");
        return;
    };
    let settings = DatabaseSettings::Postgres(config::Postgres {
        target: Target::Url(Secret::from(url)),
        sslmode: None,
        sslrootcert: None,
    });
    commits(criterion, "postgres", &settings);
}

criterion_group!(benches, sqlite, postgres);
criterion_main!(benches);
