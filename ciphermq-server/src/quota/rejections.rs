//! What receivers reject of one sender's messages, and whom that stops it from sending to.
//!
//! A receiver must not be able to stop a sender: once it has rejected a quarter of what may be
//! rejected of that sender's messages, only messages to this receiver are refused, and whatever it
//! rejects further counts for no more than this quarter.

use std::collections::HashMap;

use ciphermq_protocol::ClientId;

use super::Quota;
use crate::config::ClientLimits;
use crate::model::Amount;

/// The part of a limit that one receiver can use up.
const SHARE: u64 = 4;

/// What was rejected of one sender's messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rejections {
    /// By receiver; one without rejected messages has no entry.
    by_receiver: HashMap<ClientId, Amount>,
    /// The sum of what counts: of each receiver at most its share.
    counted: Amount,
    /// The receivers that have used up their share, each with the quota.
    exhausted: HashMap<ClientId, Quota>,
}

impl Rejections {
    /// Applies a change of what a receiver has rejected. The limits are those of the last
    /// [`limit`](Self::limit), if there was one.
    pub(super) fn apply(&mut self, receiver: &ClientId, change: Amount, limits: &ClientLimits) {
        let before = self.by_receiver.get(receiver).copied();
        let mut amount = before.unwrap_or_default();
        let counted_before = counted(amount, limits);
        amount += change;
        let counted = counted(amount, limits);
        self.counted.messages += counted.messages - counted_before.messages;
        self.counted.bytes += counted.bytes - counted_before.bytes;
        if amount == Amount::default() {
            self.by_receiver.remove(receiver);
        } else {
            self.by_receiver.insert(receiver.clone(), amount);
        }
        match reached(amount, limits, share) {
            Some(quota) => self.exhausted.insert(receiver.clone(), quota),
            None => self.exhausted.remove(receiver),
        };
    }

    /// Counts by other limits.
    pub(super) fn limit(&mut self, limits: &ClientLimits) {
        let by_receiver = std::mem::take(self).by_receiver;
        for (receiver, amount) in by_receiver {
            self.apply(&receiver, amount, limits);
        }
    }

    /// Returns the quota that all receivers together have used up.
    pub(super) fn reached(&self, limits: &ClientLimits) -> Option<Quota> {
        reached(self.counted, limits, |limit| limit)
    }

    /// Returns the receivers that have used up their share, each with the quota. If not all have
    /// together, these are fewer than four for each of the two quotas.
    pub(super) fn exhausted(&self) -> &HashMap<ClientId, Quota> {
        &self.exhausted
    }
}

/// Returns what one receiver can use up of a limit.
fn share(limit: u64) -> u64 {
    limit.div_ceil(SHARE)
}

/// Returns what counts of a receiver's amount. Of a limit that is 0, which means none, it does not
/// matter.
fn counted(amount: Amount, limits: &ClientLimits) -> Amount {
    let most = |limit| i64::try_from(share(limit)).unwrap_or(i64::MAX);
    Amount {
        messages: amount.messages.min(most(limits.rejected_messages)),
        bytes: amount.bytes.min(most(limits.rejected_bytes)),
    }
}

