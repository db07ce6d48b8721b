//! A prefetch that adapts to the reader of a pipe.

use std::num::NonZeroU32;

/// The prefetch of a receiver that writes into a pipe.
///
/// It begins with one message, and doubles whenever the reader has read that many. A larger one
/// from the start would be wasted if the reader ends early: the rest is delivered for nothing, and
/// repeatedly undelivered messages are redelivered later.
#[derive(Debug)]
pub(super) struct AdaptivePrefetch {
    current: NonZeroU32,
    max: NonZeroU32,
    read: u64,
}

impl AdaptivePrefetch {
    /// Creates a prefetch of one message that grows up to `max`.
    pub(super) fn up_to(max: NonZeroU32) -> Self {
        Self {
            current: NonZeroU32::MIN,
            max,
            read: 0,
        }
    }

    /// Records that `count` more messages were read. Returns the new prefetch if it changes.
    pub(super) fn record_read(&mut self, count: usize) -> Option<NonZeroU32> {
        self.read = self.read.saturating_add(count as u64);
        if self.read < u64::from(self.current.get()) || self.current >= self.max {
            return None;
        }
        self.read = 0;
        self.current = self
            .current
            .saturating_add(self.current.get())
            .min(self.max);
        Some(self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefetch_doubles_whenever_as_many_messages_were_read() {
        let mut prefetch = AdaptivePrefetch::up_to(NonZeroU32::new(6).unwrap());
        let changes =
            [1, 1, 1, 3, 1, 100, 100].map(|count| prefetch.record_read(count).map(NonZeroU32::get));
        assert_eq!(changes, [Some(2), None, Some(4), None, Some(6), None, None]);
    }
}
