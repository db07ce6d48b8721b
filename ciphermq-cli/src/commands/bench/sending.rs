//! The senders of a benchmark.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_client::publisher::BatchLimits;
use ciphermq_client::{Client, Publisher};
use tokio::task::JoinSet;

use super::ack_latencies::AckLatencies;
use super::payload::{Payload, RunClock};
use super::plan::PlanArgs;
use super::receiver_route::ReceiverRoute;
use crate::exit::Failure;

/// The window in bytes: large enough that only the window in messages limits a sender.
const WINDOW_BYTES: usize = 256 << 20;

/// Starts the publishers of each sender, one for each receiver.
pub(super) async fn publishers(
    senders: &[Client],
    routes: &[ReceiverRoute],
    plan: &PlanArgs,
    ack_latencies: Option<&Arc<AckLatencies>>,
) -> Result<Vec<Vec<Publisher>>, Failure> {
    let window = usize::try_from(plan.window_of_pair()).unwrap_or(usize::MAX);
    let limits = BatchLimits {
        messages: usize::try_from(plan.batch.get()).unwrap_or(usize::MAX),
        ..BatchLimits::default()
    };
    let mut all = Vec::new();
    for sender in senders {
        let mut publishers = Vec::new();
        for route in routes {
            let mut publisher = sender
                .publisher(route.client.id())
                .exchange(route.exchange.clone())
                .routing_key(route.routing_key.clone())
                .batch(limits)
                .window(window, WINDOW_BYTES);
            if let Some(ack_latencies) = ack_latencies {
                let ack_latencies = Arc::clone(ack_latencies);
                let number = ack_latencies.add_publisher();
                publisher = publisher.on_outcome(move |_| ack_latencies.acknowledged(number));
            }
            publishers.push(publisher.start().await?);
        }
        all.push(publishers);
    }
    Ok(all)
}

/// Sends all messages, and waits until they are acknowledged.
pub(super) async fn send(
    publishers: Vec<Vec<Publisher>>,
    plan: &PlanArgs,
    run: RunClock,
    ack_latencies: Option<&Arc<AckLatencies>>,
) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    let mut first_publisher = 0;
    for (sender, publishers) in (0..).zip(publishers) {
        let sending = Sending {
            shares: (0..plan.receivers.get())
                .map(|receiver| plan.share(sender, receiver))
                .collect(),
            interval: plan.interval(),
            payload: Payload::new(&run, plan.size),
            run,
            ack_latencies: ack_latencies
                .map(|ack_latencies| (Arc::clone(ack_latencies), first_publisher)),
            publishers,
        };
        first_publisher += sending.publishers.len();
        tasks.spawn(sending.run());
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| Failure::plain(format!("A sender failed: {error}.")))??;
    }
    Ok(())
}

/// The work of one sender.
struct Sending {
    publishers: Vec<Publisher>,
    /// The number of messages for each receiver.
    shares: Vec<u64>,
    interval: Option<Duration>,
    payload: Payload,
    run: RunClock,
    /// The measurement of acknowledgements, and the first publisher's number there.
    ack_latencies: Option<(Arc<AckLatencies>, usize)>,
}

impl Sending {
    async fn run(mut self) -> Result<(), Failure> {
        let start = self.run.elapsed();
        let mut number = 0;
        let rounds = self.shares.iter().copied().max().unwrap_or_default();
        for round in 0..rounds {
            for (index, (publisher, share)) in self.publishers.iter().zip(&self.shares).enumerate()
            {
                if round >= *share {
                    continue;
                }
                let time = match self.interval {
                    Some(interval) => {
                        let due = start + interval.mul_f64(f64_of(number));
                        let early = due.saturating_sub(self.run.elapsed());
                        if !early.is_zero() {
                            tokio::time::sleep(early).await;
                        }
                        due
                    }
                    None => {
                        // Waiting for room in the window does not count.
                        publisher.ready().await?;
                        self.run.elapsed()
                    }
                };
                if let Some((ack_latencies, first)) = &self.ack_latencies {
                    ack_latencies.sent(first + index, time);
                }
                publisher.submit(self.payload.stamped(time, number)).await?;
                number += 1;
            }
        }
        for publisher in self.publishers {
            acknowledged(publisher).await?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 messages")]
fn f64_of(number: u64) -> f64 {
    number as f64
}

/// Waits until all messages of a publisher are acknowledged.
pub(super) async fn acknowledged(publisher: Publisher) -> Result<(), Failure> {
    let summary = publisher.finish().await;
    match summary.failures.into_iter().next() {
        None => Ok(()),
        Some((_, error)) => Err(error.into()),
    }
}
