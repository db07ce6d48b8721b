//! `fetch`: takes one message from a queue, opens and shows it.

use ciphermq_client::{OpenPolicy, Opened, Opener, QueueName, Timestamp};

use crate::connection::ReceiverArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::Received;
use crate::output::pipe::WriteOutcome;
use crate::output::sink::{SinkError, Stream};
use crate::output::stdout;

/// Take one message from a queue, and show it
///
/// The message is printed as `receive` would write it. Without --ack it stays in the queue. If the
/// queue is empty, the exit code is 4.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The queue [default: {client id}_queue]
    #[arg(long)]
    queue: Option<QueueName>,
    /// Acknowledge the message once it is printed: it leaves the queue
    #[arg(long)]
    ack: bool,
    /// Also open messages without proof of their sender, such as those of older clients
    #[arg(long)]
    allow_unverified_senders: bool,
    #[command(flatten)]
    receiver: ReceiverArgs,
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    stdout::check()?;
    let (client, keyring) = args.receiver.connect().await?;
    let queue = match args.queue {
        Some(queue) => queue,
        None => ciphermq_client::default_queue(client.id()).map_err(|error| {
            Failure::new(
                format!("No queue can be named after {}: {error}.", client.id()),
                "Name it with --queue.",
            )
        })?,
    };
    let Some(delivery) = client.fetch(&queue).await? else {
        console.info(format_args!("No messages in {queue} for {}", client.id()));
        return Ok(Exit::Less);
    };
    let policy = OpenPolicy {
        unverified_senders: args.allow_unverified_senders,
        ..OpenPolicy::default()
    };
    let mut opener = Opener::new(client.id().clone(), keyring, client.authority(), policy);
    let unopenable = |error: &dyn std::fmt::Display| {
        Failure::new(
            format!("Message {} cannot be opened: {error}.", delivery.message_id),
            "It stays in the queue. `ciphermq-cli receive` sets such messages aside.",
        )
    };
    let envelope = delivery
        .parse_envelope()
        .map_err(|error| unopenable(&error))?;
    if envelope.message_id != delivery.message_id {
        return Err(unopenable(
            &"the envelope was delivered under another message's id",
        ));
    }
    let opened = client
        .open(&mut opener, &envelope)
        .await?
        .map_err(|error| unopenable(&error))?;
    let line = line(&opened);
    let printed = tokio::task::spawn_blocking(move || {
        Stream::stdout().map(|mut out| out.write(&line, &mut || {}))
    });
    let printed = printed
        .await
        .map_err(|error| Failure::plain(format!("The message was not printed: {error}.")))?;
    match printed? {
        Ok(WriteOutcome::Read) => {}
        // A message that nobody has read stays in the queue.
        Ok(WriteOutcome::Stopped) | Err(SinkError::ReaderGone) => return Ok(Exit::Done),
        Err(SinkError::Failed(failure)) => return Err(failure),
    }
    if args.ack {
        for (_, result) in client.ack(std::slice::from_ref(&opened.message_id)).await {
            result?;
        }
        console.info(format_args!(
            "Server confirmed ACK for message {}",
            opened.message_id
        ));
    }
    client.close().await;
    Ok(Exit::Done)
}

fn line(opened: &Opened) -> Vec<u8> {
    let mut line = Vec::new();
    Received {
        message_id: opened.message_id.as_str(),
        sender: opened.sender.as_ref().map(AsRef::as_ref),
        is_sender_verified: opened.is_sender_verified,
        payload: &opened.payload,
        sent_time: opened.sent_time,
        received_time: Timestamp::now(),
    }
    .write(&mut line);
    line
}
