//! Parsing and validation of certificates, shared by both ends of a connection.
//!
//! The broker takes a client's id from its certificate, and receivers take the sender's id from the
//! same certificate: if they parsed it differently, they would see two clients. So all of them
//! parse certificates with this crate, and describe a refused one with the same words in the
//! broker's log, the SDK and the command line.
//!
//! Modules in reading order:
//!
//! - [`pem`]: certificates and private keys from a file's text, or what the file holds instead
//! - [`name`]: the client that a certificate names
//! - [`key_kind()`]: the kind of a certificate's key, in words
//! - [`fingerprint()`]: the fingerprint of a certificate
//! - [`flaw`]: the reason why a certificate is refused, and what to do
//! - `chain` (with the feature `tls`): the place of a client's or server's own certificate
//! - [`validity`]: the validity period of a certificate
//! - [`nearness`]: how near its end is, for warnings before it comes

#[cfg(feature = "tls")]
pub mod chain;
mod fingerprint;
pub mod flaw;
pub mod key_kind;
pub mod name;
pub mod nearness;
pub mod pem;
pub mod validity;

pub use fingerprint::fingerprint;
pub use flaw::Flaw;
pub use key_kind::{describes_curve, key_kind, short_key};
pub use name::{ClientIdFrom, ClientIdFromError, NameError, NameField};
pub use nearness::Nearness;
pub use pem::PemError;
pub use validity::{Validity, ValidityError};
