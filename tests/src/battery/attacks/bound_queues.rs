//! Queues of the attacker's, bound to the victim's route: each message of the victim goes to all.

use crate::battery::target::{Target, VICTIM_ROUTE};

pub(super) async fn run(target: &'static Target) {
    let count = target.args.extent.of(2000, 200);
    target.bind_queues(count, VICTIM_ROUTE).await;
    target.under_way();
    std::future::pending::<()>().await;
}
