//! Senders.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_client::publisher::BatchLimits;
use ciphermq_client::{Client, Publisher};
use tokio::task::JoinSet;

use super::acknowledgements::Acknowledgements;
use super::lane::Lane;
use super::payload::{Payload, Run};
use super::plan::PlanArgs;
use crate::exit::Failure;

/// Bytes that may be under way, whatever the window in messages: enough never to be what holds a
/// sender up.
const WINDOW_BYTES: usize = 256 << 20;

/// Each sender's publishers, one for each receiver.
pub(super) async fn publishers(
    senders: &[Client],
    lanes: &[Lane],
    plan: &PlanArgs,
    watched: Option<&Arc<Acknowledgements>>,
) -> Result<Vec<Vec<Publisher>>, Failure> {
    let window = usize::try_from(plan.window.get())
        .unwrap_or(usize::MAX)
        .div_ceil(lanes.len().max(1));
    let limits = BatchLimits {
        messages: usize::try_from(plan.batch.get()).unwrap_or(usize::MAX),
        ..BatchLimits::default()
    };
    let mut all = Vec::new();
    for sender in senders {
        let mut publishers = Vec::new();
        for lane in lanes {
            let mut publisher = sender
                .publisher(lane.client.id())
                .exchange(lane.exchange.clone())
                .routing_key(lane.routing_key.clone())
                .batch(limits)
                .window(window, WINDOW_BYTES);
            if let Some(watched) = watched {
                let (watched, line) = (Arc::clone(watched), watched.line());
                publisher = publisher.on_outcome(move |_| watched.came(line));
            }
            publishers.push(publisher.start().await?);
        }
        all.push(publishers);
    }
    Ok(all)
}

/// Sends everything, and waits until it is acknowledged.
pub(super) async fn send(
    publishers: Vec<Vec<Publisher>>,
    plan: &PlanArgs,
    run: Run,
    watched: Option<&Arc<Acknowledgements>>,
) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    let mut first_line = 0;
    for (sender, publishers) in (0..).zip(publishers) {
        let sending = Sending {
            shares: (0..plan.receivers.get())
                .map(|receiver| plan.share(sender, receiver))
                .collect(),
            interval: plan.interval(),
            payload: Payload::new(&run, plan.size),
            run,
            watched: watched.map(|watched| (Arc::clone(watched), first_line)),
            publishers,
        };
        first_line += sending.publishers.len();
        tasks.spawn(sending.run());
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| Failure::plain(format!("A sender failed: {error}.")))??;
    }
    Ok(())
}

/// One sender's work.
struct Sending {
    publishers: Vec<Publisher>,
    /// How many messages each receiver gets.
    shares: Vec<u64>,
    interval: Option<Duration>,
    payload: Payload,
    run: Run,
    /// Where acknowledgements are timed, and the first publisher's line there.
    watched: Option<(Arc<Acknowledgements>, usize)>,
}

impl Sending {
    async fn run(mut self) -> Result<(), Failure> {
        let start = self.run.elapsed();
        let mut number = 0;
        let rounds = self.shares.iter().copied().max().unwrap_or_default();
        for round in 0..rounds {
            for (line, (publisher, share)) in self.publishers.iter().zip(&self.shares).enumerate() {
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
                        // The time begins when it may be sent, not when it waits for the window.
                        publisher.ready().await?;
                        self.run.elapsed()
                    }
                };
                if let Some((watched, first)) = &self.watched {
                    watched.sent(first + line, time);
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

/// Waits until everything is acknowledged.
pub(super) async fn acknowledged(publisher: Publisher) -> Result<(), Failure> {
    let summary = publisher.finish().await;
    match summary.failures.into_iter().next() {
        None => Ok(()),
        Some((_, error)) => Err(error.into()),
    }
}
