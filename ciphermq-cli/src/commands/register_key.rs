//! `register-key`: stores this client's public key on the server, so that others can send to it.

use crate::connection::{ConnectionArgs, Identity, PrivateKeyArgs};
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// Sign this client's public key and register it with the server
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
    let signed = client.register_keys(&keyring).await.map_err(|error| {
        Failure::new(
            format!("The key was not registered: {error}."),
            "Check that the server runs, and that the certificate is valid.",
        )
    })?;
    for key in keyring.recipient_keys() {
        console.say(format_args!(
            "Public key of {} registered, key id {}, suite {}",
            client.id(),
            key.key_id(),
            key.suite()
        ));
    }
    if signed.is_none() {
        console.warn("The key is not signed, as this certificate's key cannot sign: senders refuse it unless they are told otherwise");
    }
    client.close().await;
    Ok(Exit::Done)
}
