//! Fault injection: the real programs are killed, stopped and disconnected hundreds of times while
//! messages flow, and afterwards every guarantee is checked against the recorded events.
//!
//! ```text
//!  Sender ──┐                         ┌── Receiver       lines over TLS, implemented here
//!           ├─ Proxy ── Server ── ... ┤
//!  CliSender┘    │         │          └── CliReceiver    ciphermq-cli send --file, receive --output
//!                cuts,     killed,
//!                delays    stopped         all of them killed and restarted, by a seeded Plan
//! ```
//!
//! In reading order:
//!
//! - [`record`]: recorded events: messages sent and their outcomes, messages received, rows stored
//! - [`checker`]: the guarantees that a record must satisfy
//! - [`proxy`]: a TCP proxy that simulates network faults
//! - [`sender`], [`receiver`]: traffic over raw sockets, which observes every line
//! - [`transfer`]: traffic of the real command line, from file to file
//! - [`evidence`]: the content of the database after the faults
//! - [`plan`]: the sequence of faults
//! - [`campaign`]: a server, its traffic, and a sequence of faults
//! - [`points`]: kills at exact system calls
//! - [`backlog`]: memory use with a long queue
//! - [`tracing`]: `strace`, which makes system calls fail or kills a program at them
//! - [`sync_trace`]: files that a power failure could lose
//! - [`power`]: what a power failure may leave, and whether the promises hold then

pub mod backlog;
pub mod campaign;
pub mod checker;
pub mod evidence;
pub mod plan;
pub mod points;
pub mod power;
pub mod proxy;
pub mod receiver;
pub mod record;
pub mod sender;
pub mod sync_trace;
pub mod tracing;
pub mod transfer;

pub use campaign::{Campaign, Report};
pub use checker::{Violation, check};
pub use proxy::Proxy;
pub use record::Record;
