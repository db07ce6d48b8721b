//! CipherMQ's end-to-end encryption: what a sender seals, only the receiver opens, and nobody between them
//! can read, alter or relabel it.
//!
//! ```text
//!   sender                                   receiver
//!   PublicKey ──► SendingSession             PrivateKey ──► Keyring ──► Opener
//!                      │ seal                                             │ open
//!   payload ───────────┴──► Envelope ~~~ broker ~~~ Envelope ─────────────┴──► Opened
//! ```
//!
//! A [`SendingSession`] seals a random session key for one receiver and uses it for many messages. Every
//! [`Envelope`](ciphermq_protocol::Envelope) carries the sealed session key, so each can be opened on its
//! own; the [`Opener`] remembers the session keys that it has opened. The exact bytes are described in
//! `docs/cryptography.md`, with test vectors beside it.
//!
//! This crate opens no connection and reads no clock: times are given. It takes randomness from the
//! operating system and touches files in [`key_file`] and [`file`](mod@file) only.
//!
//! Modules in reading order:
//!
//! - [`keys`]: private keys, public keys, key ids, keyrings
//! - [`key_file`]: keys in files
//! - [`file`](mod@file): whole files or none, private ones for the owner alone
//! - [`suite`]: how session keys are sealed, one file a suite, and how older clients seal
//! - [`payload`]: the payload's cipher, and the header that it authenticates
//! - [`session`]: how long a session key is used, on both sides
//! - [`seal`]: the sender's side
//! - [`open`]: the receiver's side
//! - [`stream`]: how a stream of message ids starts
//! - [`error`]: what can go wrong, and whose fault it is

mod encoding;
pub mod error;
pub mod file;
pub mod key_file;
pub mod keys;
pub mod open;
pub mod payload;
mod random;
pub mod seal;
pub mod session;
pub mod stream;
pub mod suite;

#[cfg(test)]
mod tampering_tests;
#[cfg(test)]
mod vector_tests;

/// Names of clients, which stand in this crate's interface: who only makes keys needs nothing else of the protocol.
pub use ciphermq_protocol::name::{ClientId, NameError};

pub use error::{KeyError, OpenError, RandomError, SealError};
pub use key_file::KeyFileError;
pub use keys::{KeyId, Keyring, PrivateKey, PublicKey};
pub use open::{OpenPolicy, Opened, Opener};
pub use payload::Header;
pub use seal::SendingSession;
pub use suite::{Form, OlderForm, Suite};
