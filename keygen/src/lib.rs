//! CipherMQ's key pairs and development certificates: the library behind `keygen`, and behind the
//! subcommands `keygen` and `certs` of `ciphermq-cli`.
//!
//! ```text
//!   KeysArgs   ──► keys::run   ──► receiver_private.key, receiver_public.key,
//!                                  receiver_xwing_private.key, receiver_xwing_public.key
//!   RotateArgs ──► rotate::run ──► the same anew, and receiver_private.<key id>.key ...
//!   CertsArgs  ──► certs::run  ──► ca.crt, ca.key, server.crt, server.key,
//!                                  <client>/client.crt, <client>/client.key
//! ```
//!
//! Nothing that exists is overwritten without being told to, private files are the owner's alone,
//! and a run that fails leaves nothing behind. This library prints nothing: each `run` returns a
//! [`Report`].
//!
//! The certificate authority names clients. Whoever has `ca.key` can make a client of any name, so
//! for more than development it belongs on a machine of its own, and not into the hands of who runs
//! the broker.
//!
//! Modules in reading order:
//!
//! - [`keys`]: a receiver's key pairs
//! - [`rotate`]: new ones in place of those that are there
//! - [`certs`]: which certificates are made, kept and replaced
//! - [`authority`]: the certificate authority, ours or one that OpenSSL made
//! - [`names`]: what clients and servers may be called here
//! - [`report`]: what was done, and what to do next
//! - [`error`]: what can go wrong, and what to do about it

pub mod authority;
pub mod certs;
pub mod error;
mod folders;
pub mod keys;
pub mod names;
pub mod report;
pub mod rotate;

pub use certs::CertsArgs;
pub use error::Error;
pub use keys::KeysArgs;
pub use report::Report;
pub use rotate::RotateArgs;
