//! `register-key`: signs this client's public keys and registers them with the server.

use ciphermq_client::keys::{EarlierSignedKey, Registration};
use ciphermq_client::{Client, keys};

use crate::connection::ReceiverArgs;
use crate::console::Console;
use crate::exit::{Exit, Failure};

/// Sign this client's public key and register it with the server
///
/// `receive` does the same; this command is for receivers that are to get messages before they
/// first run, and for new keys. The keys are signed with an epoch above all that this client has
/// ever signed, so that senders accept them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Sign with an epoch above this one: for a receiver that has lost its record of what it
    /// signed. The sender's error names the epoch
    #[arg(long, value_name = "EPOCH", value_parser = clap::value_parser!(u64).range(..=keys::HIGHEST_ABOVE))]
    above: Option<u64>,
    #[command(flatten)]
    receiver: ReceiverArgs,
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let (client, keyring) = args.receiver.connect().await?;
    let registration = client
        .announce(&keyring, args.above)
        .await
        .map_err(|error| {
            Failure::new(
                format!("The key was not registered: {error}."),
                error.advice(),
            )
        })?;
    for key in keyring.recipient_keys() {
        console.info(format_args!(
            "Public key of {} registered, key id {}, suite {}",
            client.id(),
            key.key_id(),
            key.suite()
        ));
    }
    super::events::warn_unrecorded(&registration, &console);
    if let Some(epoch) = registration.epoch {
        console.info(format_args!("Signed with the epoch {epoch}"));
    } else {
        console.warn(unsigned(&client, &registration));
    }
    client.close().await;
    Ok(Exit::Done)
}

/// The warning after a bare key was registered: which key senders use, and why it is not signed.
pub(super) fn unsigned(client: &Client, registration: &Registration) -> String {
    let senders = match &registration.earlier {
        None => "senders refuse it, unless they use --allow-unsigned-keys --suite X25519-AES256GCM"
            .to_owned(),
        Some(EarlierSignedKey::InUse { until }) => {
            format!("senders continue to use the signed key that the server has, until {until}")
        }
        Some(EarlierSignedKey::Refused(error)) => format!(
            "senders refuse it, because the server has a signed key, which they do not trust \
             either: {error}"
        ),
    };
    let why = match client.cannot_sign() {
        Some(error) => format!("{error}. {}", error.advice()),
        None => "the server's version does not support signed keys.".to_owned(),
    };
    format!(
        "The public key of {} is registered without a signature: {senders}. It is not signed \
         because {why}",
        client.id()
    )
}
