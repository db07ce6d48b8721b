//! The CipherMQ broker as a library; `main.rs` is the program around it.
//!
//! ```text
//!   listener ──► connection ──► broker ──► store ──► SQLite or PostgreSQL
//!      │             ▲             │          │
//!     tls            └── inbox ◄───┴── commit ┘
//! ```
//!
//! The broker cannot open a message: it does not even depend on the crate that could. Everything
//! that it has acknowledged is in the store, synced; what it holds in memory is a cache and may be
//! lost at any time.
//!
//! Modules in reading order:
//!
//! - [`config`]: `config.toml` and its overrides
//! - [`file_roles`]: no file has two roles
//! - [`repeated`]: events that clients can cause without limit, counted by source
//! - [`server`]: start, run, stop
//! - [`backup`]: backups, beside a running server
//! - [`reload`]: what is read again while the server runs
//! - [`signals`]: the meaning of signals
//! - [`stop`]: the stop signal to every part
//! - [`private_file`]: the permissions of private key files
//! - [`tls`]: mutual TLS, and the mapping from a certificate to a client id
//! - [`listener`]: the accept loop
//! - [`connection`]: lines in, replies in order and deliveries out
//! - [`authorization`]: which client may do what, without I/O
//! - [`quota`]: how much one client may hold and send, without I/O
//! - [`broker`]: the commands
//! - [`inbox`]: one receiver's lanes, leases, consumers and credit, without I/O
//! - [`model`]: the values that inbox, broker and store share
//! - [`store`]: the durable store
//! - [`keys`]: the key directory
//! - [`at_rest`]: the sealing of keys in the database
//! - `memory`: returning free memory to the system

pub mod at_rest;
pub mod authorization;
pub mod backup;
pub mod broker;

mod by_client;
pub mod config;
pub mod connection;
pub mod file_roles;
pub mod inbox;
pub mod keys;
pub mod listener;
mod memory;
pub mod model;
pub mod private_file;
pub mod quota;
pub mod reload;
pub mod repeated;
pub mod server;
mod shared_budget;
pub mod signals;
pub mod stop;
pub mod store;
pub mod tls;
