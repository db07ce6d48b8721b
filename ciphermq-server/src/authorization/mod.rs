//! Authorization: which client may do what. Pure: no I/O, and no knowledge of the protocol's lines.
//!
//! ```text
//!   config ──► Policy ──► CurrentPolicy (replaceable) ──► ClientPolicy ──► decide(Request)
//!                                                          of one client      ──► Decision
//! ```
//!
//! A [`Policy`] has rules for all clients. A [`ClientPolicy`] has those of one client, with its id
//! filled in; a connection keeps one, and makes another when the policy is replaced.
//!
//! The order of a decision:
//!
//! 1. An administrator may do everything.
//! 2. The first rule that denies the request decides.
//! 3. Otherwise the first rule that allows it does.
//! 4. Otherwise the default does. By default nobody administers, whatever the default is.

mod client;
mod current;
mod policy;
mod request;
#[cfg(test)]
mod tests;

pub use ciphermq_protocol::name::pattern::{Pattern, PatternError, Template};
pub use ciphermq_protocol::permission::Action;
pub use client::ClientPolicy;
pub use current::CurrentPolicy;
pub use policy::{Effect, Policy, Rule};
pub use request::{Decision, Reason, Request};
