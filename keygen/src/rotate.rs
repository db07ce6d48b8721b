//! Key rotation for a receiver. The old keys are kept, to open messages that are sealed for them.

use std::path::PathBuf;

use ciphermq_crypto::key_file::{self, PRIVATE_KEY_FILE, Rotated};
use ciphermq_crypto::text::Escaped;

use crate::error::{Error, refuse_key};
use crate::report::Report;

/// The arguments of `keygen rotate`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RotateArgs {
    /// The folder with receiver_private.key, and receiver_xwing_private.key if there is one
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    pub out: PathBuf,
}

/// Creates a new key of each existing kind, and archives the old private keys in the same folder.
///
/// # Errors
///
/// [`Error`]. All keys are then still present, and the rotation can be retried.
pub fn run(args: &RotateArgs) -> Result<Report, Error> {
    refuse_key(&args.out)?;
    let rotation = key_file::rotate(&args.out.join(PRIVATE_KEY_FILE))?;
    let mut next: Vec<_> = rotation.keys.iter().map(replaced).collect();
    next.extend(
        [
            "Restart the receiver, or run `ciphermq-cli register-key`, to announce the new keys. \
             Senders use them within 5 minutes.",
            "Keep the old files: waiting messages that were sealed for them still need them. \
             `ciphermq-cli keys` shows when one is no longer needed.",
            "Back up the new private files.",
        ]
        .map(str::to_owned),
    );
    Ok(Report {
        written: rotation.written,
        kept: Vec::new(),
        next,
    })
}

fn replaced(key: &Rotated) -> String {
    format!(
        "The new {} key has the key id {}. The old one, {}, is in {}.",
        key.kind,
        key.new,
        key.old,
        Escaped(key.archived.display())
    )
}
