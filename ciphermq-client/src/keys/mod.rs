//! Public keys: verification, caching and pinning of receivers' keys, and announcement of this
//! client's own.
//!
//! A key from the server is used if the receiver has signed it with its own certificate
//! ([`ciphermq_crypto::signed_key`]), and if it is not older than one that was seen before. The
//! server is not trusted for any of this. An unsigned key is used only where the publisher allows
//! it, and is then pinned.
//!
//! - `recipient_keys`: fetching, verifying and caching receivers' keys
//! - `registration`: the result of announcing this client's own keys
//! - `announce`: signing and registering this client's own keys
//! - `announced`: the record of announcements, so that epochs grow
//! - `keeper`: keeps the keys announced while a consumer runs
//! - `pins`: the receivers' keys that were accepted before
//! - `requests`: the requests to the server
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
mod registration;
mod requests;

pub use ciphermq_crypto::key_file::{
    KeyFileError, PRIVATE_KEY_FILE, PUBLIC_KEY_FILE, read_keyring, read_private, read_public,
};
pub use ciphermq_files::FileError;

pub use ciphermq_crypto::identity::certificates;

pub use crate::credentials::client_id_of;

pub use announced::{announced_by, unreadable_announcement};
pub use lock::LockError;
pub(crate) use lock::{FolderLock, MAX_WAIT};
pub use pins::PinsError;
pub use recipient_keys::distrust_advice;
pub use record::{RecordError, UnfitForFile, record_path, write_record};
pub use registration::{
    AnnounceError, EarlierSignedKey, HIGHEST_ABOVE, NotRecorded, Registration, SIGNED_KEY_LIFETIME,
};

pub(crate) use announce::Announcer;
pub(crate) use announced::{Announced, Announcements};
pub(crate) use keeper::keep_announced;
pub(crate) use pins::Pins;
pub(crate) use recipient_keys::{ReceiverKey, RecipientKeyCache};
pub(crate) use requests::{public_key_of, register_public, register_signed, signed_key_of};

/// Returns the error of a file that is not the expected JSON, with the place. The parser's own
/// message may quote the file, and somebody may have named a secret one.
fn not_the_json(error: &serde_json::Error) -> std::io::Error {
    let (line, column) = (error.line(), error.column());
    std::io::Error::new(
        std::io::ErrorKind::InvalidData,
        format!("it does not hold what it should (line {line}, column {column})"),
    )
}
