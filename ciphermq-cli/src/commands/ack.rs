//! `ack`: acknowledges messages by their ids.

use ciphermq_client::MessageId;

use crate::connection::{ConnectionArgs, Identity};
use crate::console::{Console, Count};
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// Acknowledge received messages by their ids
///
/// The messages must be for this client; they leave the queues permanently. The ids of those that
/// were not acknowledged are listed on standard output, one per line.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The ids of the messages
    #[arg(required = true, value_name = "MESSAGE_ID")]
    message_ids: Vec<MessageId>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let client = args.connection.connect(Identity::Receiver).await?;
    let results = client.ack(&args.message_ids).await;
    client.close().await;
    let (mut acked, mut failed) = (0u64, Vec::new());
    for (message_id, result) in results {
        match result {
            Ok(()) => {
                acked += 1;
                console.message(format_args!(
                    "Server confirmed ACK for message {message_id}"
                ));
            }
            Err(error) => {
                console.message(format_args!("Message {message_id}: {error}"));
                stdout::print(format!("{message_id}\n"))?;
                failed.push(error);
            }
        }
    }
    console.info(format_args!("{acked} acknowledged, {} not", failed.len()));
    match failed.first() {
        None => Ok(Exit::Done),
        Some(first) => {
            let messages = Count::messages(failed.len() as u64);
            let what = format!(
                "{messages} {} not acknowledged. The first: {first}",
                messages.verb("was", "were")
            );
            let advice = first
                .advice()
                .unwrap_or("Check the ids, and that the messages are for this client.");
            Err(Failure::new(what, advice).with_exit(Exit::Unacknowledged))
        }
    }
}
