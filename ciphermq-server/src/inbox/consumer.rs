//! A consumer's credit, and its probation once it has let messages lapse.
//!
//! A consumer that leaves a message unanswered for all of the redelivery timeout may be one of
//! those that never answer what they cannot open. If each such message took a whole timeout, the
//! good ones behind twenty of them would wait for twenty timeouts. So from the first one on the
//! consumer is on probation:
//!
//! - It may leave a message unanswered only for eight times as long as it has needed for others,
//!   and never longer than a small part of the timeout. Then that message steps aside, too.
//! - When it has answered nothing meanwhile, the next ones are handed to it several at a time, more
//!   each time.
//! - The oldest clients throw away what comes between their ack and its confirmation. So with an
//!   ack this ends: one at a time again, and what was handed out before the confirmation and stays
//!   unanswered goes back to the head, as it may not have been seen. A consumer that has answered
//!   such a message is none of those, and has no more need of such care.
//!
//! Probation ends when it is seen to be slow rather than unable: an ack comes after longer than
//! probation allows, or the consumer pings, by which clients keep their leases.

use std::time::Duration;

use super::Prefetch;

/// How often the time that others needed a message may be left unanswered.
const PATIENCE: u32 = 8;
/// Networks and schedulers take that long at times.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(10);
/// By how much more is handed out each time that nothing was answered.
const GROWTH: u32 = 4;
/// And how much at most, beside the prefetch.
const MOST_EXTRA: u32 = 256;

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) prefetch: Prefetch,
    /// Delivered and not settled.
    pub(super) outstanding: u32,
    /// How many of these are acked.
    pub(super) acked: u32,
    /// It has been silent while it held a lease: others come first.
    pub(super) suspect: bool,
    /// Whether it stands in its lane's turns.
    pub(super) enlisted: bool,
    /// The longest that it has lately needed for an ack.
    slowest: Option<Duration>,
    probation: Option<Probation>,
}

#[derive(Debug)]
struct Probation {
    /// How long a message may be left unanswered at most.
    longest: Duration,
    /// What it may have beside its prefetch.
    extra: u32,
    /// What was handed out behind the first of these numbers, up to the second, may have met a
    /// client that waited for a confirmation, and threw it away.
    exposed: (u64, u64),
    /// It has answered such a message.
    takes_all: bool,
}

impl Consumer {
    pub(super) fn new(prefetch: Prefetch) -> Self {
        Self {
            prefetch,
            outstanding: 0,
            acked: 0,
            suspect: false,
            enlisted: false,
            slowest: None,
            probation: None,
        }
    }

    pub(super) fn has_credit(&self) -> bool {
        let extra = self
            .probation
            .as_ref()
            .map_or(0, |probation| probation.extra);
        self.outstanding - self.acked < self.prefetch.unacked.saturating_add(extra)
            && self.outstanding < self.prefetch.unconfirmed.saturating_add(extra)
    }

    /// How long it may leave a message unanswered; `None` if it is not on probation.
    pub(super) fn patience(&self) -> Option<Duration> {
        let longest = self.probation.as_ref()?.longest;
        let needed = self.slowest.map(|slowest| slowest.saturating_mul(PATIENCE));
        Some(needed.map_or(longest, |needed| needed.max(SHORTEST_PATIENCE).min(longest)))
    }

    /// A message was acked, so long after it was handed out with this number; in time, or after its
    /// lease had lapsed.
    pub(super) fn answered(&mut self, latency: Duration, delivery_tag: u64) {
        self.needed(latency);
        if let Some(probation) = &mut self.probation {
            let (from, to) = probation.exposed;
            if from < delivery_tag && delivery_tag <= to && !probation.takes_all {
                probation.takes_all = true;
                probation.extra = MOST_EXTRA;
            }
            if !probation.takes_all {
                probation.extra = 0;
                probation.exposed = (delivery_tag, delivery_tag);
            }
        }
    }

    fn needed(&mut self, latency: Duration) {
        // Forgotten little by little, so that one bad moment does not count for ever.
        let slowest = self.slowest.unwrap_or_default();
        self.slowest = Some(latency.max(slowest - slowest / 8));
        if self
            .probation
            .as_ref()
            .is_some_and(|probation| latency > probation.longest)
        {
            self.probation = None;
        }
    }

    /// Confirmations stand in the output behind the message with this number.
    pub(super) fn confirmed(&mut self, last_delivery_tag: u64) {
        if let Some(probation) = &mut self.probation {
            probation.exposed.1 = last_delivery_tag;
        }
    }

    /// Whether it may not have seen the message with this number.
    pub(super) fn may_have_missed(&self, delivery_tag: u64) -> bool {
        self.probation.as_ref().is_some_and(|probation| {
            let (from, to) = probation.exposed;
            !probation.takes_all && from < delivery_tag && delivery_tag <= to
        })
    }

    /// A message was not answered. `is_full`: no more may step aside fast.
    pub(super) fn lapsed(&mut self, longest: Duration, is_full: bool) {
        let prefetch = self.prefetch.unacked;
        match &mut self.probation {
            Some(probation) if is_full => probation.extra = 0,
            Some(probation) => {
                let more = probation
                    .extra
                    .saturating_add(prefetch)
                    .saturating_mul(GROWTH);
                probation.extra = more.min(MOST_EXTRA);
            }
            None => {
                self.probation = Some(Probation {
                    longest,
                    extra: 0,
                    exposed: (0, 0),
                    takes_all: false,
                });
            }
        }
    }

    pub(super) fn end_probation(&mut self) {
        self.probation = None;
    }
}
