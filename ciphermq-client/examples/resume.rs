//! Publishes the lines of a file; killed at any moment and started again, it goes on where it was.
//!
//! ```sh
//! cargo run --example resume -- receiver_1 readings.txt
//! ```
//!
//! The checkpoint stands beside the file, as `readings.txt.stream`. A file that was changed meanwhile is refused.

#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::error::Error;
use std::path::{Path, PathBuf};

use ciphermq_client::resume::{ResumableStream, StreamState};
use ciphermq_client::{Client, ClientId};
use sha2::{Digest as _, Sha256};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let setting = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let mut arguments = std::env::args().skip(1);
    let (Some(receiver), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("name the receiver and the file: resume receiver_1 readings.txt".into());
    };
    let receiver = ClientId::new(&receiver)?;
    let certs = PathBuf::from(setting("CIPHERMQ_CERTS", "certs"));
    let own = certs.join(setting("CIPHERMQ_CLIENT", "sender_1"));
    let client = Client::builder(setting("CIPHERMQ_SERVER", "localhost:5672"))
        .ca_file(certs.join("ca.crt"))
        .identity_files(own.join("client.crt"), own.join("client.key"))
        .connect()
        .await?;

    // The same position must always be the same message: so the input is recognised by its hash.
    let text = std::fs::read_to_string(&file)?;
    let fingerprint: String = Sha256::digest(&text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut stream = ResumableStream::open_or_create(Path::new(&format!("{file}.stream")), || {
        Ok::<_, Box<dyn Error>>(StreamState::begin(&client, &receiver, fingerprint.clone())?)
    })?;
    let state = stream.state();
    if state.input != fingerprint {
        return Err(format!("{file} was changed after a part of it was sent").into());
    }
    let done = usize::try_from(state.acknowledged)?;
    println!("{done} lines are acknowledged already");

    let publisher = client
        .publisher(&receiver)
        .resume(&stream)
        .on_outcome(stream.observer())
        .start()
        .await?;
    for line in text.lines().skip(done) {
        let position = publisher.position().await;
        publisher.submit(line).await?;
        stream.sent(position, position + 1);
        if stream.is_due() {
            stream.save()?;
        }
    }
    let summary = publisher.finish().await;
    if summary.unacknowledged == 0 {
        stream.complete()?;
    } else {
        stream.save()?;
    }
    client.close().await;
    println!(
        "{} acknowledged, {} not",
        summary.acknowledged, summary.unacknowledged
    );
    Ok(())
}
