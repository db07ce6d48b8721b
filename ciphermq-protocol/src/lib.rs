//! The CipherMQ wire protocol, once, for both ends.
//!
//! ```text
//!   bytes ──► LineDecoder ──► line ──► Command::parse ──► the broker
//!                                                            │
//!   bytes ◄── Reply::encode ◄────────────────────────────────┘
//! ```
//!
//! The protocol is made of UTF-8 lines over mutual TLS. A client sends [`Command`]s, the server
//! answers each with [`Reply`]s in the order of the commands, and pushes [`Reply::Message`]
//! deliveries between them. Payloads travel in an [`Envelope`], which the broker keeps byte for
//! byte.
//!
//! This crate does no I/O and no cryptography: bytes in, values out.
//!
//! Modules in reading order:
//!
//! - [`name`]: what queues, exchanges, routing keys, clients and messages may be called
//! - [`line`](mod@line): bytes to lines, with a length limit
//! - [`command`]: what a client says
//! - [`envelope`]: the JSON object that carries a sealed payload
//! - [`reply`]: what the server answers
//! - [`error_code`]: the codes in `Error: <code>: <text>`, and whether the outcome is definite
//! - [`hello`]: who is at the other end, and the limits in force
//! - [`rejected`]: messages that receivers could not use
//! - [`waiting`]: by which of a receiver's keys waiting messages are sealed
//! - [`json`]: objects that read one way only
//! - [`message_id`]: our own message ids, which grow with time and name their stream
//! - [`text`]: what others chose, shown to people

pub mod command;
pub mod envelope;
pub mod error_code;
pub mod hello;
pub mod json;
pub mod line;
pub mod message_id;
pub mod name;
mod number;
pub mod rejected;
pub mod reply;
pub mod text;
pub mod waiting;

pub use command::{Command, CommandError};
pub use envelope::Envelope;
pub use error_code::ErrorCode;
pub use line::LineDecoder;
pub use message_id::StreamId;
pub use name::{ClientId, ExchangeName, MessageId, QueueName, RoutingKey};
pub use reply::{Delivery, ErrorReply, Missing, Reply};

/// The longest line that a server accepts by default, in bytes, without its line ending.
pub const DEFAULT_MAX_LINE_BYTES: usize = 16 * 1024 * 1024;
