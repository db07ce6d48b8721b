//! Sessions between all senders and receivers, made before the clock starts.
//!
//! The first message of a session costs both sides signatures and key exchanges, a thousand times
//! what the next one costs. With many pairs a benchmark would measure little else.

use ciphermq_client::Consumer;
use tokio::task::JoinSet;

use super::payload::{Payload, RunClock};
use super::plan::PlanArgs;
use super::receiving::next;
use super::sending::SenderPublishers;
use crate::exit::Failure;

/// Sends one message from each sender to each receiver, and waits until all of them are opened.
/// Returns the consumers, whose sessions are known from then on.
pub(super) async fn warm_up(
    senders: &[SenderPublishers],
    consumers: Vec<Consumer>,
    plan: &PlanArgs,
    run: RunClock,
) -> Result<Vec<Consumer>, Failure> {
    let mut tasks = JoinSet::new();
    for (number, consumer) in consumers.into_iter().enumerate() {
        let receiving = receive(consumer, plan.senders.get(), run);
        tasks.spawn(async move { receiving.await.map(|consumer| (number, consumer)) });
    }
    let mut payload = Payload::new(&run, plan.size);
    for sender in senders {
        for publisher in &sender.publishers {
            sender.take(publisher).await?;
            publisher.submit(payload.warm_up()).await?;
        }
    }
    for publisher in senders.iter().flat_map(|sender| &sender.publishers) {
        publisher.flush().await?;
    }
    let mut ready = Vec::new();
    while let Some(done) = tasks.join_next().await {
        ready.push(done.map_err(|error| Failure::plain(format!("A receiver failed: {error}.")))??);
    }
    ready.sort_unstable_by_key(|(number, _)| *number);
    Ok(ready.into_iter().map(|(_, consumer)| consumer).collect())
}

/// Receives the first message of each sender.
async fn receive(mut consumer: Consumer, senders: u32, run: RunClock) -> Result<Consumer, Failure> {
    let mut received = 0;
    while received < u64::from(senders) {
        let message = next(&mut consumer, received, senders.into()).await?;
        if run.age(message.payload()).is_some() {
            received += 1;
        }
        message.ack_later()?;
    }
    Ok(consumer)
}
