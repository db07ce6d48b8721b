//! Measures routing from an exchange and a routing key to queues, with many of them.
//!
//! `cargo bench -p ciphermq-server --bench routing`

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "whoever measures wants to see what fails"
)]

use ciphermq_protocol::{ExchangeName, QueueName, RoutingKey};
use ciphermq_server::broker::topology::Topology;
use ciphermq_server::model::{Binding, QueueId, StoredTopology};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const EXCHANGES: usize = 10;

fn exchange(number: usize) -> ExchangeName {
    ExchangeName::new(&format!("exchange_{}", number % EXCHANGES)).unwrap()
}

fn routing_key(number: usize) -> RoutingKey {
    RoutingKey::new(&format!("sensors.hall_{number}.temperature")).unwrap()
}

/// Makes `queues` queues, each bound by a key of its own to one of the exchanges.
fn stored(queues: usize) -> StoredTopology {
    let queue = |number: usize| QueueId(i64::try_from(number).unwrap());
    StoredTopology {
        queues: (0..queues)
            .map(|number| {
                (
                    queue(number),
                    QueueName::new(&format!("queue_{number}")).unwrap(),
                    None,
                )
            })
            .collect(),
        exchanges: (0..EXCHANGES)
            .map(|number| (exchange(number), None))
            .collect(),
        bindings: (0..queues)
            .map(|number| {
                let binding = Binding {
                    exchange: exchange(number),
                    routing_key: routing_key(number),
                    queue: queue(number),
                };
                (binding, None)
            })
            .collect(),
        ..StoredTopology::default()
    }
}

/// Routes as many messages as there are bindings, up to a thousand, spread over all of them.
fn many_bindings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for bindings in [1, 100, 10_000, 100_000] {
        let topology = Topology::new(stored(bindings));
        let messages = bindings.min(1000);
        let routes: Vec<_> = (0..messages)
            .map(|message| message * (bindings / messages))
            .map(|number| (exchange(number), routing_key(number)))
            .collect();
        group.throughput(Throughput::Elements(u64::try_from(messages).unwrap()));
        group.bench_function(BenchmarkId::new("bindings", bindings), |bencher| {
            bencher.iter(|| {
                let queues = routes
                    .iter()
                    .map(|(exchange, key)| topology.route(exchange, key));
                queues.map(|queues| queues.unwrap().len()).sum::<usize>()
            });
        });
    }
    group.finish();
}

/// Routes by one key that leads to many queues.
fn many_queues(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan_out");
    for queues in [1, 10, 1000] {
        let mut stored = stored(queues);
        for (binding, _) in &mut stored.bindings {
            (binding.exchange, binding.routing_key) = (exchange(0), routing_key(0));
        }
        let topology = Topology::new(stored);
        let (exchange, key) = (exchange(0), routing_key(0));
        assert_eq!(topology.route(&exchange, &key).unwrap().len(), queues);
        group.bench_function(BenchmarkId::new("queues", queues), |bencher| {
            bencher.iter(|| topology.route(&exchange, &key));
        });
    }
    group.finish();
}

/// Loads the topology, as a server does when it starts.
fn start(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load_topology");
    for queues in [100, 10_000] {
        let stored = stored(queues);
        group.throughput(Throughput::Elements(u64::try_from(queues).unwrap()));
        group.bench_function(BenchmarkId::new("queues", queues), |bencher| {
            bencher.iter_batched(
                || stored.clone(),
                Topology::new,
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, many_bindings, many_queues, start);
criterion_main!(benches);
