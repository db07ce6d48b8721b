//! Receivers at work.

use std::time::Duration;

use ciphermq_client::{Consumer, Keyring};
use tokio::task::JoinSet;

use super::lane::{Lane, unopenable};
use super::latencies::{self, Latencies};
use super::payload::Run;
use super::plan::PlanArgs;
use crate::exit::Failure;

/// Nothing has come for so long: something is broken.
const STALLED: Duration = Duration::from_secs(60);

/// Connects every receiver.
pub(super) async fn consumers(
    lanes: &[Lane],
    plan: &PlanArgs,
    keyring: &Keyring,
) -> Result<Vec<Consumer>, Failure> {
    let mut consumers = Vec::new();
    for lane in lanes {
        consumers.push(lane.consumer(plan, keyring).await?);
    }
    Ok(consumers)
}

/// Starts every receiver.
pub(super) fn receive(
    consumers: Vec<Consumer>,
    lanes: &[Lane],
    run: Run,
) -> JoinSet<Result<Latencies, Failure>> {
    let mut tasks = JoinSet::new();
    for (consumer, lane) in consumers.into_iter().zip(lanes) {
        tasks.spawn(receive_all(consumer, lane.expected, run));
    }
    tasks
}

/// Opens and acknowledges everything that one receiver is to get, until that is confirmed.
async fn receive_all(
    mut consumer: Consumer,
    expected: u64,
    run: Run,
) -> Result<Latencies, Failure> {
    let mut latencies = latencies::empty()?;
    while latencies.len() < expected {
        let next = tokio::time::timeout(STALLED, consumer.next()).await;
        let message = match next {
            Ok(Some(message)) => message.map_err(|error| unopenable(&error))?,
            Ok(None) => return Err(Failure::plain("A receiver's connection was closed.")),
            Err(_) => {
                return Err(Failure::new(
                    format!(
                        "Nothing has come for {} s; {} of {} messages had.",
                        STALLED.as_secs(),
                        latencies.len(),
                        expected
                    ),
                    "See the server's log. Is somebody else receiving from the benchmark's queues?",
                ));
            }
        };
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

/// Waits for every receiver.
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
