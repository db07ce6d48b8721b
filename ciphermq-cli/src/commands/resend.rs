//! `resend`: puts an unacknowledged message of this sender's up for delivery again.

use ciphermq_client::{MessageId, ResendOutcome};

use crate::connection::{ConnectionArgs, Identity, PrivateKeyArgs};
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// Ask the server to deliver a message of this sender's again
///
/// Only messages that this client has sent, and that their receivers have not acknowledged.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The message
    #[arg(value_name = "MESSAGE_ID")]
    message_id: MessageId,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let settings = args
        .connection
        .resolve(Identity::Sender, PrivateKeyArgs::default())?;
    let client = settings.connect().await?;
    let outcome = client.resend(&args.message_id).await?;
    let client_id = client.id().clone();
    client.close().await;
    let id = &args.message_id;
    match outcome {
        ResendOutcome::Requested => {
            console.say(format_args!("Resend of message {id} requested"));
            Ok(Exit::Done)
        }
        ResendOutcome::Unauthorized => Err(Failure::new(
            format!("Message {id} is not {client_id}'s to send again."),
            "Only its sender may ask for that: use the sender's --cert and --key.",
        )),
        _ => Err(Failure::new(
            format!("No message {id} is waiting to be delivered."),
            "It was acknowledged or rejected by its receiver, or the server has never seen it: \
             check the id.",
        )),
    }
}
