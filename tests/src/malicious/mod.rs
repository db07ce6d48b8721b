//! A malicious broker, which has a valid certificate, speaks the protocol, and tampers with lines.
//!
//! ```text
//!   client ──TLS──▶ MaliciousBroker ──TLS, with the client's own certificate──▶ Server
//!                    │
//!                    └─ every line, both ways: recorded, and forwarded as the script returns it
//! ```
//!
//! The real server behind it sees the honest client, so that everything that is not attacked works
//! as usual.
//!
//! - [`broker`]: the proxy and its scripts
//! - `tls`: the certificates of both sides
//! - [`fixture`]: a sender, a receiver and a bystander, connected through the malicious broker
//! - [`search`]: searches for secrets where they must not be found

pub mod broker;
pub mod fixture;
pub mod search;
mod tls;

pub use broker::{Line, MaliciousBroker, Recorded};
pub use fixture::MaliciousBrokerFixture;
