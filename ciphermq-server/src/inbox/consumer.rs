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
//! - From its second stall on, the consumer gets more messages at a time, four times as many with
//!   each stall. If its next answer is to a message that it got before these, it was only busy, and
//!   gets as many as before.
//! - An answer shows that the consumer was busy until now. What it got after the message that it
//!   answers has not been judged: those lapses do not count, and the messages are leased again.
//! - The oldest clients discard every line between their ack and its confirmation. What a consumer
//!   got in that time is *exposed*. As long as it is not known what it does with such messages, it
//!   gets one at a time after each answer, and an exposed message that is unanswered for one more
//!   patience goes back to the head of its lane, in order.
//! - A consumer that answers an exposed message discards nothing ([`Reading::All`]).
//! - A consumer that answers such a message only when it comes again discards what is exposed
//!   ([`Reading::UntilAck`]). Exposed messages then go back to the head with each confirmation, and
//!   an answer ends the leases of those that came before: it has read them, and did not answer.
//!   It gets as many at a time as it has passed over lately, and one more.
//!
//! A client that sends `ping` keeps its leases, and is not on probation.

use std::time::{Duration, Instant};

use super::Prefetch;

/// How many times the time of an answer the patience is, for consumers that are fast.
const PATIENCE_FACTOR: u32 = 8;
/// The shortest patience: networks and schedulers take that long at times.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(10);
/// The factor by which the extra credit grows with each stall but the first.
const GROWTH: u32 = 4;
/// The most extra credit, in messages.
const MOST_EXTRA: u32 = 256;
/// The most messages of its prefetch that a consumer gets at a time that discards exposed messages:
/// all but the first that it answers come again.
const MOST_EXPOSED: u32 = 16;
/// The number of answers for which such a consumer keeps its extra credit.
const KEPT_ANSWERS: u32 = 16;
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
    lapsed_tag: u64,
    /// The first tags that it has let lapse since its last answer, at most [`MOST_EXTRA`]: it may
    /// never answer.
    lapsed_tags: Vec<u64>,
    /// The longest time that an answer has taken lately.
    slowest: Option<Duration>,
    /// When it last answered, or when its last answer was confirmed.
    answered: Option<Instant>,
    probation: Option<Probation>,
}

#[derive(Debug)]
struct Probation {
    redelivery_timeout: Duration,
    /// Stalls so far.
    stalls: u32,
    /// Credit beside the prefetch, in messages.
    extra: u32,
    /// The extra credit after its last answer. What stalls have added to it since is lost if the
    /// next answer shows that it was busy.
    kept_extra: u32,
    /// The number of answers since it passed over as many messages as `kept_extra`.
    answers_since: u32,
    /// The highest tag that it has answered.
    answered_tag: u64,
    /// The last tag in the output when the answer's confirmation was written: what is between the
    /// two may have met a client that waited for the confirmation, and discarded it.
    written_tag: u64,
    reading: Reading,
}

