//! This client's certificate, its private key and its authority, which are read again when their
//! files change.
//!
//! ```text
//!   files ──► load ──► Credentials ──► CurrentCredentials ──► connections, sessions, announcements
//!     ▲                                      │
//!     └───────────── watch ◄─────────────────┘
//! ```
//!
//! - `pem`: PEM texts and the files that hold them
//! - `load`: from PEM texts to a TLS configuration and a signing identity
//! - `signing`: a certificate that signs, apart from the one that connects
//! - `current`: the credentials in use, and their replacement
//! - `lists`: the revocation lists in force, and whose lists count
//! - `trust`: the authorities in use, as a publisher or consumer follows them
//! - `watch`: looks for changed files, and warns before certificates end
//! - `end`: a certificate that ends

mod current;
mod end;
mod lists;
mod load;
mod pem;
mod signing;
mod trust;
mod watch;

pub use end::{CertificateEnd, CertificateRole};
pub use load::client_id_of;

pub(crate) use current::CurrentCredentials;
pub(crate) use lists::Taken;
pub(crate) use load::{Credentials, Pair, Source};
pub(crate) use pem::{Pem, upper_first};
pub(crate) use trust::Trust;
pub(crate) use watch::start as watch;
