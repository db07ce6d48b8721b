//! End-to-end encryption of CipherMQ messages.
//!
//! Only the receiver can open what a sender seals, and nobody between them can read, alter or
//! relabel it.
//!
//! ```text
//!   sender                                   receiver
//!   PublicKey ──► SendingSession             PrivateKey ──► Keyring ──► Opener
//!                      │ seal                                             │ open
//!   payload ───────────┴──► Envelope ~~~ broker ~~~ Envelope ─────────────┴──► Opened
//! ```
//!
//! A [`SendingSession`] seals a random session key for one receiver and uses it for many messages.
//! Every [`Envelope`](ciphermq_protocol::Envelope) carries the sealed session key, so each can be
//! opened on its own; the [`Opener`] caches the session keys that it has opened.
//! `docs/cryptography.md` specifies the exact bytes; `docs/test-vectors` has test vectors.
//!
//! This crate opens no connections and reads no clock: callers pass the time. It takes randomness
//! from the operating system, and accesses files only in [`key_file`].
//!
//! Modules in reading order:
//!
//! - [`keys`]: private keys, public keys, key ids, keyrings
//! - [`key_file`]: keys in files
//! - [`identity`]: certificates, and the private keys that sign with them
//! - [`signed_key`]: public keys of receivers, signed by them
//! - [`suite`]: sealing of session keys, one file per suite, and the forms of older clients
//! - [`payload`]: the cipher of payloads, and the header that it authenticates
//! - [`session`]: limits of sessions, and the receiver's cache of them
//! - [`sender`]: signatures of sessions
//! - [`seal`]: the sender's side
//! - [`seal_older`](mod@seal_older): sealing for older clients
//! - [`open`]: the receiver's side
//! - [`stream`]: new streams of message ids
//! - [`error`]: errors of sealing and opening

mod encoding;
pub mod error;
pub mod identity;
pub mod key_file;
pub mod keys;
pub mod open;
pub mod payload;
mod random;
pub mod seal;
pub mod seal_older;
pub mod sender;
pub mod session;
pub mod signed_key;
pub mod stream;
pub mod suite;

#[cfg(test)]
mod signed_vector_tests;
#[cfg(test)]
mod tampering_tests;
#[cfg(test)]
mod vector_tests;
#[cfg(test)]
mod wiping_tests;

/// Names of clients, which are part of this crate's interface, for programs that need nothing else
/// of the protocol.
pub use ciphermq_protocol::name::{ClientId, NameError};
/// Display of untrusted text, for programs that need nothing else of the protocol.
pub use ciphermq_protocol::{debug_as_report, text};

pub use error::{KeyError, OpenError, RandomError, SealError};
pub use identity::{Authority, Certificate, Fingerprint, Identity};
pub use key_file::KeyFileError;
pub use keys::{
    KeyId, Keyring, PrivateKey, PublicKey, RecipientKey, XWingPrivateKey, XWingPublicKey,
};
pub use open::{OpenPolicy, Opened, Opener};
pub use payload::Header;
pub use seal::SendingSession;
pub use seal_older::seal_older;
pub use sender::SenderError;
pub use signed_key::{Announcement, Pin, PinError, SignedKeyError, VerifiedKeys};
pub use suite::{Form, OlderForm, Suite};
