//! Receives messages, opens them and prints them, until it is interrupted.
//!
//! ```sh
//! cargo run --example consume -- receiver_1
//! ```
//!
//! Reads the certificates and the private key from `certs/`, where `ciphermq-cli certs` and
//! `ciphermq-cli keygen` write them; `CIPHERMQ_SERVER` and `CIPHERMQ_CERTS` override the defaults.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to people"
)]

use std::error::Error;
use std::path::PathBuf;

use ciphermq_client::keys::read_private;
use ciphermq_client::text::Escaped;
use ciphermq_client::{
    Client, ClientId, ConsumeError, DEFAULT_EXCHANGE, Keyring, default_queue, default_routing_key,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let setting = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let receiver = ClientId::new(
        &std::env::args()
            .nth(1)
            .ok_or("name the receiver: consume receiver_1")?,
    )?;
    let certs = PathBuf::from(setting("CIPHERMQ_CERTS", "certs"));
    let own = certs.join(receiver.as_str());

    let client = Client::builder(setting("CIPHERMQ_SERVER", "localhost:5672"))
        .ca_file(certs.join("ca.crt"))
        .identity_files(own.join("client.crt"), own.join("client.key"))
        .connect()
        .await?;
    let mut consumer = client
        .consumer(&default_queue(&receiver)?)
        .keyring(Keyring::new(read_private(
            &certs.join("receiver_private.key"),
        )?))
        .register_key(true)
        .bind(DEFAULT_EXCHANGE.into(), default_routing_key(&receiver)?)
        .start()
        .await?;
    loop {
        let next = tokio::select! {
            next = consumer.next() => next,
            _ = tokio::signal::ctrl_c() => None,
        };
        match next {
            Some(Ok(message)) => {
                println!(
                    "{}: {}",
                    message.message_id(),
                    // A sender must not control the terminal.
                    Escaped(String::from_utf8_lossy(message.payload()))
                );
                // An acknowledged message counts as processed and is never delivered again.
                message.ack_later()?;
            }
            Some(Err(ConsumeError::Unopenable(unopenable))) => {
                eprintln!("{}", Escaped(&unopenable));
                unopenable.reject(None).await?;
            }
            Some(Err(error)) => return Err(error.into()),
            None => break,
        }
    }
    let acks = consumer.close().await;
    client.close().await;
    println!(
        "{} acked, {} not confirmed",
        acks.confirmed, acks.unconfirmed
    );
    Ok(())
}
