//! The receivers of a benchmark.

use std::time::Duration;

use ciphermq_client::{Consumer, Keyring, Message};
use tokio::task::JoinSet;

use super::latencies::{self, Latencies};
use super::payload::RunClock;
use super::plan::PlanArgs;
use super::receiver_route::{ReceiverRoute, unopenable_failure};
use crate::exit::Failure;

/// The time without any message after which a benchmark fails.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts a consumer for every receiver.
pub(super) async fn consumers(
    routes: &[ReceiverRoute],
    plan: &PlanArgs,
    keyring: &Keyring,
) -> Result<Vec<Consumer>, Failure> {
    let mut consumers = Vec::new();
    for route in routes {
        consumers.push(route.consumer(plan, keyring).await?);
    }
    Ok(consumers)
}

/// Starts a task for every receiver.
pub(super) fn receive(
    consumers: Vec<Consumer>,
    routes: &[ReceiverRoute],
    run: RunClock,
) -> JoinSet<Result<Latencies, Failure>> {
    let mut tasks = JoinSet::new();
    for (consumer, route) in consumers.into_iter().zip(routes) {
        tasks.spawn(receive_all(consumer, route.expected, run));
    }
    tasks
}

/// Opens and acknowledges all messages of one receiver, and waits for the confirmations.
async fn receive_all(
    mut consumer: Consumer,
    expected: u64,
    run: RunClock,
) -> Result<Latencies, Failure> {
    let mut latencies = latencies::empty()?;
    while latencies.len() < expected {
        let message = next(&mut consumer, latencies.len(), expected).await?;
        if let Some(age) = run.age(message.payload()) {
            latencies::record(&mut latencies, age);
        }
        message.ack_later()?;
    }
    let summary = consumer.close().await;
    match summary.failures.into_iter().next() {
        None => Ok(latencies),
        Some((_, error)) => Err(error.into()),
    }
}

/// Waits for a receiver's next message, after `received` of `expected`.
pub(super) async fn next(
    consumer: &mut Consumer,
    received: u64,
    expected: u64,
) -> Result<Message, Failure> {
    match tokio::time::timeout(STALL_TIMEOUT, consumer.next()).await {
        Ok(Some(message)) => message.map_err(|error| unopenable_failure(&error)),
        Ok(None) => Err(Failure::plain("A receiver's connection was closed.")),
        Err(_) => Err(Failure::new(
            format!(
                "No message has arrived for {} s, after {received} of {expected}.",
                STALL_TIMEOUT.as_secs()
            ),
            "See the server's log. Is somebody else receiving from the benchmark's queues?",
        )),
    }
}

/// Waits for all receivers. Returns the latencies of all of them.
pub(super) async fn finished(
    mut receiving: JoinSet<Result<Latencies, Failure>>,
) -> Result<Latencies, Failure> {
    let mut all = latencies::empty()?;
    while let Some(done) = receiving.join_next().await {
        let one =
            done.map_err(|error| Failure::plain(format!("A receiver failed: {error}.")))??;
        latencies::add(&mut all, one)?;
    }
    Ok(all)
}
