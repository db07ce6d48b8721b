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
use super::sender_window::SenderWindow;
use crate::exit::Failure;

/// The window in bytes: only the window in messages limits a sender.
const WINDOW_BYTES: usize = usize::MAX;

/// A sender's publishers, one for each receiver, and the window that they share.
pub(super) struct SenderPublishers {
    pub(super) publishers: Vec<Publisher>,
    window: SenderWindow,
}

impl SenderPublishers {
    /// Waits until the window has room for a message to this receiver, and takes it: the message
    /// must be submitted, or the room is lost.
    pub(super) async fn take(&self, publisher: &Publisher) -> Result<(), Failure> {
        publisher.ready().await?;
        self.window.take().await
    }
}

/// Starts the publishers of each sender.
pub(super) async fn publishers(
    senders: &[Client],
    routes: &[ReceiverRoute],
    plan: &PlanArgs,
    ack_latencies: Option<&Arc<AckLatencies>>,
) -> Result<Vec<SenderPublishers>, Failure> {
    let part = usize::try_from(plan.window_of_pair()).unwrap_or(usize::MAX);
    let limits = BatchLimits {
        messages: usize::try_from(plan.batch.get()).unwrap_or(usize::MAX),
        ..BatchLimits::default()
    };
    let mut all = Vec::new();
    for sender in senders {
        let window = SenderWindow::new(plan);
        let mut publishers = Vec::new();
        for route in routes {
            let mut publisher = sender
                .publisher(route.client.id())
                .exchange(route.exchange.clone())
                .routing_key(route.routing_key.clone())
                .batch(limits)
                .window(part, WINDOW_BYTES);
            let ack_latencies = ack_latencies
                .map(|ack_latencies| (Arc::clone(ack_latencies), ack_latencies.add_publisher()));
            if ack_latencies.is_some() || window.is_counted() {
                let window = window.clone();
                publisher = publisher.on_outcome(move |_| {
                    window.release();
                    if let Some((ack_latencies, number)) = &ack_latencies {
                        ack_latencies.acknowledged(*number);
                    }
                });
            }
            publishers.push(publisher.start().await?);
        }
        all.push(SenderPublishers { publishers, window });
    }
    Ok(all)
}

/// Sends all messages, and waits until they are acknowledged.
pub(super) async fn send(
    senders: Vec<SenderPublishers>,
    plan: &PlanArgs,
    run: RunClock,
    ack_latencies: Option<&Arc<AckLatencies>>,
) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    let mut first_publisher = 0;
    for (number, sender) in (0..).zip(senders) {
        let sending = Sending {
            shares: (0..plan.receivers.get())
                .map(|receiver| plan.share(number, receiver))
                .collect(),
            interval: plan.interval(),
            payload: Payload::new(&run, plan.size),
            run,
            ack_latencies: ack_latencies
                .map(|ack_latencies| (Arc::clone(ack_latencies), first_publisher)),
            sender,
        };
        first_publisher += sending.sender.publishers.len();
        tasks.spawn(sending.run());
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| Failure::plain(format!("A sender failed: {error}.")))??;
    }
    Ok(())
}

/// The work of one sender.
struct Sending {
    sender: SenderPublishers,
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
            let publishers = self.sender.publishers.iter().zip(&self.shares);
            for (index, (publisher, share)) in publishers.enumerate() {
                if round >= *share {
                    continue;
                }
                let due = self
                    .interval
                    .map(|interval| start + interval.mul_f64(f64_of(number)));
                if let Some(due) = due {
                    let early = due.saturating_sub(self.run.elapsed());
                    if !early.is_zero() {
                        tokio::time::sleep(early).await;
                    }
                }
                self.sender.take(publisher).await?;
                // Without a rate, waiting for room in the window does not count.
                let time = due.unwrap_or_else(|| self.run.elapsed());
                if let Some((ack_latencies, first)) = &self.ack_latencies {
                    ack_latencies.sent(first + index, time);
                }
                publisher.submit(self.payload.stamped(time, number)).await?;
                number += 1;
            }
        }
        for publisher in self.sender.publishers {
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