/// What a consumer does with messages that come between its ack and the confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Unknown,
    /// It reads all, and answers those that it can open.
    All,
    /// It discards them.
    UntilAck,
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
            lapsed_tags: Vec::new(),
            slowest: None,
            answered: None,
            probation: None,
        }
    }

    pub(super) fn has_credit(&self) -> bool {
        let Prefetch {
            mut unacked,
            mut unconfirmed,
        } = self.prefetch;
        if let Some(probation) = &self.probation {
            if probation.reading == Reading::UntilAck {
                unacked = unacked.min(MOST_EXPOSED);
                unconfirmed = unconfirmed.min(MOST_EXPOSED);
            }
            unacked = unacked.saturating_add(probation.extra);
            unconfirmed = unconfirmed.saturating_add(probation.extra);
        }
        self.outstanding - self.acked < unacked && self.outstanding < unconfirmed
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

    /// Notes an answer, in time or after its lease has lapsed.
    pub(super) fn answer(&mut self, answer: &ConsumerAnswer, now: Instant) {
        let took = now.saturating_duration_since(self.busy_since(answer.since));
        // Decays, so that one bad moment does not count for long.
        let slowest = self.slowest.unwrap_or_default();
        self.slowest = Some(took.max(slowest / 2));
        self.answered = Some(now);
        // It has read these, and not those that it got later: then it was busy, and did not stall.
        let lapsed = self.lapsed_tags.drain(..);
        let passed_over = lapsed.filter(|tag| *tag < answer.delivery_tag).count();
        let passed_over = u32::try_from(passed_over).unwrap_or(u32::MAX);
        let Some(probation) = &mut self.probation else {
            return;
        };
        if probation.reading == Reading::Unknown {
            if probation.is_exposed(answer.delivery_tag) {
                probation.reading = Reading::All;
            } else if answer.was_missed {
                probation.reading = Reading::UntilAck;
            }
        }
        probation.answered_tag = probation.answered_tag.max(answer.delivery_tag);
        match probation.reading {
            Reading::Unknown => probation.extra = 0,
            Reading::UntilAck => probation.passed_over(passed_over),
            Reading::All if passed_over > 0 => {
                probation.kept_extra = probation.extra;
                return;
            }
            Reading::All => {
                probation.extra = probation.kept_extra;
                return;
            }
        }
        probation.written_tag = probation.answered_tag;
    }

    /// Notes that confirmations are in the output, behind everything up to `last_delivery_tag`. On
    /// probation, lapses of messages that it got after the `answered_tag` do not count.
    pub(super) fn confirmed(&mut self, answered_tag: u64, last_delivery_tag: u64, now: Instant) {
        if let Some(probation) = &mut self.probation {
            self.answered = Some(now);
            probation.answered_tag = answered_tag;
            probation.written_tag = last_delivery_tag;
        }
    }

    /// Returns the highest tag that it has answered on probation.
    pub(super) fn answered_tag(&self) -> Option<u64> {
        Some(self.probation.as_ref()?.answered_tag)
    }

    /// Whether it may have discarded the message with this tag.
    pub(super) fn may_have_missed(&self, delivery_tag: u64) -> bool {
        self.probation.as_ref().is_some_and(|probation| {
            probation.reading != Reading::All && probation.is_exposed(delivery_tag)
        })
    }

    /// Whether it is known to discard what comes between its ack and the confirmation.
    pub(super) fn reads_until_ack(&self) -> bool {
        self.probation
            .as_ref()
            .is_some_and(|probation| probation.reading == Reading::UntilAck)
    }

    /// Notes that it has let the message with this tag lapse.
    pub(super) fn lapsed(&mut self, delivery_tag: u64) {
        self.lapsed_tag = self.lapsed_tag.max(delivery_tag);
        if self.lapsed_tags.len() < MOST_EXTRA as usize {
            self.lapsed_tags.push(delivery_tag);
        }
    }

    #[cfg(test)]
    pub(super) fn remembered_lapses(&self) -> usize {
        self.lapsed_tags.len()
    }

    /// Whether it has let a message lapse that it got after the delivery with this tag.
    pub(super) fn has_lapsed_after(&self, delivery_tag: u64) -> bool {
        self.lapsed_tag > delivery_tag
    }

    /// Notes that it has stalled: messages of it have lapsed. With `may_grow` it may get more at a
    /// time.
    pub(super) fn stalled(&mut self, redelivery_timeout: Duration, may_grow: bool) {
        let prefetch = self.prefetch.unacked;
        let probation = self.probation.get_or_insert(Probation {
            redelivery_timeout,
            stalls: 0,
            extra: 0,
            kept_extra: 0,
            answers_since: 0,
            answered_tag: 0,
            written_tag: 0,
            reading: Reading::Unknown,
        });
        probation.stalls = probation.stalls.saturating_add(1);
        if !may_grow {
            probation.extra = 0;
        } else if probation.stalls > 1 {
            // The first one may be the only one.
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

/// An answer of a consumer to a message.
#[derive(Debug)]
pub(super) struct ConsumerAnswer {
    /// When the message was delivered.
    pub(super) since: Instant,
    pub(super) delivery_tag: u64,
    /// Whether the message had been exposed and unanswered before, and came again.
    pub(super) was_missed: bool,
}

impl Probation {
    /// Notes how many messages it has passed over before an answer, and sets its extra credit to
    /// the most lately: too little costs a patience, too much a second delivery of each message.
    fn passed_over(&mut self, messages: u32) {
        self.answers_since += 1;
        let most = self.kept_extra;
        let kept = if most > MOST_EXPOSED {
            most - most / 4
        } else if self.answers_since > KEPT_ANSWERS {
            most / 2
        } else {
            most
        };
        if messages >= most || kept < most {
            self.answers_since = 0;
        }
        self.kept_extra = messages.max(kept).clamp(1, MOST_EXTRA);
        self.extra = self.kept_extra;
    }

    fn is_exposed(&self, delivery_tag: u64) -> bool {
        self.answered_tag < delivery_tag && delivery_tag <= self.written_tag
    }
}
