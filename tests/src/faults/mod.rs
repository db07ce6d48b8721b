//! Faults, by the hundred: real programs are killed, stopped and cut off from each other while
//! messages flow, and afterwards every promise is checked against what was written down.
//!
//! ```text
//!  Sender ──┐                         ┌── Receiver       lines over TLS, an implementation of their own
//!           ├─ Proxy ── Server ── ... ┤
//!  CliSender┘    │         │          └── CliReceiver    ciphermq-cli send --file, receive --output
//!                cuts,     killed,
//!                delays    stopped         all of them killed and started again, by a seeded Plan
//! ```
//!
//! In reading order:
//!
//! - [`record`]: what is written down: what was sent with which outcome, what arrived, what the
//!   store says
//! - [`checker`]: what must be true of a record
//! - [`proxy`]: a network that fails
//! - [`sender`], [`receiver`]: traffic over raw sockets, which sees every line
//! - [`transfer`]: traffic of the real command line, from file to file
//! - [`evidence`]: what the database says when all is over
//! - [`plan`]: which fault comes next
//! - [`campaign`]: a server, its traffic, and fault after fault
//! - [`points`]: kills at exact system calls
//! - [`backlog`]: memory with a long queue
//! - [`tracing`]: `strace`, which makes system calls fail and kills at them

pub mod backlog;
pub mod campaign;
pub mod checker;
pub mod evidence;
pub mod names;
pub mod plan;
pub mod points;
pub mod proxy;
pub mod receiver;
pub mod record;
pub mod sender;
pub mod tracing;
pub mod transfer;

pub use campaign::{Campaign, Report};
pub use checker::{Violation, check};
pub use proxy::Proxy;
pub use record::Record;
