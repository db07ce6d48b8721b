//! Revocation lists of authorities that are not known yet.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// The limits of what is remembered, above what a server has: lists, and bytes of all of them.
const MAX_LISTS: usize = 256;
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Lists of the server whose signers are not known, in DER: they are verified once a signer is.
#[derive(Debug, Default)]
pub(crate) struct UnknownLists(Mutex<VecDeque<Vec<u8>>>);

impl UnknownLists {
    /// Remembers a list. Beyond the limits, those are forgotten that the server has not handed out
    /// for the longest time.
    pub(crate) fn remember(&self, der: Vec<u8>) {
        let mut lists = self.0.lock();
        lists.retain(|known| *known != der);
        lists.push_back(der);
        let mut bytes: usize = lists.iter().map(Vec::len).sum();
        while lists.len() > MAX_LISTS || bytes > MAX_BYTES {
            let Some(oldest) = lists.pop_front() else {
                return;
            };
            bytes -= oldest.len();
        }
    }

    /// Takes out what `read` recognizes.
    pub(crate) fn take<T>(&self, read: impl Fn(&[u8]) -> Option<T>) -> Vec<T> {
        let mut taken = Vec::new();
        self.0.lock().retain(|der| match read(der) {
            Some(list) => {
                taken.push(list);
                false
            }
            None => true,
        });
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lists: &UnknownLists) -> Vec<Vec<u8>> {
        lists.take(|der| Some(der.to_vec()))
    }

    #[test]
    fn what_is_recognized_is_taken_out() {
        let lists = UnknownLists::default();
        for der in [b"a", b"b", b"a"] {
            lists.remember(der.to_vec());
        }
        let is_a = |der: &[u8]| (der == b"a").then(|| der.to_vec());
        assert_eq!(lists.take(is_a), [b"a"]);
        assert!(lists.take(is_a).is_empty());
        assert_eq!(all(&lists), [b"b"]);
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let lists = UnknownLists::default();
        for number in 0..=MAX_LISTS {
            lists.remember(number.to_be_bytes().to_vec());
        }
        // The second one is the oldest now, and handed out again.
        lists.remember(1usize.to_be_bytes().to_vec());
        lists.remember(b"new".to_vec());
        let kept = all(&lists);
        assert_eq!(kept.len(), MAX_LISTS);
        assert_eq!(kept[0], 3usize.to_be_bytes());
        assert_eq!(kept[MAX_LISTS - 2], 1usize.to_be_bytes());

        lists.remember(b"small".to_vec());
        lists.remember(vec![0; MAX_BYTES]);
        assert_eq!(all(&lists), [vec![0; MAX_BYTES]]);
        lists.remember(vec![0; MAX_BYTES + 1]);
        assert!(all(&lists).is_empty());
    }
}
