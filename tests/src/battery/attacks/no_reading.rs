//! Requests without end on connections that read no answer.

use std::time::Duration;

use crate::battery::target::{Target, everywhere};

pub(super) async fn run(target: &'static Target) {
    let requests = format!("get_public_key {}\n", "x".repeat(200)).repeat(500);
    let requests: &'static str = requests.leak();
    everywhere(target.args.extent.of(500, 50), |_| async move {
        loop {
            let mut client = target.connect().await;
            target.under_way();
            // It fails when the server has read nothing for a while, or has closed it.
            while client.try_send(requests.as_bytes()).await.is_ok() {}
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
}
