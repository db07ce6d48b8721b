//! Certificates, requests and revocation lists, as rustls and OpenSSL see them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod certs;
#[cfg(unix)]
mod document;
mod folder;
mod intermediates;
mod renewal;
mod requests;
mod revocation;
