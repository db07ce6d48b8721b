//! Queries of rejected messages, on many connections.

use super::own_rejections;
use crate::battery::target::Target;

pub(super) async fn run(target: &'static Target) {
    own_rejections::reject(target, target.args.extent.of(10_000, 500)).await;
    let connections = target.args.extent.of(300, 30);
    target
        .ask_endlessly(connections, |_| "list_rejected\n".to_owned())
        .await;
}
