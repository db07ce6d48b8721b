//! Where received messages are written.
//!
//! - [`record`]: one line
//! - [`file`](mod@file): a file of lines that survives crashes, with one writer
//! - `scan`, `aside`: what stands in such a file, and what becomes of what is damaged
//! - [`shared`]: a file of lines with many writers
//! - [`pipe`]: a pipe that is written no faster than it is read
//! - [`sink`], [`target`]: a file, or standard output, and which of them an output is

mod aside;
pub(crate) mod file;
pub(crate) mod pipe;
pub(crate) mod record;
mod scan;
pub(crate) mod shared;
pub(crate) mod sink;
pub(crate) mod stdout;
mod target;

pub(crate) use record::{Payload, Received, Unopened};
pub(crate) use sink::Sink;
pub(crate) use target::Target;
