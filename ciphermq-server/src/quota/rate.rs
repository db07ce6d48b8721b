//! How fast a client publishes.

use std::time::Duration;

use crate::config::ClientLimits;

/// The shortest pause: a client does not come back for a few messages.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// A token bucket, by the time at which it will be full again.
///
/// A line is let through as long as the bucket is not in debt, and may bring it into debt: so a
/// line larger than the bucket is not refused for ever, and is paid for by waiting afterwards.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// What is added in a second; 0 means no limit.
    rate: u64,
    /// The time in which an empty bucket is filled.
    burst: Duration,
    full_at: Duration,
}

impl Bucket {
    /// Returns how long it is in debt from now on.
    fn debt(&self, now: Duration) -> Duration {
        self.full_at.saturating_sub(now.saturating_add(self.burst))
    }

    /// Takes an amount.
    fn take(&mut self, now: Duration, amount: u64) {
        if self.rate == 0 {
            return;
        }
        let nanoseconds = u128::from(amount) * 1_000_000_000 / u128::from(self.rate);
        let time = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.full_at = self.full_at.max(now).saturating_add(time);
    }

    /// Goes on with another rate and burst.
    fn limit(&mut self, now: Duration, rate: u64, burst: Duration) {
        let owed = self.full_at.saturating_sub(now).as_nanos();
        // Without a limit nothing is owed.
        let owed = (owed * u128::from(self.rate)).checked_div(u128::from(rate));
        let owed = u64::try_from(owed.unwrap_or_default()).unwrap_or(u64::MAX);
        self.full_at = now.saturating_add(Duration::from_nanos(owed));
        (self.rate, self.burst) = (rate, burst);
    }

    /// Returns the used part of the burst, as a part of the rate.
    fn used(&self, now: Duration) -> u64 {
        let owed = self.full_at.saturating_sub(now).as_nanos();
        let burst = self.burst.as_nanos().max(1);
        u64::try_from(u128::from(self.rate) * owed / burst).unwrap_or(u64::MAX)
    }
}

/// The publishing of one client, over all its connections. Times are measured from any point that
/// does not change.
#[derive(Debug)]
pub struct PublishRate {
    messages: Bucket,
    bytes: Bucket,
    /// The last refusal, and the end of its pause.
    refused: Option<(TooFast, Duration)>,
}

/// The refusal of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFast {
    /// The limit's name.
    pub limit: &'static str,
    /// Its value.
    pub value: u64,
    /// The time after which the line is let through.
    pub pause: Duration,
}

impl PublishRate {
    /// Creates the state of a client that has not published yet.
    #[must_use]
    pub fn new(limits: &ClientLimits) -> Self {
        let bucket = |rate| Bucket {
            rate,
            burst: limits.publish_burst,
            full_at: Duration::ZERO,
        };
        Self {
            messages: bucket(limits.publish_messages_per_second),
            bytes: bucket(limits.publish_bytes_per_second),
            refused: None,
        }
    }

    /// Goes on with other limits. What the client owes stays the same amount, and takes as long as
    /// it takes by the new rate.
    pub fn limit(&mut self, now: Duration, limits: &ClientLimits) {
        let burst = limits.publish_burst;
        self.messages
            .limit(now, limits.publish_messages_per_second, burst);
        self.bytes
            .limit(now, limits.publish_bytes_per_second, burst);
        self.refused = None;
    }

    /// Lets a line through, and takes what it holds from the buckets.
    ///
    /// What the client has sent before it reads of a pause is refused, too: it would overtake what
    /// was refused first.
    ///
    /// # Errors
    ///
    /// [`TooFast`] if one of them is in debt, or during the pause after that. Nothing is taken.
    pub fn admit(&mut self, now: Duration, messages: u64, bytes: u64) -> Result<(), TooFast> {
        self.refused.take_if(|(_, until)| *until <= now);
        if let Some((refused, until)) = self.refused {
            return Err(TooFast {
                pause: until - now,
                ..refused
            });
        }
        let buckets = [
            ("publish_messages_per_second", &self.messages),
            ("publish_bytes_per_second", &self.bytes),
        ];
        let worst = buckets
            .into_iter()
            .max_by_key(|(_, bucket)| bucket.debt(now));
        if let Some((limit, bucket)) = worst
            && !bucket.debt(now).is_zero()
        {
            let refused = TooFast {
                limit,
                value: bucket.rate,
                pause: bucket.debt(now).max(SHORTEST_PAUSE),
            };
            self.refused = Some((refused, now.saturating_add(refused.pause)));
            return Err(refused);
        }
        self.messages.take(now, messages);
        self.bytes.take(now, bytes);
        Ok(())
    }

    /// Returns the used parts of the burst in messages and bytes, each as a part of its rate: 0 if
    /// the client may send a whole burst, the rate if it has sent one, more if it owes something.
    #[must_use]
    pub fn used(&self, now: Duration) -> (u64, u64) {
        (self.messages.used(now), self.bytes.used(now))
    }

