//! The destinations of received messages.
//!
//! - [`record`]: the form of a line
//! - [`file`](mod@file): a crash-safe file of lines, with one writer
//! - `scan`, `damage`: the contents of such a file, and the removal of damage
//! - [`shared`]: a file of lines with several writers
//! - `quarantine`: such a file, bounded in size
//! - [`pipe`]: a pipe that is written no faster than it is read
//! - [`stdout`]: the only path to standard output
//! - [`write`](mod@write): writes that are tried again where the system asks for it
//! - `error`: the errors of output files
//! - [`sink`], `kind`: the destination of received messages, a file or a stream

mod damage;
mod error;
pub(crate) mod file;
mod kind;
pub(crate) mod pipe;
mod quarantine;
pub(crate) mod record;
mod scan;
pub(crate) mod shared;
pub(crate) mod sink;
pub(crate) mod stdout;
pub(crate) mod write;

pub(crate) use error::OutputError;
pub(crate) use kind::OutputKind;
pub(crate) use quarantine::Quarantine;
pub(crate) use record::{Payload, Received, Unopened};
pub(crate) use sink::Sink;
