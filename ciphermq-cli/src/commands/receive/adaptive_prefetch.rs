//! How much is asked for, where messages go no faster than somebody reads them.

use std::num::NonZeroU32;

/// The prefetch of a receiver that writes into a pipe. It begins with one message and doubles as
/// often as the reader has taken as many: what a reader that has had enough leaves was delivered
/// for nothing, and is offered later if that happens again and again.
#[derive(Debug)]
pub(super) struct Demand {
    now: NonZeroU32,
    most: NonZeroU32,
    taken: u64,
}

impl Demand {
    /// At most so many.
    pub(super) fn up_to(most: NonZeroU32) -> Self {
        Self {
            now: NonZeroU32::MIN,
            most,
            taken: 0,
        }
    }

    /// So many more messages were taken; the prefetch, if it changes by that.
    pub(super) fn note(&mut self, taken: usize) -> Option<NonZeroU32> {
        self.taken = self.taken.saturating_add(taken as u64);
        if self.taken < u64::from(self.now.get()) || self.now >= self.most {
            return None;
        }
        self.taken = 0;
        self.now = self.now.saturating_add(self.now.get()).min(self.most);
        Some(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_whenever_as_much_was_taken() {
        let mut demand = Demand::up_to(NonZeroU32::new(6).unwrap());
        let changes =
            [1, 1, 1, 3, 1, 100, 100].map(|taken| demand.note(taken).map(NonZeroU32::get));
        assert_eq!(changes, [Some(2), None, Some(4), None, Some(6), None, None]);
    }
}
