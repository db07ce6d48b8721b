//! What administrators do: they list and close connections, list, block and unblock clients, and
//! have the server read its configuration again.
//!
//! - `connections`: `list_connections` and `close_connection`
//! - `clients`: `list_clients`, with what each client holds
//! - `blocks`: `block_client` and `unblock_client`, and the clients that are kept out
//! - `reload`: `reload`
//! - `rules`: putting other rules in force, also for connections that are open

mod blocks;
mod clients;
mod connections;
mod reload;
mod rules;

pub use blocks::Blocks;
pub(super) use blocks::blocked;
