//! The period in which a certificate is valid.

use jiff::Timestamp;
use x509_parser::prelude::ASN1Time;

use crate::error::Error;

/// The seconds of an hour and of a day.
const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

/// The options for the lifetime of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct LifetimeArgs {
    /// How many days the certificate is valid, but no longer than its authority
    #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
    /// How many hours it is valid, instead of days
    #[arg(long, conflicts_with = "days", value_parser = clap::value_parser!(u16).range(1..=8760))]
    pub hours: Option<u16>,
}

impl From<LifetimeArgs> for Lifetime {
    fn from(args: LifetimeArgs) -> Self {
        match args.hours {
            Some(hours) => Self::Hours(hours),
            None => Self::Days(args.days),
        }
    }
}

/// How long a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// To the beginning of a day (UTC), and from the day before today on.
    Days(u16),
    /// To the second, and from an hour ago on.
    Hours(u16),
}

impl Lifetime {
    /// Returns the first and the last second of the lifetime. It begins earlier than `now`, for
    /// clocks that are behind.
    pub(crate) fn period(self, now: Timestamp) -> Result<(ASN1Time, ASN1Time), Error> {
        let now = now.as_second();
        let (from, until) = match self {
            Self::Days(days) => {
                let today = now - now.rem_euclid(DAY);
                (today - DAY, today + i64::from(days) * DAY)
            }
            Self::Hours(hours) => (now - HOUR, now + i64::from(hours) * HOUR),
        };
        Ok((asn1(from)?, asn1(until)?))
    }
}

/// Converts Unix seconds.
pub(crate) fn asn1(second: i64) -> Result<ASN1Time, Error> {
    ASN1Time::from_timestamp(second).map_err(|_| rcgen::Error::Time.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_end_at_midnight_and_hours_to_the_second() {
        let now: Timestamp = "2026-03-01T13:14:15.5Z".parse().unwrap();
        for (lifetime, from, until) in [
            (
                Lifetime::Days(1),
                "2026-02-28T00:00:00Z",
                "2026-03-02T00:00:00Z",
            ),
            (
                Lifetime::Days(31),
                "2026-02-28T00:00:00Z",
                "2026-04-01T00:00:00Z",
            ),
            (
                Lifetime::Hours(24),
                "2026-03-01T12:14:15Z",
                "2026-03-02T13:14:15Z",
            ),
        ] {
            let period = lifetime.period(now).unwrap();
            let second = |text: &str| text.parse::<Timestamp>().unwrap().as_second();
            let ends = (period.0.timestamp(), period.1.timestamp());
            assert_eq!(ends, (second(from), second(until)), "{lifetime:?}");
        }
    }
}
