//! Lines that are nearly as long as allowed, and do not end: they hold the memory of all lines.

use std::time::Duration;

use ciphermq_protocol::DEFAULT_MAX_LINE_BYTES;

use crate::battery::target::{Target, everywhere};

/// The time between two bytes, shorter than any limit on silence.
const PAUSE: Duration = Duration::from_secs(8);
/// How long the server may take to read the beginning of a line, or else has no memory for it.
const BEGINNING: Duration = Duration::from_secs(2);

pub(super) async fn run(target: &'static Target) {
    let beginning = "publish battery battery_slow ".to_owned()
        + &"x".repeat(DEFAULT_MAX_LINE_BYTES - (1 << 16));
    let beginning: &'static str = beginning.leak();
    everywhere(17, |_| async move {
        loop {
            let mut client = target.connect().await;
            let sent = client.try_send(beginning.as_bytes());
            let mut sent = tokio::time::timeout(BEGINNING, sent)
                .await
                .unwrap_or(Ok(()));
            target.under_way();
            while sent.is_ok() {
                tokio::time::sleep(PAUSE).await;
                sent = client.try_send(b"x").await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}
