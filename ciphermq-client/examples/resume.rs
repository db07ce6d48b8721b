//! Publishes the lines of a file; killed at any moment and restarted, it resumes where it stopped.
//!
//! ```sh
//! cargo run --example resume -- receiver_1 readings.txt
//! ```
//!
//! The checkpoint is beside the file, as `readings.txt.stream`. Lines that are appended to the file
//! are published by the next run, as a stream of their own. A file with any other change is
//! refused.

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

    // Whole lines only: a line that is still being written is left for the next run.
    let text = std::fs::read_to_string(&file)?;
    let text = text
        .rfind('\n')
        .and_then(|end| text.get(..=end))
        .unwrap_or_default();
    let mut stream = ResumableStream::open_or_create(Path::new(&format!("{file}.stream")), || {
        Ok::<_, Box<dyn Error>>(StreamState::begin(&client, &receiver, fingerprint(text))?)
    })?;
    loop {
        // The input of a stream never changes: the same position must always be the same message.
        let Some(described) = described(text, &stream.state().input) else {
            return Err(format!("{file} was changed after a part of it was sent").into());
        };
        if !stream.state().complete {
            let unacknowledged = publish(&client, &mut stream, described).await?;
            if unacknowledged > 0 {
                return Err(
                    format!("{unacknowledged} lines are not acknowledged: run this again").into(),
                );
            }
        }
        if described.len() == text.len() {
            break;
        }
        // Appended lines get ids of their own.
        let place = u64::try_from(described.len())?;
        let next = stream.state().following(fingerprint(text), place)?;
        stream.begin_next(next)?;
    }
    client.close().await;
    let state = stream.state();
    println!(
        "{} lines are acknowledged",
        state.earlier + state.acknowledged
    );
    Ok(())
}

/// Publishes the part of `text` that is not known to be acknowledged; returns the number of lines
/// that the server has not acknowledged.
async fn publish(
    client: &Client,
    stream: &mut ResumableStream,
    text: &str,
) -> Result<u64, Box<dyn Error>> {
    let publisher = client
        .publisher(&stream.state().receiver)
        .resume(stream)
        .on_outcome(stream.observer())
        .start()
        .await?;
    let mut place = usize::try_from(stream.state().place)?;
    for line in text.get(place..).unwrap_or_default().split_inclusive('\n') {
        let position = publisher.position().await;
        publisher
            .submit(line.strip_suffix('\n').unwrap_or(line))
            .await?;
        place += line.len();
        stream.sent(position, u64::try_from(place)?);
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
    Ok(summary.unacknowledged)
}

/// Returns the fingerprint that identifies a text: `<bytes> <SHA-256>`.
fn fingerprint(text: &str) -> String {
    format!("{} {}", text.len(), hex::encode(Sha256::digest(text)))
}

/// Returns the beginning of `text` that has this fingerprint.
fn described<'a>(text: &'a str, input: &str) -> Option<&'a str> {
    let bytes = input.split(' ').next()?.parse().ok()?;
    text.get(..bytes)
        .filter(|beginning| fingerprint(beginning) == input)
}
