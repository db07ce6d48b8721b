//! A server that is killed while it sets messages aside.

use std::time::Duration;

use ciphermq_tests::{Backend, RawClient};
use tokio::time::sleep;

use super::{batch, owner, rejected, until_rejected};

const MESSAGES: usize = 6000;
const LINE: usize = 500;

pub(super) async fn a_killed_server_finishes_a_deletion(backend: Backend) {
    let mut server = backend.server().await;
    let mut one = owner(&server).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    for line in 0..MESSAGES / LINE {
        let ids = || (line * LINE..(line + 1) * LINE).map(|n| format!("m{n:05}"));
        sender.send_line(&batch(ids())).await;
        for id in ids() {
            sender.expect(&format!("ACK {id}")).await;
        }
    }
    one.ask("delete_queue q", "Queue deleted").await;
    let mut counts = Vec::new();
    for pause in [0, 560, 620, 700] {
        sleep(Duration::from_millis(pause)).await;
        server.kill9().await;
        server.restart().await;
        one = RawClient::connect(&server, "owner").await;
        counts.push(rejected(&mut one).await.len());
        // It is deleted, and a new one of this name has nothing of it.
        one.ask("fetch q", "No messages").await;
        one.declare_and_bind("q", "e", "k").await;
        one.ask("fetch q", "No messages").await;
        one.ask("delete_queue q if-empty", "Queue deleted").await;
    }
    assert!(counts.is_sorted(), "{counts:?}");
    let found = until_rejected(&mut one, MESSAGES).await;
    assert!(
        found.keys().eq(&(0..MESSAGES)
            .map(|n| format!("m{n:05}"))
            .collect::<Vec<_>>())
    );
    // Acks of what is set aside are confirmed, and the traffic of others continues.
    one.ask("ack m00000", "ACK_CONFIRMED m00000").await;
}
