//! Forgetting old batches of which nothing waits, some at a time.
//!
//! A pass looks at all batches in their order, up to where none is old: their order is nearly that
//! of their times. What waits is passed over once a pass, not once a step.

/// How many batches a step looks at.
pub(in crate::store) const STEP: i64 = 500;

/// How far a pass has come.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Forgetting {
    after: i64,
}

/// What a step has seen.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Looked {
    /// The number of the last batch that it has looked at; `None` if there was none.
    pub(in crate::store) last: Option<i64>,
    /// How many it has looked at.
    pub(in crate::store) batches: i64,
    /// How many of them were old, or have no time, as some of older servers.
    pub(in crate::store) old: i64,
}

impl Default for Forgetting {
    fn default() -> Self {
        Self { after: i64::MIN }
    }
}

impl Forgetting {
    /// The number after which the next step looks.
    pub(in crate::store) fn after(self) -> i64 {
        self.after
    }

    /// Goes on behind what a step has looked at, or to the beginning of the next pass; whether this
    /// one has more to do.
    pub(in crate::store) fn advance(&mut self, looked: Looked) -> bool {
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
        let looked = |last, batches, old| Looked { last, batches, old };
        let mut forgetting = Forgetting::default();
        assert_eq!(forgetting.after(), i64::MIN);
        assert!(forgetting.advance(looked(Some(700), STEP, 1)));
        assert_eq!(forgetting.after(), 700);
        assert!(
            !forgetting.advance(looked(Some(1200), STEP, 0)),
            "all of them are young"
        );
        assert_eq!(forgetting.after(), i64::MIN);
        assert!(forgetting.advance(looked(Some(700), STEP, STEP)));
        assert!(
            !forgetting.advance(looked(Some(900), STEP - 1, 5)),
            "there are no more"
        );
        assert!(!forgetting.advance(looked(None, 0, 0)));
        assert_eq!(forgetting.after(), i64::MIN);
    }
}
