//! Events that clients, or addresses without a certificate, can cause without limit.
//!
//! The first of a source is logged at once, and so is the first for each further reason. The others
//! are counted, and logged in one line when ten seconds are over. The memory for this is bounded:
//! by the number of sources, and of reasons for each.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// How long events are counted before they are logged.
const PERIOD: Duration = Duration::from_secs(10);
/// The most sources that are counted apart from the others.
const SOURCES: usize = 1024;
/// The most reasons of a source that are counted apart from its others.
const REASONS: usize = 8;
/// The source and the reason of what exceeds these numbers.
const OTHER_SOURCES: &str = "other sources";
const OTHER_REASONS: &str = "other reasons";
/// The longest part of a reason that is kept.
const REASON_BYTES: usize = 200;

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A TLS handshake failed.
    HandshakeFailed,
    /// A certificate named no client.
    NamesNoClient,
    /// A connection exceeded a limit.
    ConnectionRefused,
    /// A connection was ended because of what the client sent, or did not read.
    ConnectionEnded,
    /// A consumer took over from an older connection.
    TookOver,
    /// A command could not read from the database.
    DatabaseRead,
    /// A stored key could not be used.
    KeyUnusable,
    /// A client registered a key.
    KeyRegistered,
    /// A receiver rejected a message.
    Rejected,
    /// The rules refused a command or a message.
    NotAuthorized,
    /// A client has reached a quota, or publishes too fast.
    QuotaReached,
}

/// The events of each source in the current period.
///
/// It is cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Repeated(Arc<Mutex<HashMap<(Event, String), Counts>>>);

#[derive(Debug)]
struct Counts {
    since: Instant,
    reasons: Vec<(String, u64)>,
}

/// The events of one source that were not logged one by one.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    event: Event,
    source: String,
    count: u64,
    seconds: u64,
    reasons: String,
}

impl Repeated {
    /// Records an event. Returns whether it is to be logged now; otherwise it is counted.
    #[must_use]
    pub fn is_first(&self, event: Event, source: &str, reason: &str) -> bool {
        self.is_first_of(event, source, reason, 1)
    }

    /// Records `count` events, like [`Repeated::is_first`]: if the first of them is to be logged
    /// now, the others are counted.
    #[must_use]
    pub fn is_first_of(&self, event: Event, source: &str, reason: &str, count: u64) -> bool {
        self.is_first_at(event, source, (reason, count), Instant::now())
    }

    fn is_first_at(
        &self,
        event: Event,
        source: &str,
        (reason, count): (&str, u64),
        now: Instant,
    ) -> bool {
        let mut sources = self.0.lock();
        let mut key = (event, source.to_owned());
        if sources.len() >= SOURCES && !sources.contains_key(&key) {
            OTHER_SOURCES.clone_into(&mut key.1);
        }
        let counts = sources.entry(key).or_insert_with(|| Counts {
            since: now,
            reasons: Vec::new(),
        });
        counts.is_first(reason, count)
    }

    /// Logs what was counted, every ten seconds, forever: spawn it as a task.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for summary in self.due(Instant::now(), PERIOD) {
                summary.log();
            }
        }
    }

    /// Logs what was counted up to now.
    pub fn log_all(&self) {
        for summary in self.due(Instant::now(), Duration::ZERO) {
            summary.log();
        }
    }

    /// Takes the counts of periods that are at least this long. A source without events is
    /// forgotten.
    fn due(&self, now: Instant, period: Duration) -> Vec<Summary> {
        let mut due = Vec::new();
        self.0.lock().retain(|(event, source), counts| {
            let passed = now.saturating_duration_since(counts.since);
            if passed < period {
                return true;
            }
            let summary = counts.take(*event, source, passed);
            counts.since = now;
            let goes_on = summary.is_some();
            due.extend(summary);
            goes_on
        });
        due
    }
}

impl Counts {
    fn is_first(&mut self, reason: &str, more: u64) -> bool {
        let reason = reason
            .get(..reason.floor_char_boundary(REASON_BYTES))
            .unwrap_or_default();
        let known = |(known, _): &&mut (String, u64)| known == reason;
        if let Some((_, count)) = self.reasons.iter_mut().find(known) {
            *count += more;
            return false;
        }
        if self.reasons.len() < REASONS {
            self.reasons
                .push((reason.to_owned(), more.saturating_sub(1)));
            return true;
        }
        match self.reasons.get_mut(REASONS) {
            Some((_, count)) => *count += more,
            None => self.reasons.push((OTHER_REASONS.to_owned(), more)),
        }
        false
    }

