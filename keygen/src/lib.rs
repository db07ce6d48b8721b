//! Creates CipherMQ's key pairs, authorities and certificates: the library behind `keygen`, and
//! behind the subcommands `keygen` and `certs` of `ciphermq-cli`.
//!
//! ```text
//!   KeysArgs   ──► keys::run   ──► receiver_private.key, receiver_public.key,
//!                                  receiver_xwing_private.key, receiver_xwing_public.key
//!   RotateArgs ──► rotate::run ──► new ones, and the old as receiver_private.<key id>.key ...
//!   CertsArgs  ──► certs::run  ──► ca.crt, ca.key, server.crt, server.key,
//!                                  <client>/client.crt, <client>/client.key
//!   AuthorityArgs ──► hierarchy::run ──► ca.crt, ca.key
//!   CsrArgs    ──► csr::run    ──► <client>/client.key, <client>/client.csr
//!   SignArgs   ──► sign::run   ──► <client>/client.crt
//!   RenewArgs  ──► renew::run  ──► <client>/client.crt, or <client>/client.csr
//!   RevokeArgs ──► revocation::revoke ──► ca.crl
//!   ListArgs   ──► revocation::renew  ──► ca.crl
//! ```
//!
//! Existing files are overwritten only on request, private files are readable by their owner alone,
//! and a run that fails leaves nothing behind. This library prints nothing: each `run` returns a
//! [`Report`].
//!
//! The certificate authority determines the names of clients. Anyone who has `ca.key` can issue a
//! certificate for a client of any name, so in production it belongs on a separate machine, out of
//! reach of the broker's operator.
//!
//! Modules in reading order:
//!
//! - [`keys`]: a receiver's key pairs
//! - [`rotate`]: new keys in place of existing ones
//! - [`certs`]: creates, keeps and replaces certificates
//! - [`hierarchy`]: authorities by themselves, a root and intermediate ones
//! - [`csr`], [`sign`], [`renew`]: a request for a certificate, its signature, a renewal
//! - [`request`]: requests, made and checked
//! - [`revocation`]: the authority's certificate revocation list
//! - [`authority`]: the certificate authority, generated or read from files
//! - [`profile`], [`lifetime`]: what a certificate is for, and how long
//! - [`files`]: certificates and private keys in files
//! - [`names`]: the rules for names of clients and servers
//! - [`report`]: the result of a run, and the next steps
//! - [`arguments`]: the check that no argument is a key
//! - [`command`]: all commands, for the programs
//! - [`error`]: the errors, with advice

pub mod arguments;
pub mod authority;
pub mod certs;
pub mod client_name;
pub mod command;
pub mod csr;
pub mod error;
pub mod files;
mod folders;
pub mod hierarchy;
mod issued;
pub mod keys;
pub mod lifetime;
pub mod names;
mod pair;
pub mod profile;
pub mod renew;
pub mod report;
pub mod request;
pub mod revocation;
pub mod rotate;
mod serial;
pub mod sign;

pub use certs::CertsArgs;
pub use command::Command;
pub use csr::CsrArgs;
pub use error::Error;
pub use hierarchy::AuthorityArgs;
pub use keys::KeysArgs;
pub use renew::RenewArgs;
pub use report::Report;
pub use revocation::{ListArgs, RevokeArgs};
pub use rotate::RotateArgs;
pub use sign::SignArgs;
