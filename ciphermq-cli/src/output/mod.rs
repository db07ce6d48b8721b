//! Where received messages are written.
//!
//! - [`record`]: one line
//! - [`file`](mod@file): a file of lines that survives crashes, with one writer
//! - [`sink`]: a file, or standard output

pub(crate) mod file;
pub(crate) mod record;
pub(crate) mod sink;
pub(crate) mod stdout;

pub(crate) use record::{Payload, Received, Unopened};
pub(crate) use sink::Sink;
