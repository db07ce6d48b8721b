//! Messages in flight: delivered and not yet acknowledged, or acknowledged and not yet settled.

use std::time::Instant;

use super::ConnectionId;
use crate::model::{QueueId, Seq, Time};

/// What is under way for one message id.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// One for each queue that has handed it out: nearly always one.
    pub(super) leases: Vec<Lease>,
    /// How many acks of it are on their way to the store.
    pub(super) acks: u32,
    /// The store has removed it; only confirmations are left to be sent.
    pub(super) gone: bool,
}

impl InFlight {
    pub(super) fn is_done(&self) -> bool {
        self.leases.is_empty() && self.acks == 0
    }

    /// Takes out the leases that `which` names.
    pub(super) fn extract(&mut self, mut which: impl FnMut(&Lease) -> bool) -> Vec<Lease> {
        self.leases.extract_if(.., |lease| which(lease)).collect()
    }
}

/// A message handed to a connection.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) queue: QueueId,
    pub(super) seq: Seq,
    /// `None` once the connection has ended while an ack was under way.
    pub(super) holder: Option<ConnectionId>,
    /// Whether it takes a consumer's credit; a fetched message does not.
    pub(super) credited: bool,
    /// Whether its holder has acked it, which may make room for another one.
    pub(super) acked: bool,
    pub(super) since: Instant,
    /// When it was delivered first.
    pub(super) delivered: Time,
    /// Whether the store knows that time.
    pub(super) recorded: bool,
    /// How often it was handed out and came back before, other than by lapsing.
    pub(super) attempts: u32,
    /// How often it was not answered in time before.
    pub(super) lapses: u32,
    /// Its number among all that the inbox has handed out.
    pub(super) delivery_tag: u64,
}
