//! Receivers' public keys: whose word is taken for them, how long they are believed, and what is
//! remembered of them.
//!
//! A key that the server gives is used if the receiver has signed it with its own certificate
//! ([`ciphermq_crypto::signed_key`]), and if it is not older than one that was seen before. The
//! server is believed in none of this. A key that nobody has signed is used only where the
//! publisher was told to, and then pinned.
//!
//! - `directory`: asking, verifying, remembering for a while
//! - `announce`: this client's own keys, signed and registered
//! - `announced`: what was announced before, so that epochs grow
//! - `keeper`: keeps them announced while a consumer runs
//! - `pins`: what was believed before
//! - `names`, `lock`: the files of clients, and their folder's lock
//! - [`write_record`]: which key was used, for people

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
pub use announced::{HIGHEST_ABOVE, NotRecorded, announced_by};
pub use lock::LockError;
pub use pins::PinsError;
pub use recipient_keys::distrust_advice;
pub use record::{RecordError, UnfitForFile, record_path, write_record};

pub(crate) use announce::{Announcer, register_signed, signed_key_of};
pub(crate) use announced::{Announced, Announcements};
pub(crate) use keeper::keep;
pub(crate) use pins::Pins;
pub(crate) use recipient_keys::{ReceiverKey, RecipientKeyCache, receiver_key};

/// Says that a file is not the JSON it should be, and where. A parser's own words may show what the
/// file holds, and somebody may have named a secret one.
fn not_the_json(error: &serde_json::Error) -> std::io::Error {
    let (line, column) = (error.line(), error.column());
    std::io::Error::new(
        std::io::ErrorKind::InvalidData,
        format!("it does not hold what it should (line {line}, column {column})"),
    )
}
