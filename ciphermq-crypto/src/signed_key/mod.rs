//! Signed keys: a receiver's public keys, signed with its certificate.
//!
//! The signature prevents intermediaries from replacing the keys.
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
//! - `jws`: the serialization
//! - [`Announcement`]: the contents, which a receiver signs
//! - [`verify()`]: verification by senders
//! - [`OwnSignedKey`]: a receiver's own earlier signed key
//! - [`Pin`]: a sender's record of a receiver's keys, against rollback

mod announcement;
pub(crate) mod jws;
mod own;
mod pin;
mod verify;

pub use announcement::{Announcement, AnnouncementError};
pub use own::{OwnSignedKey, stated_key_ids, unverified_epoch};
pub use pin::{Pin, PinError};
pub use verify::{SignedKeyError, VerifiedKeys, verify};

/// The limit for a signed key, in bytes.
pub const MAX_SIGNED_KEY_BYTES: usize = 64 * 1024;
