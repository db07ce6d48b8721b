//! The CipherMQ wire protocol, shared by clients and servers.
//!
//! ```text
//!   bytes ──► LineDecoder ──► line ──► Command::parse ──► the broker
//!                                                            │
//!   bytes ◄── Reply::encode ◄────────────────────────────────┘
//! ```
//!
//! The protocol consists of UTF-8 lines over mutual TLS. A client sends [`Command`]s; the server
//! answers each with [`Reply`]s in the order of the commands, and pushes [`Reply::Message`]
//! deliveries between them. A payload travels in an [`Envelope`], which the broker keeps byte for
//! byte.
//!
//! This crate does no I/O and no cryptography: bytes in, values out.
//!
//! Modules in reading order:
//!
//! - [`name`]: names of queues, exchanges, routing keys, clients and messages
//! - [`line`](mod@line): bytes to lines, with a length limit
//! - [`command`]: the lines that a client sends
//! - [`envelope`]: the JSON object that carries a sealed payload
//! - [`reply`]: the lines that the server sends
//! - [`error_code`]: the codes in `Error: <code>: <text>`, and whether the outcome is definite
//! - [`certificate`]: fingerprints and chains of certificates
//! - [`hello`]: the JSON of `hello`: versions, identity and limits
//! - [`rejected`]: the JSON of `list_rejected`: messages that receivers could not use
//! - [`permission`]: the actions of authorization rules, and the JSON of `can_i`
//! - [`topology`]: the JSON of `list_queues`, `list_exchanges` and `list_bindings`
//! - [`administration`]: the JSON of `list_connections`, `list_clients` and `reload`
//! - [`ends`]: the JSON of `list_ends`: when the server's certificates end
//! - [`waiting`]: the JSON of `list_waiting_keys`: the keys that waiting messages are sealed for
//! - [`revocation`]: certificate revocation lists
//! - [`json`]: JSON objects without duplicate keys
//! - [`message_id`]: message ids of this implementation, which sort by time and name their stream
//! - [`text`]: untrusted text, escaped for people

pub mod administration;
pub mod certificate;
pub mod command;
pub mod ends;
pub mod envelope;
pub mod error_code;
pub mod hello;
pub mod json;
pub mod line;
pub mod message_id;
pub mod name;
mod number;
pub mod permission;
pub mod rejected;
pub mod reply;
pub mod revocation;
pub mod text;
pub mod topology;
pub mod waiting;

pub use certificate::{CertificateChain, Fingerprint};
pub use command::{Command, CommandError};
pub use envelope::Envelope;
pub use error_code::ErrorCode;
pub use line::{LineDecoder, messages_at_most};
pub use message_id::StreamId;
pub use name::{ClientId, ExchangeName, MessageId, QueueName, RoutingKey};
pub use reply::{Delivery, ErrorReply, Missing, PackedLines, Reply};
pub use revocation::RevocationLists;

/// The default limit for a line that a server accepts, in bytes, without the line ending.
pub const DEFAULT_MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
