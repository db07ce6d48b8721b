//! How near the end of a certificate is, for warnings before it comes.

use jiff::{SignedDuration, Timestamp};

use crate::Validity;

/// How near a certificate's end is. Later stages are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// More time is left than the other stages say.
    Far,
    /// Within 14 days, or a third of its lifetime if that is less.
    Near,
    /// Within a day, or a tenth of its lifetime if that is less.
    VeryNear,
    /// The certificate has ended, or is not valid yet.
    Invalid,
}

impl Nearness {
    /// Returns how near the end is at the time `now`.
    #[must_use]
    pub fn of(validity: &Validity, now: Timestamp) -> Self {
        let left = validity.not_after.duration_since(now);
        let lifetime = validity.not_after.duration_since(validity.not_before);
        if validity.error_at(now).is_some() {
            Self::Invalid
        } else if left <= SignedDuration::from_hours(24).min(lifetime / 10) {
            Self::VeryNear
        } else if left <= SignedDuration::from_hours(14 * 24).min(lifetime / 3) {
            Self::Near
        } else {
            Self::Far
        }
    }
}

impl Validity {
    /// Returns what there is to say about the end at the time `now`, to continue "the certificate";
    /// `None` while it is far.
    #[must_use]
    pub fn trouble(&self, now: Timestamp) -> Option<String> {
        match (Nearness::of(self, now), self.error_at(now)) {
            (Nearness::Far, _) => None,
            (_, Some(error)) => Some(error.to_string()),
            (_, None) => Some(format!("ends soon, at {}", self.not_after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_begin_14_days_and_a_day_before_the_end() {
        let end: Timestamp = "2026-06-30T12:00:00Z".parse().unwrap();
        let validity = Validity {
            subject: "CN=server".to_owned(),
            not_before: "2026-01-01T00:00:00Z".parse().unwrap(),
            not_after: end,
        };
        for (now, nearness) in [
            ("2025-12-31T23:59:59Z", Nearness::Invalid),
            ("2026-06-16T11:59:59Z", Nearness::Far),
            ("2026-06-16T12:00:00Z", Nearness::Near),
            ("2026-06-29T11:59:59Z", Nearness::Near),
            ("2026-06-29T12:00:00Z", Nearness::VeryNear),
            ("2026-06-30T12:00:00Z", Nearness::VeryNear),
            ("2026-06-30T12:00:01Z", Nearness::Invalid),
        ] {
            assert_eq!(
                Nearness::of(&validity, now.parse().unwrap()),
                nearness,
                "{now}"
            );
        }
        // One that is renewed each day says nothing as long as it is.
        let short = Validity {
            not_before: "2026-06-29T12:00:00Z".parse().unwrap(),
            ..validity
        };
        for (now, nearness) in [
            ("2026-06-30T03:59:59Z", Nearness::Far),
            ("2026-06-30T04:00:00Z", Nearness::Near),
            ("2026-06-30T09:36:00Z", Nearness::VeryNear),
        ] {
            assert_eq!(
                Nearness::of(&short, now.parse().unwrap()),
                nearness,
                "{now}"
            );
        }
    }
}
