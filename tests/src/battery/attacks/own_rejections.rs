//! Messages that the attacker sends to itself and rejects: the server keeps them.

use std::time::Duration;

use rand::RngExt as _;

use crate::EnvelopeText;
use crate::battery::target::Target;

const ROUTE: &str = "battery battery_rejected";
const BATCH: usize = 250;

pub(super) async fn run(target: &'static Target) {
    reject(target, BATCH).await;
    target.under_way();
    loop {
        reject(target, 100 * BATCH).await;
    }
}

/// Rejects this many messages, or fewer if the server refuses.
pub(super) async fn reject(target: &Target, count: usize) {
    target.bind_queues(1, ROUTE).await;
    let mut client = target.connect().await;
    for _ in 0..count.div_ceil(BATCH) {
        let run: u64 = rand::rng().random();
        let ids: Vec<String> = (0..BATCH)
            .map(|number| format!("{run:x}-{number}"))
            .collect();
        let envelopes: Vec<String> = ids
            .iter()
            .map(|id| {
                EnvelopeText::older(id, target.client_id())
                    .set("ciphertext", "A".repeat(1024))
                    .to_string()
            })
            .collect();
        let publish = format!("publish_batch {ROUTE} [{}]\n", envelopes.join(","));
        let rejects: String = ids.iter().map(|id| format!("reject {id} x\n")).collect();
        if !target.ask(&mut client, &(publish + &rejects)).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
            client = target.connect().await;
        }
    }
}
