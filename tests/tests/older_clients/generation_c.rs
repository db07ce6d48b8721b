//! Generation C (v1.5.0), Rust: writes up to a thousand publishes before it reads the first reply.

use std::collections::HashSet;
use std::time::Duration;

use ciphermq_tests::RawClient;

use crate::deployment::{Deployment, Envelopes, short_id};
use crate::generation_b::Receiver;

/// The number of messages that it sends at once.
pub(crate) const PIPELINE: usize = 1000;
/// The silence after which it stops waiting for replies.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit of each read. A line is lost if it arrives in two pieces with a longer pause
/// between them.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) async fn exchange(deployment: &Deployment) {
    // It receives as generation B.
    let mut receiver = Receiver::subscribe(deployment).await;
    let envelopes = Envelopes::of("C");
    let sent = envelopes.clone();
    let receive = async {
        while receiver.received.count() < PIPELINE {
            receiver.next(&sent).await;
        }
        receiver.finish().await;
        assert_eq!(receiver.received.duplicates, 0);
    };
    tokio::join!(send(deployment, envelopes), receive);
}

/// Sends [`PIPELINE`] messages.
pub(crate) async fn send(deployment: &Deployment, mut envelopes: Envelopes) {
    let mut waiting: Vec<(String, String)> = (0..PIPELINE)
        .map(|_| {
            let id = short_id();
            let line = envelopes.publish(&id);
            (id, line)
        })
        .collect();
    // The first connection is lost in the middle of the replies: what was not acked is sent again.
    let mut sender = deployment.sender().await;
    round(&mut sender, &mut waiting, PIPELINE / 2).await;
    assert_eq!(waiting.len(), PIPELINE / 2);
    drop(sender);
    let mut sender = deployment.sender().await;
    round(&mut sender, &mut waiting, usize::MAX).await;
    assert!(
        waiting.is_empty(),
        "{} messages were given up",
        waiting.len()
    );
}

/// Writes all lines, then reads replies until each message has one, `most` have arrived, or none
/// arrives for too long.
async fn round(sender: &mut RawClient, waiting: &mut Vec<(String, String)>, most: usize) {
    let lines: String = waiting
        .iter()
        .flat_map(|(_, line)| [line.as_str(), "\n"])
        .collect();
    sender.send_bytes(lines).await;
    let mut acked = HashSet::new();
    let mut silence = Duration::ZERO;
    while acked.len() < waiting.len().min(most) && silence < TIMEOUT {
        match sender.read_line(READ_TIMEOUT).await {
            // Any line, even an unexpected one, keeps it waiting.
            Ok(Some(line)) => {
                silence = Duration::ZERO;
                acked.extend(line.strip_prefix("ACK ").map(str::to_owned));
            }
            Ok(None) => break,
            Err(_) => {
                silence += READ_TIMEOUT;
                assert_eq!(
                    sender.discard_partial(),
                    0,
                    "a line arrived in two pieces, too far apart"
                );
            }
        }
    }
    waiting.retain(|(id, _)| !acked.contains(id));
}
