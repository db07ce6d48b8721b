//! The result of sending to one receiver.

use ciphermq_client::Summary;

use super::lines::SharedChunk;
use crate::exit::{Failure, Signal};

/// The numbers of one receiver's messages that were acknowledged and that were not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) acknowledged: u64,
    pub(super) unacknowledged: u64,
}

impl Counts {
    /// Adds the counts of one stream.
    pub(super) fn add(&mut self, summary: &Summary) {
        self.acknowledged += summary.acknowledged;
        self.unacknowledged += summary.unacknowledged;
    }
}

/// The reason why sending to one receiver stopped before the end of the input.
pub(super) enum StopReason {
    /// Reading the input failed.
    Input(SharedChunk),
    /// A message could not be sent, or the receiver's key or checkpoint cannot be used.
    Failed(Failure),
    /// A message was refused for a reason that applies to all following messages.
    Refused,
    /// The ids of messages that are not acknowledged cannot be listed.
    Unlisted(Failure),
    /// A signal asked the program to end.
    Signal(Signal),
}

/// The result of sending to one receiver.
#[derive(Default)]
pub(super) struct SendResult {
    pub(super) counts: Counts,
    pub(super) stop: Option<StopReason>,
    /// The number of the last line, if it was skipped because it was still being written.
    pub(super) unfinished: Option<u64>,
}

impl SendResult {
    /// The result for a receiver to whom nothing was sent.
    pub(super) fn failed(failure: Failure) -> Self {
        Self {
            stop: Some(StopReason::Failed(failure)),
            ..Self::default()
        }
    }

    /// Whether the receiver did not get every message.
    pub(super) fn is_incomplete(&self) -> bool {
        self.stop.is_some() || self.counts.unacknowledged > 0
    }
}
