//! Looks for changed certificate files, and warns before certificates end.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ciphermq_certificates::Nearness;
use jiff::Timestamp;

use super::current::CurrentCredentials;
use super::load::Credentials;
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
        warned.look(&current.get(), Timestamp::now());
    }
    loop {
        let pause = {
            let Some(current) = watched.upgrade() else {
                return;
            };
            let now = Timestamp::now();
            let credentials = current.get();
            for notice in warned.look(&credentials, now) {
                current.notify(notice);
            }
            pause(&credentials, now)
        };
        tokio::time::sleep(pause).await;
        let Some(current) = watched.upgrade() else {
            return;
        };
        current.reload_or_report().await;
    }
}

/// Returns the time until the next look: often enough for certificates that live for seconds.
fn pause(credentials: &Credentials, now: Timestamp) -> Duration {
    let ends = credentials.ends.iter().map(|end| end.validity.not_after);
    let left = ends.filter(|end| *end > now).min();
    left.map_or(LONGEST, |end| {
        let left = end.duration_since(now).unsigned_abs();
        (left / 20).clamp(SHORTEST, LONGEST)
    })
}

/// How near the ends were of which was warned last.
#[derive(Default)]
struct Warned {
    credentials: Weak<Credentials>,
    nearness: Vec<Nearness>,
}

impl Warned {
    /// Warns of certificates whose ends have come nearer; returns the notices.
    fn look(&mut self, credentials: &Arc<Credentials>, now: Timestamp) -> Vec<Event> {
        if self.credentials.as_ptr() != Arc::as_ptr(credentials) {
            self.credentials = Arc::downgrade(credentials);
            self.nearness = vec![Nearness::Far; credentials.ends.len()];
        }
        let mut notices = Vec::new();
        for (end, warned) in credentials.ends.iter().zip(&mut self.nearness) {
            let nearness = end.nearness(now);
            if nearness == *warned {
                continue;
            }
            *warned = nearness;
            if let Some(trouble) = end.trouble(now) {
                tracing::warn!(advice = end.advice(), "{trouble}");
                notices.push(Event::CertificateEnds { end: end.clone() });
            }
        }
        notices
    }
}
