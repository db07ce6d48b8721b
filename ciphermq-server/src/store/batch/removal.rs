//! Sets aside the messages of deleted and purged queues, a step at a time.
//!
//! A queue is deleted, and a purge begins, in one short transaction that notes a removal. Its steps
//! follow in transactions of their own, between those of others; a server that is killed continues
//! when it is started again. A step goes on along the queue's rows in `waiting`, in their order. A
//! message that waits in another queue as well only leaves this one; the others are rejected.

use std::time::{Duration, Instant};

/// The most waiting batches that a step looks at.
pub(in crate::store) const STEP_BATCHES: i64 = 256;
/// The number of messages after which a step takes no further batch.
const STEP_MESSAGES: i64 = 512;
/// The number of bytes of envelopes after which a step takes no further batch.
const STEP_BYTES: i64 = 2 << 20;

/// The sequence number up to which a deleted queue is emptied: nothing comes after it.
pub(in crate::store) const ALL: i64 = i64::MAX;

/// How long after a deletion messages are checked for queues that exist no more.
///
/// A publish finds its queues in memory, and waits for its commit for at most the largest
/// `storage_wait`, 10 minutes.
const LATE_PUBLISHES: Duration = Duration::from_mins(20);

/// A removal that is under way.
#[derive(Debug, Clone)]
pub(in crate::store) struct Removal {
    pub(in crate::store) queue: i64,
    pub(in crate::store) up_to: i64,
    pub(in crate::store) reason: String,
    /// The last row that was looked at.
    pub(in crate::store) after: (String, i64),
}

/// A batch that waits in a queue, in the order of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Candidate {
    pub(in crate::store) receiver: String,
    pub(in crate::store) first_seq: i64,
    pub(in crate::store) messages: i64,
    /// The size of its envelopes.
    pub(in crate::store) bytes: i64,
}

/// What a step does.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct Step {
    /// The batches that leave the queue.
    pub(in crate::store) taken: Vec<Candidate>,
    /// Where the next step goes on; `None` if this was the last one.
    pub(in crate::store) next: Option<(String, i64)>,
}

impl Removal {
    /// Chooses what to take of at most [`STEP_BATCHES`] rows that follow the last one looked at,
    /// none of them above `up_to`.
    pub(in crate::store) fn step(rows: Vec<Candidate>) -> Step {
        let mut more = super::count(rows.len()) >= STEP_BATCHES;
        let (mut messages, mut bytes) = (0, 0);
        let mut taken = Vec::new();
        let mut next = None;
        for row in rows {
            if messages >= STEP_MESSAGES || bytes >= STEP_BYTES {
                more = true;
                break;
            }
            next = Some((row.receiver.clone(), row.first_seq));
            messages += row.messages;
            bytes += row.bytes;
            taken.push(row);
        }
        Step {
            taken,
            next: next.filter(|_| more),
        }
    }
}

/// Remembers when a queue was last deleted.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::store) struct LastDeletion(Option<Instant>);

impl LastDeletion {
    /// Notes that a queue is deleted now.
    pub(in crate::store) fn note(&mut self) {
        self.0 = Some(Instant::now());
    }

    /// Notes that a while may have passed in which nothing was committed: what waits for its commit
    /// has waited as long.
    pub(in crate::store) fn prolong(&mut self) {
        if self.0.is_some() {
            self.note();
        }
    }

    /// Whether messages may come that found a queue before it was deleted.
    pub(in crate::store) fn is_recent(self) -> bool {
        self.0.is_some_and(|at| at.elapsed() < LATE_PUBLISHES)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn removal(up_to: i64) -> Removal {
        Removal {
            queue: 1,
            up_to,
            reason: String::new(),
            after: (String::new(), -1),
        }
    }

    proptest! {
        /// However large the batches are, the steps take each row up to the last one once, in
        /// order, and a bounded part at a time.
        #[test]
        fn steps_take_every_row_once(
            sizes in prop::collection::vec((1..128i64, 0..(4i64 << 20)), 0..600), up_to in 0..600i64
        ) {
            let rows: Vec<Candidate> = (0..)
                .zip(&sizes)
                .map(|(first_seq, &(messages, bytes))| Candidate {
                    receiver: format!("r{:03}", first_seq / 100),
                    first_seq,
                    messages,
                    bytes,
                })
                .collect();
            let (mut removal, mut taken) = (removal(up_to), Vec::new());
            loop {
                let following: Vec<Candidate> = rows
                    .iter()
                    .filter(|row| (row.receiver.clone(), row.first_seq) > removal.after)
                    .filter(|row| row.first_seq <= removal.up_to)
                    .take(usize::try_from(STEP_BATCHES).unwrap())
                    .cloned()
                    .collect();
                let step = Removal::step(following);
                let messages: i64 = step.taken.iter().map(|row| row.messages).sum();
                prop_assert!(messages < STEP_MESSAGES + 128);
                taken.extend(step.taken);
                match step.next {
                    Some(next) => {
                        prop_assert!(next > removal.after);
                        removal.after = next;
                    }
                    None => break,
                }
            }
            let wanted: Vec<Candidate> =
                rows.into_iter().filter(|row| row.first_seq <= up_to).collect();
            prop_assert_eq!(taken, wanted);
        }
    }

    #[test]
    fn messages_are_checked_only_after_a_deletion() {
        let mut last = LastDeletion::default();
        last.prolong();
        assert!(!last.is_recent());
        last.note();
        assert!(last.is_recent());
    }
}
