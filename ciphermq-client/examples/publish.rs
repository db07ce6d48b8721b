//! Publishes lines from standard input, end-to-end encrypted.
//!
//! ```sh
//! printf 'one\ntwo\n' | cargo run --example publish -- receiver_1
//! ```
//!
//! Reads the certificates of the client `sender_1` from `certs/`, where `ciphermq-cli certs` writes
//! them; `CIPHERMQ_SERVER`, `CIPHERMQ_CERTS` and `CIPHERMQ_CLIENT` override the defaults.

#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::error::Error;
use std::io::BufRead as _;
use std::path::PathBuf;

use ciphermq_client::{Client, ClientId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let setting = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let receiver = ClientId::new(
        &std::env::args()
            .nth(1)
            .ok_or("name the receiver: publish receiver_1")?,
    )?;
    let certs = PathBuf::from(setting("CIPHERMQ_CERTS", "certs"));
    let own = certs.join(setting("CIPHERMQ_CLIENT", "sender_1"));

    let client = Client::builder(setting("CIPHERMQ_SERVER", "localhost:5672"))
        .ca_file(certs.join("ca.crt"))
        .identity_files(own.join("client.crt"), own.join("client.key"))
        .connect()
        .await?;
    // The default exchange and routing key are `ciphermq_exchange` and `receiver_1_key`.
    let publisher = client.publisher(&receiver).start().await?;
    for line in std::io::stdin().lock().lines() {
        // Waits while the window is full. Every message has a receipt that may be awaited.
        let receipt = publisher.send(&line?).await?;
        println!("sent {}", receipt.message_id());
    }
    let summary = publisher.finish().await;
    client.close().await;
    println!(
        "{} acknowledged, {} not",
        summary.acknowledged, summary.unacknowledged
    );
    summary
        .failures
        .into_iter()
        .next()
        .map_or(Ok(()), |(id, error)| Err(format!("{id}: {error}").into()))
}