    /// Takes what was counted; `None` if that is nothing.
    fn take(&mut self, event: Event, source: &str, passed: Duration) -> Option<Summary> {
        let mut reasons = String::new();
        let mut total = 0;
        for (reason, count) in &mut self.reasons {
            if *count > 0 {
                let separator = if reasons.is_empty() { "" } else { "; " };
                // Writing into a String does not fail.
                let _ = write!(reasons, "{separator}{reason} ({count})");
                total += std::mem::take(count);
            }
        }
        (total > 0).then(|| Summary {
            event,
            source: source.to_owned(),
            count: total,
            seconds: passed.as_secs().max(1),
            reasons,
        })
    }
}

/// Logs the summary of an event, at the level of its single lines.
macro_rules! log {
    ($level:ident, $text:literal, $summary:expr) => {{
        let Summary {
            source,
            count,
            seconds,
            reasons,
            ..
        } = $summary;
        tracing::$level!(
            source,
            count,
            reasons,
            concat!($text, ": {} more of {} in {} s"),
            count,
            source,
            seconds
        );
    }};
}

impl Summary {
    fn log(&self) {
        match self.event {
            Event::HandshakeFailed => log!(error, "TLS handshake failed", self),
            Event::NamesNoClient => {
                log!(
                    error,
                    "Connection closed, the certificate names no client",
                    self
                );
            }
            Event::ConnectionRefused => log!(warn, "Connection refused", self),
            Event::ConnectionEnded => log!(warn, "Connection ended", self),
            Event::TookOver => log!(info, "Consumer has reconnected", self),
            Event::DatabaseRead => log!(error, "Cannot read from the database", self),
            Event::KeyUnusable => log!(error, "Cannot use a stored key", self),
            Event::KeyRegistered => log!(info, "Key registered", self),
            Event::Rejected => log!(warn, "Message is rejected by its receiver", self),
            Event::NotAuthorized => log!(warn, "Refused", self),
            Event::QuotaReached => log!(warn, "Quota of a client is reached", self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: Event = Event::HandshakeFailed;

    #[test]
    fn the_first_is_logged_and_the_others_are_counted() {
        let repeated = Repeated::default();
        let start = Instant::now();
        assert!(repeated.is_first_at(EVENT, "a", ("no TLS", 1), start));
        for _ in 0..300 {
            assert!(!repeated.is_first_at(EVENT, "a", ("no TLS", 1), start));
        }
        assert!(repeated.is_first_at(EVENT, "a", ("too slow", 1), start));
        assert!(!repeated.is_first_at(EVENT, "a", ("too slow", 1), start));
        assert!(repeated.is_first_at(EVENT, "b", ("no TLS", 1), start));
        assert!(repeated.is_first_at(Event::TookOver, "a", ("", 1), start));
        let before = start + PERIOD - Duration::from_millis(1);
        assert_eq!(repeated.due(before, PERIOD), []);
        let summary = |count, reasons: &str| Summary {
            event: EVENT,
            source: "a".to_owned(),
            count,
            seconds: 10,
            reasons: reasons.to_owned(),
        };
        let due = repeated.due(start + PERIOD, PERIOD);
        assert_eq!(due, [summary(301, "no TLS (300); too slow (1)")]);
        // Of several at once, the first is logged, and the others are counted.
        assert!(repeated.is_first_at(EVENT, "c", ("no TLS", 5), start));
        assert!(!repeated.is_first_at(EVENT, "c", ("no TLS", 2), start));
        let due = repeated.due(start + PERIOD, PERIOD);
        assert_eq!(
            due.iter().map(|summary| summary.count).collect::<Vec<_>>(),
            [6]
        );
        // It goes on, and is still only counted.
        assert!(!repeated.is_first_at(EVENT, "a", ("no TLS", 1), start + PERIOD));
        let due = repeated.due(start + 2 * PERIOD, PERIOD);
        assert_eq!(due, [summary(1, "no TLS (1)")]);
        // After a quiet period everything is forgotten.
        assert_eq!(repeated.due(start + 3 * PERIOD, PERIOD), []);
        assert!(repeated.0.lock().is_empty());
    }

    #[test]
    fn memory_is_bounded_and_nothing_goes_uncounted() {
        let repeated = Repeated::default();
        let now = Instant::now();
        let long = "\u{e4}".repeat(1000);
        let mut logged = 0;
        for source in 0..2 * SOURCES {
            for reason in 0..2 * REASONS {
                let (source, reason) = (source.to_string(), format!("{reason}{long}"));
                logged += u64::from(repeated.is_first_at(EVENT, &source, (&reason, 1), now));
            }
        }
        let sources = repeated.0.lock();
        assert_eq!(sources.len(), SOURCES + 1);
        for counts in sources.values() {
            assert!(counts.reasons.len() <= REASONS + 1);
            let longest = counts.reasons.iter().map(|(reason, _)| reason.len()).max();
            assert!(longest <= Some(REASON_BYTES));
        }
        drop(sources);
        let counted: u64 = repeated
            .due(now + PERIOD, PERIOD)
            .iter()
            .map(|summary| summary.count)
            .sum();
        assert_eq!(counted + logged, (4 * SOURCES * REASONS) as u64);
    }
}
