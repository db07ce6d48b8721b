//! Receives messages with a record that survives crashes: kill it at any moment and restart it.
//!
//! ```sh
//! cargo run --example exactly_once -- receiver_1 data/processed
//! ```
//!
//! The record contains the acknowledged messages. Work that the application did but could not
//! record before it was killed is repeated: here, a printed line. Where that is not acceptable, as
//! in a file of lines, keep the record beside the output: see
//! `ciphermq_client::dedup::Checkpointed`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to people"
)]

use std::error::Error;
use std::path::PathBuf;

use ciphermq_client::dedup::Durable;
use ciphermq_client::keys::read_private;
use ciphermq_client::text::Escaped;
use ciphermq_client::{
    Client, ClientId, ConsumeError, DEFAULT_EXCHANGE, Keyring, default_queue, default_routing_key,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let setting = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let mut arguments = std::env::args().skip(1);
    let (Some(receiver), Some(record)) = (arguments.next(), arguments.next()) else {
        return Err(
            "name the receiver and the record: exactly_once receiver_1 data/processed".into(),
        );
    };
    let receiver = ClientId::new(&receiver)?;
    let certs = PathBuf::from(setting("CIPHERMQ_CERTS", "certs"));
    let own = certs.join(receiver.as_str());

    let record = Durable::open(record.as_ref())?;
    eprintln!("{} messages were processed before", record.messages());
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
        .dedup(record)
        .start()
        .await?;
    loop {
        let next = tokio::select! {
            next = consumer.next() => next,
            _ = tokio::signal::ctrl_c() => None,
        };
        // Messages that are already here are processed as one group, and recorded with one sync.
        let mut group = Vec::new();
        match next {
            Some(Ok(message)) => group.push(message),
            Some(Err(ConsumeError::Unopenable(unopenable))) => {
                unopenable.reject(None).await?;
            }
            Some(Err(error)) => return Err(error.into()),
            None => break,
        }
        while group.len() < 100
            && let Some(Ok(message)) = consumer.try_next()
        {
            group.push(message);
        }
        for message in &group {
            // A sender must not control the terminal.
            println!("{}", Escaped(String::from_utf8_lossy(message.payload())));
        }
        for (message_id, result) in consumer.ack_all(group).await {
            if let Err(error) = result {
                eprintln!("{message_id}: {error}");
            }
        }
    }
    consumer.close().await;
    client.close().await;
    Ok(())
}
