//! Certificates as both ends of a connection read them.
//!
//! The broker takes a client's id from its certificate, and receivers take the sender's from the
//! same one: two readings would be two clients. So what a certificate says is read in one place,
//! and what is wrong with one is told in the same words by the broker's log, the SDK and the
//! command line.
//!
//! Modules in reading order:
//!
//! - [`pem`]: from a file's text to certificates and private keys, or to what stands there instead
//! - [`name`]: whose a client's certificate is
//! - [`key_kind()`]: what kind of key a certificate has
//! - [`flaw`]: why a certificate is not accepted, and what to do
//! - `chain` (with the feature `tls`): which of a file's certificates is the own one
//! - [`validity`]: from when until when a certificate counts

#[cfg(feature = "tls")]
pub mod chain;
pub mod flaw;
pub mod key_kind;
pub mod name;
pub mod pem;
pub mod validity;

pub use flaw::Flaw;
pub use key_kind::key_kind;
pub use name::{NameError, client_id};
pub use pem::NotPem;
pub use validity::{Trouble, Validity};
