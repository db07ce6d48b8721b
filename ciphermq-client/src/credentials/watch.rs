//! Looks for changed certificate files, and warns before certificates end.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ciphermq_certificates::Nearness;
use jiff::Timestamp;

use super::current::CurrentCredentials;
use super::end::CertificateEnd;
use crate::event::Event;

/// The longest and the shortest time between two looks at the files.
const LONGEST: Duration = Duration::from_secs(30);
const SHORTEST: Duration = Duration::from_millis(200);

/// Looks at the files from time to time, for as long as the credentials are used.
pub(crate) fn start(credentials: &Arc<CurrentCredentials>) {
    tokio::spawn(run(Arc::downgrade(credentials)));
}

async fn run(watched: Weak<CurrentCredentials>) {
    let mut warned = Warned::default();
    // At the start there is no listener yet: programs ask for what ends then.
    if let Some(current) = watched.upgrade() {
        warned.look(current.ends(), Timestamp::now());
    }
    loop {
        let pause = {
            let Some(current) = watched.upgrade() else {
                return;
            };
            let now = Timestamp::now();
            let ends = current.ends();
            let pause = pause(&ends, now);
            for notice in warned.look(ends, now) {
                current.notify(notice);
            }
            pause
        };
        tokio::time::sleep(pause).await;
        let Some(current) = watched.upgrade() else {
            return;
        };
        current.reload_or_report().await;
    }
}

/// Returns the time until the next look: often enough for certificates that live for seconds.
fn pause(ends: &[CertificateEnd], now: Timestamp) -> Duration {
    let ends = ends.iter().map(|end| end.validity.not_after);
    let left = ends.filter(|end| *end > now).min();
    left.map_or(LONGEST, |end| {
        let left = end.duration_since(now).unsigned_abs();
        (left / 20).clamp(SHORTEST, LONGEST)
    })
}

/// What ends, and how near the end was when it was looked at last.
#[derive(Default)]
struct Warned(Vec<(CertificateEnd, Nearness)>);

impl Warned {
    /// Warns of ends that have come nearer; returns the notices.
    fn look(&mut self, ends: Vec<CertificateEnd>, now: Timestamp) -> Vec<Event> {
        let mut notices = Vec::new();
        let looked = ends.into_iter().map(|end| {
            let nearness = end.nearness(now);
            let known = self.0.iter().find(|(known, _)| *known == end);
            let before = known.map_or(Nearness::Far, |(_, before)| *before);
            if let Some(trouble) = end.trouble(now).filter(|_| nearness != before) {
                tracing::warn!(advice = end.advice(), "{trouble}");
                notices.push(Event::CertificateEnds { end: end.clone() });
            }
            (end, nearness)
        });
        self.0 = looked.collect();
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::CertificateRole;
    use ciphermq_certificates::Validity;

    fn end(not_after: &str) -> CertificateEnd {
        CertificateEnd {
            role: CertificateRole::Own,
            validity: Validity {
                subject: "CN=me".to_owned(),
                not_before: "2026-01-01T00:00:00Z".parse().unwrap(),
                not_after: not_after.parse().unwrap(),
            },
        }
    }

    #[test]
    fn each_stage_is_told_once_and_anew_for_a_new_certificate() {
        let mut warned = Warned::default();
        let mut look =
            |end: CertificateEnd, now: &str| warned.look(vec![end], now.parse().unwrap()).len();
        let old = end("2026-12-31T00:00:00Z");
        assert_eq!(look(old.clone(), "2026-06-01T00:00:00Z"), 0);
        assert_eq!(look(old.clone(), "2026-12-20T00:00:00Z"), 1);
        assert_eq!(look(old.clone(), "2026-12-21T00:00:00Z"), 0);
        assert_eq!(look(old.clone(), "2026-12-30T12:00:00Z"), 1);
        assert_eq!(look(old.clone(), "2026-12-30T13:00:00Z"), 0);
        assert_eq!(look(old, "2026-12-31T00:00:01Z"), 1);
        assert_eq!(look(end("2027-12-31T00:00:00Z"), "2026-12-31T00:00:02Z"), 0);
        assert_eq!(look(end("2027-01-10T00:00:00Z"), "2027-01-01T00:00:00Z"), 1);
    }
}
