//! Handshakes that fail, one after the other, from one address and without a certificate.

use std::time::Duration;

use crate::RawClient;
use crate::battery::target::{Target, everywhere};
use crate::raw::Tls;

pub(super) async fn run(target: &'static Target) {
    let tls: &'static Tls = Box::leak(Box::new(Tls::trusting(&target.args.ca)));
    everywhere(4, |_| async move {
        loop {
            // The server refuses after the client's part of the handshake.
            if let Ok(mut client) = RawClient::handshake(target.args.address, tls).await {
                let _ = client.read_line(Duration::from_secs(5)).await;
            }
            target.under_way();
        }
    })
    .await;
}
