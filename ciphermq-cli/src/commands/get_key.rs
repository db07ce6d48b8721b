//! `get-key`: shows a client's public key, as the server has it.

use std::path::PathBuf;

use ciphermq_client::{ClientId, PublicKey, VerifiedKeys, keys};

use crate::connection::{ConnectionArgs, Identity, PrivateKeyArgs};
use crate::console::Console;
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// Show a client's public key, as the server has it
///
/// The bare X25519 key (base64) goes to standard output; its key id and fingerprint, and what its
/// owner has signed, go to standard error. Exit code 4 if none is registered.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The client whose key is shown
    client: ClientId,
    /// Also save the key in {CLIENT}_public.key beside the certificates
    #[arg(long)]
    save: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let settings = args
        .connection
        .resolve(Identity::Sender, PrivateKeyArgs::default())?;
    let client = settings.connect().await?;
    let key = client.public_key(&args.client).await?;
    let verified = client.verified_keys(&args.client).await?;
    client.close().await;
    let Some(key) = key else {
        return Err(match verified {
            Some(Ok(verified)) => no_bare_key(&args.client, &verified),
            _ => no_key(&args.client),
        });
    };
    stdout::print(key.to_base64() + "\n")?;
    console.info(format_args!(
        "Public key of {}, key id {}, SHA-256 fingerprint {}",
        args.client,
        key.key_id(),
        key.fingerprint()
    ));
    match verified {
        None => {
            console.warn(
                "The key is not signed: whoever runs the server could have substituted their own",
            );
        }
        Some(Err(error)) => {
            console.warn(format_args!("Its signature is not to be trusted: {error}"));
        }
        Some(Ok(verified)) => {
            let announced = verified.announcement;
            console.info(format_args!(
                "Signed by {}, epoch {}, valid from {} until {}",
                verified.certificate.client_id(),
                announced.epoch,
                announced.not_before,
                announced.not_after
            ));
            for key in &announced.keys {
                console.info(format_args!(
                    "Accepts {}, key id {}",
                    key.suite(),
                    key.key_id()
                ));
            }
            if announced
                .keys
                .iter()
                .all(|signed| signed.key_id() != key.key_id())
            {
                console
                    .warn("The bare key is none of the signed ones: senders use the signed ones");
            }
        }
    }
    if args.save {
        let path = save(settings.certificates_folder().to_owned(), args.client, key).await?;
        console.info(format_args!("Saved in {}", path.display()));
    }
    Ok(Exit::Done)
}

/// Writes the key's record atomically, as `send` does.
async fn save(folder: PathBuf, client: ClientId, key: PublicKey) -> Result<PathBuf, Failure> {
    let written =
        tokio::task::spawn_blocking(move || keys::write_record(&folder, &client, &key.into()))
            .await;
    let written =
        written.map_err(|error| Failure::plain(format!("The key was not saved: {error}.")))?;
    written.map_err(|error| {
        let advice = match error {
            keys::RecordError::File(_) => {
                "Check that you may write to the folder, or redirect standard output into a file."
            }
            _ => "Redirect standard output into a file.",
        };
        Failure::new(format!("The key was not saved: {error}."), advice)
    })
}

/// The error for a client that has announced only keys of other suites.
fn no_bare_key(client: &ClientId, verified: &VerifiedKeys) -> Failure {
    let keys = verified.announcement.keys.iter();
    let suites: Vec<&str> = keys.map(|key| key.suite().as_str()).collect();
    Failure::new(
        format!(
            "{client} has no bare X25519 key: its signed key announces only {}.",
            suites.join(", ")
        ),
        format!("`send` uses the signed key; `ciphermq-cli verify-key {client}` shows it."),
    )
    .with_exit(Exit::Less)
}

/// The error for a client without any key.
pub(super) fn no_key(client: &ClientId) -> Failure {
    Failure::new(
        format!("{client} has no public key registered."),
        format!("Run `ciphermq-cli receive` or `ciphermq-cli register-key` as {client}."),
    )
    .with_exit(Exit::Less)
}
