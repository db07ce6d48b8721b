//! The CipherMQ broker as a library; `main.rs` is its thin program.
//!
//! ```text
//!   listener ──► connection ──► broker ──► store ──► SQLite or PostgreSQL
//!      │             ▲             │          │
//!     tls            └── inbox ◄───┴── commit ┘
//! ```
//!
//! The broker cannot open a message: it does not even depend on the crate that could. What it has
//! acknowledged is in the store, synced; memory is a cache of that and may be lost at any time.
//!
//! Modules in reading order:
//!
//! - [`config`]: `config.toml` and what overrides it
//! - [`file_roles`]: every file that is written is nothing else
//! - [`logging`]: JSON lines in files by level, readable ones on the console
//! - [`server`]: start, run, stop
//! - [`signals`]: what signals mean
//! - [`stop`]: how every part learns that it is to stop
//! - [`private_file`]: who may read a private key's file
//! - [`tls`]: certificates on both sides, and from a certificate to a client id
//! - [`listener`]: the accept loop
//! - [`connection`]: lines in, replies in order and deliveries out
//! - [`broker`]: what each command does
//! - [`inbox`]: one receiver's lanes, leases, consumers and credit, without I/O
//! - [`model`]: what the inbox, the broker and the store share
//! - [`store`]: the durable truth
//! - [`keys`]: the key directory
//! - [`at_rest`]: how keys are sealed in the database
//! - `memory`: giving it back when nothing is to do

pub mod at_rest;
pub mod broker;
pub mod config;
pub mod connection;
pub mod file_roles;
pub mod inbox;
pub mod keys;
pub mod listener;
pub mod logging;
mod memory;
pub mod model;
pub mod private_file;
pub mod server;
pub mod signals;
pub mod stop;
pub mod store;
pub mod tls;
