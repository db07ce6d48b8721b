//! Forgets old batches of which nothing waits, a step at a time.
//!
//! A pass examines all batches in their order up to where none is old; that order is nearly the
//! order of their times. A batch that still waits is skipped once a pass, not once a step.

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

#[cfg(test)]
mod tests {
    use super::*;

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
