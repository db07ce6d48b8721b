//! `register-key`: stores this client's public key on the server, so that others can send to it.

use crate::connection::{ConnectionArgs, Identity, PrivateKeyArgs};
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// Register this client's public key with the server
///
/// `receive` does the same; this is for receivers that are to get messages before they first run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    private_key: PrivateKeyArgs,
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let settings = args.connection.resolve(Identity::Receiver, args.private_key)?;
    let keyring = settings.keyring()?;
    let client = settings.connect().await?;
    let key = keyring.newest().public_key();
    client.register_public_key(key).await?;
    console.say(format_args!(
        "Public key of {} registered, key id {}",
        client.id(),
        key.key_id()
    ));
    client.close().await;
    Ok(Exit::Done)
}
