//! The task that owns a connection.
//!
//! ```text
//!   handles ── Op ──► machine ──► bytes ──► TLS
//!                        ▲                   │
//!                        └───── bytes ◄──────┘
//! ```
//!
//! - `settings`, `op`, `outcome`: what handles pass to the driver, and what they get back
//! - `window`, `delivery_queue`: bounds shared by the driver with publishers and consumers
//! - `ending`: ends after which connecting again is of no use
//! - `opening`: the first exchange on a new connection, hello and set-up
//! - `pending_replies`: matches each reply to a command of this connection
//! - `outbox`: items that are sent until they are answered, across reconnects
//! - `unsettled`: an outbox, the effect of replies on it, and the callers that wait for it
//! - `publications`: the unsettled messages of all publishers
//! - `acks`: the unsettled acknowledgements
//! - `machine`: the protocol logic as a whole: bytes and times in, bytes out
//! - `renewal`: the move of a connection to new credentials
//! - `task`: sockets, clock, reconnecting
//! - `handle`: the handles' end of the channel
//!
//! All but the last three use neither sockets nor clock.

mod acks;
mod delivery_queue;
mod ending;
mod handle;
mod machine;
mod op;
mod opening;
mod outbox;
mod outcome;
mod pending_replies;
mod publications;
mod renewal;
mod settings;
mod task;
mod unsettled;
mod window;

#[cfg(test)]
mod machine_tests;

pub use outcome::{AckSummary, MAX_FAILURES, Outcome, Receipt, Summary};
pub use settings::BatchLimits;

pub(crate) use acks::AckItem;
pub(crate) use delivery_queue::DeliveryQueue;
pub(crate) use handle::{Handle, WeakHandle};
pub(crate) use op::{Op, Outgoing, PublisherId, PublisherSetup};
pub(crate) use outcome::{CLOSED, OutcomeObserver};
pub(crate) use publications::line_overhead;
pub(crate) use settings::{DriverSettings, Retry, Setup};
pub(crate) use task::start;
pub(crate) use window::Window;
