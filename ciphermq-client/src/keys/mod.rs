//! Public keys: verification, caching and pinning of receivers' keys, and announcement of this
//! client's own.
//!
//! A key from the server is used if the receiver has signed it with its own certificate
//! ([`ciphermq_crypto::signed_key`]), and if it is not older than one that was seen before. The
//! server is not trusted for any of this. An unsigned key is used only where the publisher allows
//! it, and is then pinned.
//!
//! - `recipient_keys`: fetching, verifying and caching receivers' keys
//! - `announce`: signing and registering this client's own keys
//! - `announced`: the record of announcements, so that epochs grow
//! - `keeper`: keeps the keys announced while a consumer runs
//! - `pins`: the receivers' keys that were accepted before
//! - `names`, `lock`: the files of clients, and their folder's lock
//! - [`write_record`]: the key that was used, for people

mod announce;
mod announced;
mod keeper;
mod lock;
mod names;
mod pins;
mod recipient_keys;
mod record;

pub use ciphermq_crypto::key_file::{
    KeyFileError, PRIVATE_KEY_FILE, PUBLIC_KEY_FILE, read_keyring, read_private, read_public,
};
pub use ciphermq_files::FileError;

pub use ciphermq_crypto::identity::certificates;

pub use crate::connector::tls::client_id_of;

pub use announce::{ANNOUNCEMENT_VALIDITY, AnnounceError, EarlierSignedKey, Registration};
pub use announced::{HIGHEST_ABOVE, NotRecorded};
pub use lock::LockError;
pub use pins::PinsError;
pub use recipient_keys::distrust_advice;
pub use record::{RecordError, UnfitForFile, record_path, write_record};

pub(crate) use announce::{Announcer, register_signed, signed_key_of};
pub(crate) use announced::{Announced, Announcements};
pub(crate) use keeper::keep_announced;
pub(crate) use pins::Pins;
pub(crate) use recipient_keys::{ReceiverKey, RecipientKeyCache, receiver_key};
