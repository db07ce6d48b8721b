//! Receivers' public keys: whose word is taken for them, how long they are believed, and what is remembered of them.
//!
//! A key that the server gives is used if the receiver has signed it with its own certificate
//! ([`ciphermq_crypto::signed_key`]), and if it is not older than one that was seen before. The server is believed in
//! none of this. A key that nobody has signed is used only where the publisher was told to, and then pinned.
//!
//! - `directory`: asking, verifying, remembering for a while
//! - `announce`: this client's own keys, signed and registered
//! - `pins`: what was believed before
//! - [`write_record`]: which key was used, for people

mod announce;
mod directory;
mod pins;
mod record;

pub use ciphermq_crypto::key_file::{
    KeyFileError, PRIVATE_KEY_FILE, PUBLIC_KEY_FILE, read_keyring, read_private, read_public,
};
pub use ciphermq_files::FileError;

pub use ciphermq_crypto::identity::certificates;

pub use announce::{ANNOUNCEMENT_VALIDITY, AnnounceError};
pub use pins::PinsError;
pub use record::{RecordError, UnfitForFile, record_path, write_record};

pub(crate) use announce::announcement;
pub(crate) use directory::{KeyDirectory, ReceiverKey, receiver_key};
pub(crate) use pins::Pins;
