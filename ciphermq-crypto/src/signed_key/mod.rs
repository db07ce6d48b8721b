//! Signed keys: a receiver's public keys, signed with its certificate, so that nobody who hands
//! them on can exchange them.
//!
//! ```text
//!   receiver                                broker                    sender
//!   Keyring ─► Announcement ── sign ─► compact JWS ~~~~~~~~~► verify ─► VerifiedKeys ─► RecipientKey
//!                  Identity                                   Authority, Pin
//! ```
//!
//! A signed key is a compact JWS (RFC 7515, section 7.1) with the certificate chain in `x5c`
//! (section 4.1.6). The algorithm is the one that the certificate's key dictates. It contains no
//! space.
//!
//! - `jws`: the form
//! - [`Announcement`]: what a receiver says of its keys
//! - [`verify()`]: what a sender believes of it
//! - [`OwnSignedKey`]: what a receiver takes from a signed key of its own
//! - [`Pin`]: what a sender has believed before, and will not go behind

mod announcement;
pub(crate) mod jws;
mod own;
mod pin;
mod verify;

pub use announcement::{Announcement, AnnouncementError};
pub use own::{OwnSignedKey, stated_epoch, stated_key_ids};
pub use pin::{Pin, PinError};
pub use verify::{SignedKeyError, VerifiedKeys, verify};

/// The longest signed key that is read, in bytes.
pub const MAX_SIGNED_KEY_BYTES: usize = 64 * 1024;
