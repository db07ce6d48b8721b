//! Short attacks by one client, or by an address without a certificate, on the service of others,
//! and what must hold meanwhile on every machine, however slow.
//!
//! `cargo run --release -p ciphermq-tests --bin battery` makes the full attacks and prints figures.

use ciphermq_tests::Backend;
use ciphermq_tests::battery::{Attack, Figures, Settings, round};

async fn holds(backend: Backend, attacks: &[Attack]) {
    let figures = round::run(&backend, attacks, &Settings::short()).await;
    eprintln!("{}\n{figures}", Figures::header());
    let mut violations = figures.violations();
    violations.extend(figures.log_growth());
    assert!(violations.is_empty(), "{violations:#?}");
}

/// Defines a test on SQLite for each attack.
macro_rules! attacks {
    ($($name:ident: $attack:ident,)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            holds(Backend::Sqlite, &[Attack::$attack]).await;
        })+
    };
}

attacks! {
    queues_bound_to_the_victims_route_heavy: BoundQueues,
    batches_of_unrelated_ids_heavy: UnrelatedIds,
    lines_of_minimal_envelopes_heavy: MinimalEnvelopes,
    twelve_lines_of_minimal_envelopes_heavy: TwelveMinimalEnvelopes,
    acks_of_unknown_ids_heavy: UnknownAcks,
    lines_that_do_not_end_heavy: SlowLines,
    queries_of_rejected_messages_heavy: ListRejected,
    rejections_of_own_messages_heavy: OwnRejections,
    failed_handshakes_heavy: Handshakes,
    idle_connections_heavy: IdleConnections,
    connections_that_never_read_heavy: NoReading,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_attacks_at_once_heavy() {
    holds(Backend::Sqlite, &Attack::AT_ONCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_four_attacks_at_once_heavy() {
    holds(Backend::postgres().await, &Attack::AT_ONCE).await;
}
