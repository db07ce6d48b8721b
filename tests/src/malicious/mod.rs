//! An evil broker: what clients connect to has a good certificate, speaks the protocol, and lies.
//!
//! ```text
//!   client ──TLS──▶ Evil ──TLS, with the client's own certificate──▶ Server
//!                    │
//!                    └─ every line, both ways: recorded, and passed on as the script says
//! ```
//!
//! The real server behind it sees the honest client, so that all that is not attacked goes on as
//! always.
//!
//! - [`broker`]: the proxy, and its scripts
//! - `tls`: its two sides' certificates
//! - [`fixture`]: a sender, a receiver and a bystander, connected through it
//! - [`search`]: where a secret must not be found

pub mod broker;
pub mod fixture;
pub mod search;
mod tls;

pub use broker::{Evil, Line, Recorded};
pub use fixture::EvilFixture;
