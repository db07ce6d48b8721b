//! Who is refused first when the disk is short.

/// Returns whether a sender holds more than its equal share of what all senders have stored.
///
/// If only one sender stores anything, or all of them the same, nobody does.
pub(super) fn is_above_share(own: u64, all: u64, senders: u64) -> bool {
    u128::from(own) * u128::from(senders) > u128::from(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn those_with_most_are_refused_first() {
        assert!(is_above_share(4, 6, 2) && !is_above_share(2, 6, 2));
        assert!(!is_above_share(0, 6, 2));
        assert!(!is_above_share(3, 6, 2), "an equal share is nobody's fault");
        assert!(!is_above_share(6, 6, 1), "there is nobody to make room for");
        assert!(!is_above_share(0, 0, 0));
        assert!(is_above_share(u64::MAX, u64::MAX, u64::MAX));
    }

    proptest! {
        /// Somebody may always go on, and whoever holds less than another one that may go on may
        /// go on, too.
        #[test]
        fn the_smaller_ones_go_on(held in prop::collection::vec(1u64..1 << 40, 1..50)) {
            let all = held.iter().sum();
            let refused: Vec<bool> = held
                .iter()
                .map(|own| is_above_share(*own, all, held.len() as u64))
                .collect();
            prop_assert!(refused.iter().any(|refused| !refused));
            for (one, is_refused) in held.iter().zip(&refused) {
                for (other, is_other_refused) in held.iter().zip(&refused) {
                    prop_assert!(one > other || *is_refused <= *is_other_refused);
                }
            }
        }
    }
}
