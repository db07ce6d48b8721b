//! `resend`: requests the redelivery of an unacknowledged message.

use ciphermq_client::{MessageId, ResendOutcome};

use crate::connection::{ConnectionArgs, Identity};
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// Request redelivery of a message that this client has sent
///
/// Only messages that their receivers have not acknowledged can be delivered again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The id of the message
    #[arg(value_name = "MESSAGE_ID")]
    message_id: MessageId,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let client = args.connection.connect(Identity::Sender).await?;
    let outcome = client.resend(&args.message_id).await?;
    let client_id = client.id().clone();
    client.close().await;
    let id = &args.message_id;
    match outcome {
        ResendOutcome::Requested => {
            console.info(format_args!("Redelivery of message {id} requested"));
            Ok(Exit::Done)
        }
        ResendOutcome::Unauthorized => Err(Failure::new(
            format!("Message {id} was not sent by {client_id}."),
            "Only its sender may request redelivery: use the sender's --cert and --key.",
        )),
        _ => Err(Failure::new(
            format!("No message {id} is waiting to be delivered."),
            "It was acknowledged or rejected by its receiver, or the server has never received \
             it: check the id.",
        )),
    }
}
