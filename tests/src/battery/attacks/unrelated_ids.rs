//! Batches of messages with unrelated ids, which share no row, to a route of many queues.

use std::fmt::Write as _;

use rand::RngExt as _;

use crate::EnvelopeText;
use crate::battery::target::Target;

const ROUTE: &str = "battery battery_unrelated";

pub(super) async fn run(target: &'static Target) {
    let count = target.args.extent.of(2000, 200);
    target.bind_queues(count, ROUTE).await;
    let batch = move |_| {
        let mut line = format!("publish_batch {ROUTE} ");
        for index in 0..count {
            let id: u128 = rand::rng().random();
            let separator = if index == 0 { '[' } else { ',' };
            let envelope = EnvelopeText::older(&format!("{id:032x}"), "nobody");
            // Writing to a string cannot fail.
            let _ = write!(line, "{separator}{envelope}");
        }
        line + "]\n"
    };
    target.ask_endlessly(1, batch).await;
}
