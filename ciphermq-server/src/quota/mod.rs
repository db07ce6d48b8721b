//! Quotas: how much one client may hold, and how fast it may publish. Pure: no I/O, and the time is
//! passed in.
//!
//! ```text
//!   config ──► Quotas ──► ClientLimits of one client
//!                              │
//!   commits ──► Ledger ────────┼──► Rooms: what a commit may still add
//!               (who holds     │
//!                what)         └──► PublishRate: whether a line is let through
//! ```
//!
//! - `limits`: which limits a client has: those of the first entry whose patterns match its id
//! - `kind`: the quotas by name
//! - `ledger`: what each sender holds, by the effects of the store's commits
//! - `rejections`: what receivers reject of one sender's messages, and whom that stops it from
//!   sending to
//! - `room`: what the commit that is being made may still add
//! - `rate`: token buckets
//! - `share`: who is refused first when the disk is short
//!
//! Queues, exchanges and bindings are counted by `broker::Topology`, which knows who made them.

mod kind;
mod ledger;
mod limits;
mod rate;
mod rejections;
mod room;
mod share;

pub use kind::{Quota, QuotaUsage};
pub use ledger::Ledger;
pub use limits::{ClientEntry, Quotas};
pub use rate::{PublishRate, TooFast};
pub use room::{Excess, Room, Rooms};
