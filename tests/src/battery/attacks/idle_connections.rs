//! TCP connections that send nothing, from one address and without a certificate.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::battery::round::SMALL_LIMIT;
use crate::battery::target::{Target, everywhere};

pub(super) async fn run(target: &'static Target) {
    everywhere(SMALL_LIMIT + 100, |number| async move {
        loop {
            if let Ok(mut connection) = TcpStream::connect(target.args.address).await {
                if number + 1 == SMALL_LIMIT {
                    target.under_way();
                }
                // Until the server closes it.
                let _ = connection.read(&mut [0]).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
