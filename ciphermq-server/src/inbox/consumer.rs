//! A consumer's credit, and its probation once it has let a lease lapse.
//!
//! A consumer that leaves a message unanswered for the whole redelivery timeout may be one of those
//! that never answer what they cannot open. If each such message took a whole timeout, the good
//! ones behind twenty of them would wait for twenty timeouts. From the first one on, the consumer
//! is on probation:
//!
//! - A message lapses as soon as the consumer *stalls*: it has answered nothing for a patience that
//!   follows from how long it has needed for its answers. A slow consumer has a longer patience.
//! - A lapse frees credit, so that the next message can go out. The message itself stays with the
//!   consumer: nobody else gets it before the redelivery timeout has passed.
//! - When the consumer stalls again and again, it gets more messages at a time, four times as many
//!   each time.
//! - An answer shows that the consumer was busy until now. What it got after the message that it
//!   answers has not been judged: those lapses do not count, and the messages are leased again.
//! - The oldest clients discard every line between their ack and its confirmation. What they got in
//!   that time and leave unanswered for one more patience goes back to the head of its lane, in
//!   order. A consumer that answers such a message discards nothing, and keeps getting more at a
//!   time.
//!
//! A client that sends `ping` keeps its leases, and is not on probation.

use std::time::{Duration, Instant};

use super::Prefetch;

/// How many times the time of an answer the patience is, for consumers that are fast.
const PATIENCE_FACTOR: u32 = 8;
/// The shortest patience: networks and schedulers take that long at times.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(10);
/// The factor by which the extra credit grows with each stall that follows another one.
const GROWTH: u32 = 4;
/// The most extra credit, in messages.
const MOST_EXTRA: u32 = 256;
/// The part of the redelivery timeout that the patience is at first, and that a slow consumer has
/// beside the time of its answers.
const TIMEOUT_PART: u32 = 32;

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) prefetch: Prefetch,
    /// Messages delivered and not settled.
    pub(super) outstanding: u32,
    /// The part of `outstanding` that is acked.
    pub(super) acked: u32,
    /// Whether it was silent while it held a lease: other consumers come first.
    pub(super) suspect: bool,
    /// Whether it is queued in its lane's turns.
    pub(super) enlisted: bool,
    /// The highest tag that it has let lapse.
    pub(super) lapsed_tag: u64,
    /// The longest time that an answer has taken lately.
    slowest: Option<Duration>,
    /// When it last answered, or when its last answer was confirmed.
    answered: Option<Instant>,
    probation: Option<Probation>,
}

#[derive(Debug)]
struct Probation {
    redelivery_timeout: Duration,
    /// Stalls since the last answer.
    stalls: u32,
    /// Credit beside the prefetch, in messages.
    extra: u32,
    /// The highest tag that it has answered.
    answered_tag: u64,
    /// The last tag in the output when the answer's confirmation was written: what is between the
    /// two may have met a client that waited for the confirmation, and discarded it.
    written_tag: u64,
    /// Whether it has answered an exposed message: it discards nothing.
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
            lapsed_tag: 0,
            slowest: None,
            answered: None,
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

    /// Returns how long it may answer nothing; `None` if it is not on probation.
    fn patience(&self) -> Option<Duration> {
        let timeout = self.probation.as_ref()?.redelivery_timeout;
        let part = timeout / TIMEOUT_PART;
        let patience = self.slowest.map_or(part, |slowest| {
            let slow = slowest.saturating_add(part);
            slowest.saturating_mul(PATIENCE_FACTOR).min(slow)
        });
        Some(patience.max(SHORTEST_PATIENCE).min(timeout))
    }

    /// Returns when a message delivered at `since` lapses; `None` if it is not on probation.
    pub(super) fn lapses_at(&self, since: Instant) -> Option<Instant> {
        Some(self.busy_since(since) + self.patience()?)
    }

    /// Returns since when it can have been busy with a message delivered at `since`: an answer to
    /// another one shows that it was busy with that one before.
    fn busy_since(&self, since: Instant) -> Instant {
        self.answered.map_or(since, |answered| answered.max(since))
    }

    /// Notes the answer to the message with this tag, in time or after its lease has lapsed.
    pub(super) fn answer(&mut self, since: Instant, delivery_tag: u64, now: Instant) {
        let took = now.saturating_duration_since(self.busy_since(since));
        // Decays, so that one bad moment does not count forever.
        let slowest = self.slowest.unwrap_or_default();
        self.slowest = Some(took.max(slowest - slowest / 8));
        self.answered = Some(now);
        if let Some(probation) = &mut self.probation {
            probation.stalls = 0;
            probation.takes_all |= probation.is_exposed(delivery_tag);
            probation.answered_tag = probation.answered_tag.max(delivery_tag);
            if !probation.takes_all {
                probation.extra = 0;
                probation.written_tag = probation.answered_tag;
            }
        }
    }

    /// Notes that confirmations are in the output, behind everything up to `last_delivery_tag`.
    /// Returns the highest tag that it has answered, if it is on probation: lapses of
    /// messages that it got later do not count.
    pub(super) fn confirmed(&mut self, last_delivery_tag: u64, now: Instant) -> Option<u64> {
        let probation = self.probation.as_mut()?;
        self.answered = Some(now);
        probation.written_tag = last_delivery_tag;
        Some(probation.answered_tag)
    }

    /// Whether it may have discarded the message with this tag.
    pub(super) fn may_have_missed(&self, delivery_tag: u64) -> bool {
        self.probation
            .as_ref()
            .is_some_and(|probation| !probation.takes_all && probation.is_exposed(delivery_tag))
    }

    /// Notes that it has stalled: messages of it have lapsed. With `may_grow` it may get more at a
    /// time.
    pub(super) fn stalled(&mut self, redelivery_timeout: Duration, may_grow: bool) {
        let prefetch = self.prefetch.unacked;
        let probation = self.probation.get_or_insert(Probation {
            redelivery_timeout,
            stalls: 0,
            extra: 0,
            answered_tag: 0,
            written_tag: 0,
            takes_all: false,
        });
        probation.stalls += 1;
        if !may_grow {
            probation.extra = 0;
        } else if probation.stalls > 1 {
            let more = probation.extra.saturating_add(prefetch);
            probation.extra = more.saturating_mul(GROWTH).min(MOST_EXTRA);
        }
    }

    pub(super) fn is_on_probation(&self) -> bool {
        self.probation.is_some()
    }

    pub(super) fn end_probation(&mut self) {
        self.probation = None;
    }
}

impl Probation {
    fn is_exposed(&self, delivery_tag: u64) -> bool {
        self.answered_tag < delivery_tag && delivery_tag <= self.written_tag
    }
}
