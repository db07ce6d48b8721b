//! `verify-key`: verifies a receiver's key, and explains the result.

use ciphermq_client::{ClientId, keys};

use super::get_key::no_key;
use crate::connection::{ConnectionArgs, Identity};
use crate::console::Console;
use crate::console::table::Table;
use crate::exit::{Exit, Failure};

/// Verify a client's public key as `send` does, and explain the result
///
/// Exit code 0 if `send` would use the key, 1 if not, 4 if none is registered. The key is not
/// pinned.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The client whose key is verified
    client: ClientId,
    #[command(flatten)]
    connection: ConnectionArgs,
}

pub(crate) async fn run(args: Args, console: Console) -> Result<Exit, Failure> {
    let client = args.connection.connect(Identity::Sender).await?;
    let verified = client.verified_keys(&args.client).await?;
    let is_bare = verified.is_none() && client.public_key(&args.client).await?.is_some();
    let pinned = client
        .check_pin(
            &args.client,
            verified
                .as_ref()
                .and_then(|verified| verified.as_ref().ok()),
        )
        .await;
    let lists = client.lists_in_force();
    client.close().await;
    let name = &args.client;
    let verified = match verified {
        None if is_bare => {
            return Err(Failure::new(
                format!(
                    "The key of {name} is not signed: whoever runs the server could have \
                     substituted their own."
                ),
                "Start the receiver with a version that signs its key. `send \
                 --allow-unsigned-keys` uses such a key.",
            ));
        }
        None => return Err(no_key(name)),
        Some(Err(error)) => {
            return Err(Failure::new(
                format!("The key of {name} is not to be trusted: {error}."),
                keys::distrust_advice(name, &error),
            ));
        }
        Some(Ok(verified)) => verified,
    };
    let announced = &verified.announcement;
    let certificate = &verified.certificate;
    let mut table = Table::new(14);
    table.row(
        "certificate",
        format_args!(
            "{} of {}, {}, valid until {}",
            certificate.fingerprint(),
            certificate.client_id(),
            certificate.algorithm(),
            certificate.not_after()
        ),
    );
    table.row("issued by", "the certificate authority of --ca");
    table.row("signature", "right");
    table.row("epoch", announced.epoch);
    table.row(
        "valid",
        format_args!(
            "from {} until {}",
            announced.not_before, announced.not_after
        ),
    );
    for list in &lists {
        table.row("not revoked", super::status::list_text(list));
    }
    if lists.is_empty() {
        table.row("not revoked", "unknown: there is no revocation list");
    } else {
        for issuer in certificate.issuers() {
            if !lists.iter().any(|list| list.signer() == issuer.signer()) {
                let name = issuer.subject();
                let unknown = format_args!("unknown: there is no revocation list of {name}");
                table.row("not revoked", unknown);
            }
        }
    }
    for key in &announced.keys {
        table.row("key", format_args!("{} {}", key.key_id(), key.suite()));
    }
    table.print()?;
    if let Err(error) = pinned {
        return Err(Failure::new(
            format!("The key of {name} is signed by {name}, but: {error}."),
            error.advice(name),
        ));
    }
    console.info(format_args!("The key of {name} is verified"));
    Ok(Exit::Done)
}
