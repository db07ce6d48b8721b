//! Generation C (v1.5.0), Rust: writes up to a thousand publishes before it reads the first reply.

use std::collections::HashSet;
use std::time::Duration;

use ciphermq_tests::RawClient;

use crate::deployment::{Deployment, Post, short_id};
use crate::generation_b::Receiver;

/// How many messages it sends at once.
pub(crate) const PIPELINE: usize = 1000;
/// Its wait for replies ends with a silence of this length.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Its reads do: a line that comes in two pieces with a longer pause between is lost.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) async fn exchange(deployment: &Deployment) {
    // As generation B's, by the reads of this one's.
    let mut receiver = Receiver::subscribe(deployment).await;
    let post = Post::of("C");
    let account = post.clone();
    let receive = async {
        while receiver.received.len() < PIPELINE {
            receiver.next(&account).await;
        }
        receiver.finish().await;
        assert_eq!(receiver.duplicates, 0);
    };
    tokio::join!(send(deployment, post), receive);
}

/// Sends so many messages as it does at once.
pub(crate) async fn send(deployment: &Deployment, mut post: Post) {
    let mut waiting: Vec<(String, String)> = (0..PIPELINE)
        .map(|_| {
            let id = short_id();
            let line = post.publish(&id);
            (id, line)
        })
        .collect();
    // The first connection is lost in the middle of the replies: all that was not acked is sent
    // again.
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

/// Writes all lines, then reads replies until each message has one, `most` have come, or it is
/// silent for too long.
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
            // Any line, an unexpected one too, keeps it waiting.
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
                    "a line came in two pieces, too far apart"
                );
            }
        }
    }
    waiting.retain(|(id, _)| !acked.contains(id));
}