/// Returns the quota of which an amount has reached this part.
fn reached(amount: Amount, limits: &ClientLimits, part: impl Fn(u64) -> u64) -> Option<Quota> {
    let held = [
        (Quota::RejectedMessages, amount.messages),
        (Quota::RejectedBytes, amount.bytes),
    ];
    let is_reached = |(quota, held): &(Quota, i64)| {
        let limit = quota.limit(limits);
        limit > 0 && u64::try_from(*held).unwrap_or_default() >= part(limit)
    };
    held.into_iter().find(is_reached).map(|(quota, _)| quota)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(number: u8) -> ClientId {
        ClientId::new(&format!("c{number}")).unwrap()
    }

    fn limits(messages: u64, bytes: u64) -> ClientLimits {
        ClientLimits {
            rejected_messages: messages,
            rejected_bytes: bytes,
            ..ClientLimits::default()
        }
    }

    fn amount(messages: i64, bytes: i64) -> Amount {
        Amount { messages, bytes }
    }

    #[test]
    fn one_receiver_stops_messages_to_itself_only() {
        let limits = limits(10, 1000);
        let mut rejections = Rejections::default();
        rejections.apply(&client(1), amount(2, 20), &limits);
        assert!(rejections.exhausted().is_empty());
        // What waited when the share was used up may be rejected, too.
        rejections.apply(&client(1), amount(50, 5000), &limits);
        let quota = Quota::RejectedMessages;
        assert_eq!(rejections.exhausted(), &HashMap::from([(client(1), quota)]));
        assert_eq!(rejections.reached(&limits), None);
        for number in 2..=3 {
            rejections.apply(&client(number), amount(3, 0), &limits);
            assert_eq!(rejections.reached(&limits), None);
        }
        rejections.apply(&client(4), amount(1, 249), &limits);
        assert_eq!(rejections.reached(&limits), Some(quota));
        assert!(!rejections.exhausted().contains_key(&client(4)));
        rejections.apply(&client(1), amount(-50, -5000), &limits);
        assert_eq!(rejections.reached(&limits), None);
        assert_eq!(rejections.exhausted().len(), 2);
        rejections.apply(&client(4), amount(0, 1), &limits);
        let quota = rejections.exhausted().get(&client(4));
        assert_eq!(quota, Some(&Quota::RejectedBytes));
    }

    #[test]
    fn without_a_limit_nobody_stops_anything() {
        let limits = limits(0, 0);
        let mut rejections = Rejections::default();
        rejections.apply(&client(1), amount(1 << 40, 1 << 60), &limits);
        assert_eq!(rejections.reached(&limits), None);
        assert!(rejections.exhausted().is_empty());
    }

    proptest! {
        /// Whatever is rejected and removed, in whatever order: the state is that of the amounts.
        /// All messages are refused only if several receivers have rejected as much, and as long as
        /// they are not, few receivers have used up their shares.
        #[test]
        fn no_receiver_stops_a_sender_alone(
            messages in 0u64..20, bytes in 0u64..2000,
            changes in prop::collection::vec((0u8..8, 0i64..8, 0i64..500, any::<bool>()), 0..100)
        ) {
            let limits = limits(messages, bytes);
            let mut rejections = Rejections::default();
            let mut expected: HashMap<ClientId, Amount> = HashMap::new();
            for (number, messages, bytes, is_removed) in changes {
                let of = expected.entry(client(number)).or_default();
                let change = match is_removed {
                    false => amount(messages, bytes),
                    true => amount(-of.messages.min(messages), -of.bytes.min(bytes)),
                };
                *of += change;
                rejections.apply(&client(number), change, &limits);
            }
            expected.retain(|_, of| *of != Amount::default());
            let mut counted_again = Rejections::default();
            for (receiver, amount) in &expected {
                counted_again.apply(receiver, *amount, &limits);
            }
            prop_assert_eq!(&rejections, &counted_again);
            prop_assert_eq!(&rejections.by_receiver, &expected);

            let held = |of: &Amount, quota| match quota {
                Quota::RejectedMessages => of.messages,
                _ => of.bytes,
            };
            let each = [(Quota::RejectedMessages, messages), (Quota::RejectedBytes, bytes)];
            for (quota, limit) in each {
                let limit = i64::try_from(limit).unwrap();
                let shares = expected.values().map(|of| held(of, quota).min((limit + 3) / 4));
                let is_reached = limit > 0 && shares.sum::<i64>() >= limit;
                if is_reached {
                    prop_assert!(rejections.reached(&limits).is_some());
                    prop_assert!(limit == 1 || expected.len() > 1);
                }
                let exhausted = |of: &&Amount| limit > 0 && held(of, quota) * 4 >= limit;
                let exhausted = expected.values().filter(exhausted).count();
                prop_assert!(is_reached || exhausted < 4);
            }
            let exhausted = |of: &Amount| {
                let is = |held: i64, limit: u64| limit > 0 && held.cast_unsigned() * 4 >= limit;
                is(of.messages, messages) || is(of.bytes, bytes)
            };
            for (receiver, of) in &expected {
                let is_exhausted = rejections.exhausted().contains_key(receiver);
                prop_assert_eq!(is_exhausted, exhausted(of), "{:?}", of);
            }
        }
    }
}
