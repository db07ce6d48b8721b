//! CipherMQ's end-to-end encryption: what a sender seals, only the receiver opens, and nobody
//! between them can read, alter or relabel it.
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
//! opened on its own; the [`Opener`] remembers the session keys that it has opened. The exact bytes
//! are described in `docs/cryptography.md`, with test vectors beside it.
//!
//! This crate opens no connection and reads no clock: times are given. It takes randomness from the
//! operating system and touches files in [`key_file`] only.
//!
//! Modules in reading order:
//!
//! - [`keys`]: private keys, public keys, key ids, keyrings
//! - [`key_file`]: keys in files
//! - [`identity`]: certificates, who a client is, and what it signs
//! - [`signed_key`]: receivers' keys, signed by them
//! - [`suite`]: how session keys are sealed, one file a suite, and how older clients seal
//! - [`payload`]: the payload's cipher, and the header that it authenticates
//! - [`session`]: how long a session key is used, on both sides
//! - [`sender`]: sessions signed by their senders
//! - [`seal`]: the sender's side
//! - [`seal_older`](mod@seal_older): writing what older clients read
//! - [`open`]: the receiver's side
//! - [`stream`]: how a stream of message ids starts
//! - [`error`]: what can go wrong, and whose fault it is

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

/// Names of clients, which stand in this crate's interface: who only makes keys needs nothing else
/// of the protocol.
pub use ciphermq_protocol::name::{ClientId, NameError};
/// How texts of others are shown, for programs that need nothing else of the protocol either.
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
