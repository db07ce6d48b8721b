//! The harness of CipherMQ's end-to-end and fault tests. It starts the real programs for each test,
//! in temporary folders and on ports of their own, and ends them with the test.
//!
//! ```text
//!   Pki ──certificates──▶ Server ◀──TLS── RawClient    one line out, one line in
//!                           │    ◀─────── Cli          the real ciphermq-cli
//!                           ▼
//!            SQLite file or Postgres ◀──── Database    what is actually stored
//! ```
//!
//! In reading order:
//!
//! - [`binaries`]: paths of the built programs
//! - [`process`]: a running program: its output, signals and exit status
//! - [`ports`]: free ports that stay free during a restart
//! - [`user`]: the user that PostgreSQL runs as when the tests run as root
//! - [`postgres`]: a PostgreSQL server for one test
//! - [`pki`]: certificate authorities, and valid and invalid certificates
//! - [`server`]: the broker, `ciphermq-server`
//! - [`raw`]: a TLS socket that speaks the protocol's lines
//! - [`sdk`]: clients of the SDK: their connections, keys, publishers and consumers
//! - [`cli`]: the command line, `ciphermq-cli`
//! - [`received`]: the output of `ciphermq-cli receive`
//! - [`database`]: queries on what the server stored
//! - [`backend`]: one test's body on both databases
//! - [`envelope`]: the text of valid and invalid envelopes
//! - [`workspace`]: a user's folder, with certificates and keys at their default paths
//! - [`fixture`]: many short test cases on one running server
//! - [`faults`]: faults while messages flow, and the guarantees that must hold afterwards
//! - [`battery`]: attacks on the service of others, and what remains of it
//! - [`malicious`]: a malicious broker in front of the real one
//! - [`fuzz`]: properties that must hold for any input
//! - [`data`]: real messages, and older clients' envelopes
//!
//! A missing program fails the test, with a message that names the command that installs it. Only
//! tests that the machine forbids (tracing, mounting) are left out by `scripts/test`, which reports
//! them and has them counted as skipped. Every wait has a limit, and ends as soon as the event
//! happens.

pub mod backend;
pub mod battery;
pub mod binaries;
pub mod cli;
pub mod data;
pub mod database;
pub mod envelope;
pub mod faults;
mod files;
pub mod fixture;
pub mod fuzz;
pub mod malicious;
pub mod pki;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod received;
pub mod sdk;
pub mod server;
pub mod user;
pub mod workspace;

pub use backend::Backend;
pub use cli::Cli;
pub use database::Database;
pub use envelope::EnvelopeText;
pub use fixture::Fixture;
pub use pki::{Authority, Pki};
pub use postgres::Postgres;
pub use raw::RawClient;
pub use received::Received;
pub use server::Server;

/// Limit on waiting for anything that should take a moment. It is long, because the machine may be
/// busy, and shorter than the test runner's own limit, so that the test can report what it waited
/// for.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);
