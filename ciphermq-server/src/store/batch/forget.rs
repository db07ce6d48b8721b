//! Forgets old batches of which nothing waits, and old rejected messages, a step at a time.
//!
//! A pass examines all batches in their order up to where none is old; that order is nearly the
//! order of their times. A batch that still waits is skipped once a pass, not once a step.

use ciphermq_protocol::ClientId;

use super::count;
use crate::model::{Amount, HeldBySender};

/// The number of batches that a step examines.
pub(in crate::store) const STEP: i64 = 500;

/// The position of a pass.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct ForgetCursor {
    after: i64,
}

/// The result of a step.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct ForgetStep {
    /// The number of the last batch that it examined; `None` if there was none.
    pub(in crate::store) last: Option<i64>,
    /// The number of batches that it examined.
    pub(in crate::store) batches: i64,
    /// The number of those that are old or, like some of older servers, have no time.
    pub(in crate::store) old: i64,
}

impl Default for ForgetCursor {
    fn default() -> Self {
        Self { after: i64::MIN }
    }
}

impl ForgetCursor {
    /// Returns the number of the batch after which the next step starts.
    pub(in crate::store) fn after(self) -> i64 {
        self.after
    }

    /// Advances past the batches of a step, or back to the start for the next pass. Returns whether
    /// this pass has more to do.
    pub(in crate::store) fn advance(&mut self, looked: ForgetStep) -> bool {
        let next = looked
            .last
            .filter(|_| looked.batches >= STEP && looked.old > 0);
        *self = next.map_or_else(Self::default, |after| Self { after });
        next.is_some()
    }
}

/// The most rejected messages that a step removes.
const STEP_REJECTED: usize = 64;

/// A step that removes rejected messages, over several senders.
#[derive(Debug, Default)]
pub(in crate::store) struct RejectedStep {
    messages: usize,
    removed: Vec<(ClientId, u64)>,
}

impl RejectedStep {
    /// Returns how many messages may still be removed; `None` if the next step goes on.
    pub(in crate::store) fn limit(&self) -> Option<i64> {
        let left = STEP_REJECTED.saturating_sub(self.messages);
        (left > 0).then_some(count(left))
    }

    /// Whether nothing was removed.
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.removed.is_empty()
    }

    /// Notes that messages of a sender were removed: the receiver and the size of each.
    pub(in crate::store) fn removed(
        &mut self,
        sender: &ClientId,
        messages: Vec<(String, i64)>,
        held: &mut HeldBySender,
    ) {
        if messages.is_empty() {
            return;
        }
        self.messages += messages.len();
        self.removed.push((sender.clone(), messages.len() as u64));
        for (receiver, bytes) in messages {
            let less = Amount {
                messages: -1,
                bytes: -bytes,
            };
            held.add_rejected(sender.as_str(), &receiver, less);
        }
    }

    /// Returns how many messages of each sender were removed.
    pub(in crate::store) fn into_removed(self) -> Vec<(ClientId, u64)> {
        self.removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_removes_so_many_rejected_messages() {
        let (mut step, mut held) = (RejectedStep::default(), HeldBySender::default());
        let sender: ClientId = "c".parse().unwrap();
        assert_eq!(step.limit(), Some(64));
        step.removed(&sender, Vec::new(), &mut held);
        assert!(step.is_empty());
        step.removed(&sender, vec![("r".to_owned(), 10); 60], &mut held);
        assert_eq!(step.limit(), Some(4));
        step.removed(&sender, vec![("s".to_owned(), 1); 4], &mut held);
        assert_eq!(step.limit(), None);
        let less = held.of(&sender);
        assert_eq!((less.rejected_messages, less.rejected_bytes), (-64, -604));
        let mut expected = HeldBySender::default();
        for (receiver, messages, bytes) in [("r", -60, -600), ("s", -4, -4)] {
            expected.add_rejected("c", receiver, Amount { messages, bytes });
        }
        assert_eq!(held, expected);
        assert_eq!(step.into_removed(), [(sender.clone(), 60), (sender, 4)]);
    }

    #[test]
    fn a_pass_ends_where_nothing_is_old() {
        let looked = |last, batches, old| ForgetStep { last, batches, old };
        let mut forget_cursor = ForgetCursor::default();
        assert_eq!(forget_cursor.after(), i64::MIN);
        assert!(forget_cursor.advance(looked(Some(700), STEP, 1)));
        assert_eq!(forget_cursor.after(), 700);
        assert!(
            !forget_cursor.advance(looked(Some(1200), STEP, 0)),
            "all of them are young"
        );
        assert_eq!(forget_cursor.after(), i64::MIN);
        assert!(forget_cursor.advance(looked(Some(700), STEP, STEP)));
        assert!(
            !forget_cursor.advance(looked(Some(900), STEP - 1, 5)),
            "there are no more"
        );
        assert!(!forget_cursor.advance(looked(None, 0, 0)));
        assert_eq!(forget_cursor.after(), i64::MIN);
    }
}
