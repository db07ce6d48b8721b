//! A receiver's key pairs: X25519, which every receiver has, and X-Wing, on request.

use std::path::PathBuf;

use ciphermq_crypto::key_file::{self, KeyFileError, KeyNames, Kind, PRIVATE_KEY_FILE};
use ciphermq_crypto::text::Escaped;
use ciphermq_crypto::{KeyId, PrivateKey, XWingPrivateKey};
use ciphermq_files::Existing;

use crate::error::{Error, refuse_key};
use crate::folders::NewFolders;
use crate::report::Report;

/// The arguments of `keygen` without a subcommand.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct KeysArgs {
    /// The folder for receiver_private.key and receiver_public.key
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    pub out: PathBuf,
    /// Replace an existing key pair; messages that were sealed for it can then no longer be opened
    /// (`rotate` keeps it)
    #[arg(long)]
    pub force: bool,
    /// Also create an X-Wing key pair (X25519 and ML-KEM-768): messages that are recorded today
    /// then stay secret from future quantum computers. Added to an existing X25519 key pair
    #[arg(long)]
    pub post_quantum: bool,
}

/// Creates a key pair, and with `post_quantum` a second one.
///
/// # Errors
///
/// [`Error`]; then nothing was written.
pub fn run(args: &KeysArgs) -> Result<Report, Error> {
    refuse_key(&args.out)?;
    let mut folders = NewFolders::default();
    folders.make(&args.out)?;
    let names = KeyNames::of(&args.out.join(PRIVATE_KEY_FILE))?;
    let existing = if args.force {
        Existing::Replace
    } else {
        Existing::Keep
    };
    let completed = if args.force {
        Vec::new()
    } else {
        complete(args, &names)?
    };
    let makes_x_wing = args.post_quantum && !completed.contains(&names.x_wing_public());
    let x_wing = makes_x_wing.then(XWingPrivateKey::generate).transpose()?;
    let mut report = Report::default();
    let key = match existing_key(args, &names, !completed.is_empty())? {
        Some(key) => {
            report.kept = [names.private(), names.public()]
                .into_iter()
                .filter(|path| path.exists() && !completed.contains(path))
                .collect();
            report.written = completed;
            key_file::write_pairs(&names, None, x_wing.as_ref(), existing)?;
            key
        }
        None => {
            let key = PrivateKey::generate()?;
            key_file::write_pairs(&names, Some(&key), x_wing.as_ref(), existing)?;
            report.written = vec![names.private(), names.public()];
            key
        }
    };
    folders.keep();
    let public = key.public_key();
    report.next = vec![format!(
        "The public key is {public}, its key id {}.",
        public.key_id()
    )];
    let (mut secret, mut it) = (Escaped(names.private().display()).to_string(), "it");
    if let Some(x_wing) = &x_wing {
        report
            .written
            .extend([names.x_wing_private(), names.x_wing_public()]);
        report
            .next
            .push(created_message(Kind::XWing, x_wing.public_key().key_id()));
        secret = format!("{secret} and {}", Escaped(names.x_wing_private().display()));
        it = "them";
    }
    report.next.push(format!(
        "Keep {secret} secret, and back {it} up: without {it}, no message can be opened. The \
         receiver itself registers the public keys."
    ));
    Ok(report)
}

/// Writes the public keys that an interrupted run has omitted.
fn complete(args: &KeysArgs, names: &KeyNames) -> Result<Vec<PathBuf>, KeyFileError> {
    let mut written = Vec::new();
    written.extend(key_file::complete_pair(names, Kind::X25519)?);
    if args.post_quantum {
        written.extend(key_file::complete_pair(names, Kind::XWing)?);
    }
    Ok(written)
}

/// Returns the existing X25519 key, if only an X-Wing key or its own public key is to be added.
fn existing_key(
    args: &KeysArgs,
    names: &KeyNames,
    was_completed: bool,
) -> Result<Option<PrivateKey>, KeyFileError> {
    if args.force || !(args.post_quantum || was_completed) {
        return Ok(None);
    }
    match key_file::read_private(&names.private()) {
        Ok(key) => Ok(Some(key)),
        Err(KeyFileError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn created_message(kind: Kind, id: KeyId) -> String {
    format!("The {kind} key id is {id}. Senders that support this suite use that key.")
}