    /// Returns whether nothing is known of the client that a new state would not know.
    #[must_use]
    pub fn is_full(&self, now: Duration) -> bool {
        let is_paused = self.refused.is_some_and(|(_, until)| until > now);
        self.messages.full_at <= now && self.bytes.full_at <= now && !is_paused
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(messages: u64, bytes: u64, burst: u64) -> ClientLimits {
        ClientLimits {
            publish_messages_per_second: messages,
            publish_bytes_per_second: bytes,
            publish_burst: Duration::from_millis(burst),
            ..ClientLimits::default()
        }
    }

    #[test]
    fn the_used_part_of_the_burst_falls_with_time() {
        let mut rate = PublishRate::new(&limits(10, 1000, 2000));
        let at = Duration::from_secs;
        assert_eq!(rate.used(at(5)), (0, 0));
        rate.admit(at(5), 20, 500).unwrap();
        assert_eq!(rate.used(at(5)), (10, 250));
        assert_eq!(rate.used(at(6)), (5, 0));
        assert_eq!(rate.used(at(8)), (0, 0));
        rate.admit(at(8), 40, u64::MAX).unwrap();
        assert_eq!(rate.used(at(8)).0, 20);
    }

    #[test]
    fn a_line_larger_than_the_bucket_is_paid_for_afterwards() {
        let mut rate = PublishRate::new(&limits(10, 0, 1000));
        let at = Duration::from_secs;
        rate.admit(at(5), 50, 1 << 40).unwrap();
        let refused = rate.admit(at(5), 1, 0).unwrap_err();
        assert_eq!(refused.limit, "publish_messages_per_second");
        assert_eq!((refused.value, refused.pause), (10, at(4)));
        assert!(rate.admit(at(8), 1, 0).is_err());
        rate.admit(at(9), 1, 0).unwrap();
        assert!(!rate.is_full(at(10)));
        assert!(rate.is_full(at(11)));
    }

    #[test]
    fn zero_is_no_limit() {
        let mut unlimited = PublishRate::new(&limits(0, 0, 1000));
        unlimited.admit(Duration::ZERO, u64::MAX, u64::MAX).unwrap();
        unlimited.admit(Duration::ZERO, 1, 1).unwrap();
        assert!(unlimited.is_full(Duration::ZERO));
        let mut rate = PublishRate::new(&limits(0, 100, 1000));
        for _ in 0..1000 {
            rate.admit(Duration::ZERO, u64::MAX, 0).unwrap();
        }
        rate.admit(Duration::ZERO, 0, 101).unwrap();
        let refused = rate.admit(Duration::ZERO, 0, 0).unwrap_err();
        assert_eq!(refused.limit, "publish_bytes_per_second");
    }

    #[test]
    fn what_is_owed_is_paid_by_the_new_rate() {
        let mut rate = PublishRate::new(&limits(0, 0, 1000));
        let at = Duration::from_secs;
        rate.admit(at(5), 1 << 40, 0).unwrap();
        // Nothing is owed of the time without a limit.
        rate.limit(at(5), &limits(10, 0, 1000));
        rate.admit(at(5), 50, 0).unwrap();
        assert_eq!(rate.admit(at(5), 1, 0).unwrap_err().pause, at(4));
        rate.limit(at(5), &limits(20, 0, 1000));
        let refused = rate.admit(at(5), 1, 0).unwrap_err();
        assert_eq!(refused.value, 20);
        assert_eq!(refused.pause, Duration::from_millis(1500));
        rate.limit(at(5), &limits(0, 0, 1000));
        rate.admit(at(5), 1, 0).unwrap();
        assert!(rate.is_full(at(5)));
    }

    proptest! {
        /// Whatever is sent when, no more gets through than the bucket, what was added to it, and
        /// one line; and a line that waits as told is let through.
        #[test]
        fn the_rate_holds_and_the_pause_is_true(
            lines in prop::collection::vec((0u64..3_000, 0u64..500), 1..200),
            rate in 1u64..1000, burst in 100u64..5_000
        ) {
            let mut bucket = PublishRate::new(&limits(rate, 0, burst));
            let (mut now, mut sent, mut largest) = (0, 0, 0);
            for (pause, messages) in lines {
                now += pause;
                let at = Duration::from_millis(now);
                largest = largest.max(messages);
                match bucket.admit(at, messages, 0) {
                    Ok(()) => sent += messages,
                    Err(refused) => {
                        prop_assert!(!refused.pause.is_zero());
                        let early = at + refused.pause - Duration::from_nanos(1);
                        prop_assert!(bucket.admit(early, messages, 0).is_err());
                        let mut other = PublishRate { ..bucket };
                        prop_assert!(other.admit(at + refused.pause, messages, 0).is_ok());
                    }
                }
                prop_assert!(sent * 1000 <= rate * (burst + now) + largest * 1000 + 1000);
            }
        }
    }
}
