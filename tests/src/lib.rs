//! The harness of CipherMQ's end-to-end and fault tests: it starts the real programs, each test its
//! own, in folders and on ports of its own, and ends them with the test.
//!
//! ```text
//!   Pki ──certificates──▶ Server ◀──TLS── RawClient    one line out, one line in
//!                           │    ◀─────── Cli          the real ciphermq-cli
//!                           ▼
//!            SQLite file or Postgres ◀──── Database    what is really stored
//! ```
//!
//! In reading order:
//!
//! - [`binaries`]: where the built programs are
//! - [`process`]: a running program: its output, its signals, its end
//! - [`ports`]: a free port that stays free over a restart
//! - [`user`]: whom PostgreSQL runs as when the tests run as root
//! - [`postgres`]: a PostgreSQL server of the test's own
//! - [`pki`]: certificate authorities, and certificates good and bad
//! - [`server`]: the broker, `ciphermq-server`
//! - [`raw`]: a TLS socket that speaks the protocol's lines
//! - [`cli`]: the command line, `ciphermq-cli`
//! - [`received`]: what `ciphermq-cli receive` has written
//! - [`database`]: queries on what the server stored
//! - [`backend`]: one test's body on both databases
//! - [`envelope`]: envelopes as texts, good and bad
//! - [`fixture`]: many short plays on one running server
//! - [`faults`]: kills, stops and cuts while messages flow, and what must hold afterwards
//! - [`evil`]: a broker that lies, in front of the real one
//! - [`fuzz`]: what must hold for any bytes from outside
//! - [`data`]: real messages, and older clients' envelopes
//!
//! What is missing fails the test, with the command that provides it; only tests of what the
//! machine forbids, tracing and mounting, are left out by `scripts/test`, which says so and has
//! them counted as skipped. All waiting has a limit and ends with the event waited for.

pub mod backend;
pub mod binaries;
pub mod cli;
pub mod data;
pub mod database;
pub mod envelope;
pub mod evil;
pub mod faults;
mod files;
pub mod fixture;
pub mod fuzz;
pub mod pki;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod received;
pub mod server;
pub mod user;

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

/// How long anything is waited for that should take a moment: long, as the machine may be busy, and
/// short of the test runner's own limit, so that the test still says what it waited for.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
