//! A receiver's X25519 key pair, in two files.

use std::path::PathBuf;

use ciphermq_crypto::PrivateKey;
use ciphermq_crypto::file::Existing;
use ciphermq_crypto::key_file::{self, PRIVATE_KEY_FILE, PUBLIC_KEY_FILE};

use crate::error::Error;
use crate::folders::NewFolders;
use crate::report::Report;

/// What `keygen` is asked for.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct KeysArgs {
    /// The folder for receiver_private.key and receiver_public.key
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    pub out: PathBuf,
    /// Replace a key pair that is there; what was sealed for it can then no longer be opened
    #[arg(long)]
    pub force: bool,
}

/// Makes a key pair.
///
/// # Errors
///
/// [`Error`]; then nothing was written.
pub fn run(args: &KeysArgs) -> Result<Report, Error> {
    let mut folders = NewFolders::default();
    folders.make(&args.out, false)?;
    let key = PrivateKey::generate()?;
    let (private, public) = (args.out.join(PRIVATE_KEY_FILE), args.out.join(PUBLIC_KEY_FILE));
    let existing = if args.force {
        Existing::Replace
    } else {
        Existing::Keep
    };
    key_file::write_pair(&private, &public, &key, existing)?;
    folders.keep();
    let next = vec![
        format!(
            "The public key is {}, its key id {}.",
            key.public_key(),
            key.public_key().key_id()
        ),
        format!(
            "Keep {} secret and back it up: without it no message can be opened. The receiver registers the public key by itself.",
            private.display()
        ),
    ];
    Ok(Report {
        written: vec![private, public],
        kept: Vec::new(),
        next,
    })
}
