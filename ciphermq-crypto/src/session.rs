//! Limits of sessions, and the receiver's cache of them.
//!
//! Sealing a session key costs a key agreement, so a session key is used for many messages: until
//! [`MAX_MESSAGES`] or [`MAX_AGE`], whichever comes first, and never across a restart. Nonces are
//! 96 random bits; with 2^16 messages per key, the probability of a collision is below 2^-64.
//!
//! The sender observes both limits. The receiver checks the age, which every message states and
//! authenticates; it does not count messages, since redelivery is legitimate.

use std::time::Duration;

use ciphermq_protocol::ClientId;
use jiff::Timestamp;

use crate::encoding::{format_time, put_field};
use crate::identity::Intermediate;
use crate::keys::KeyId;
use crate::payload::PayloadCipher;
use crate::suite::Suite;

/// The limit of messages that one session key seals.
pub const MAX_MESSAGES: u32 = 65_536;

/// The limit of a session's age when it seals a message.
pub const MAX_AGE: Duration = Duration::from_secs(600);

const DOMAIN: &[u8] = b"CipherMQ session 1";

/// Returns HPKE's `info` of a session: length-prefixed fields.
pub(crate) fn info(
    suite: &str,
    sender: &str,
    receiver: &str,
    receiver_key_id: &str,
    session_time: &str,
) -> Vec<u8> {
    let mut info = Vec::with_capacity(192);
    put_field(&mut info, DOMAIN);
    put_field(&mut info, suite.as_bytes());
    put_field(&mut info, sender.as_bytes());
    put_field(&mut info, receiver.as_bytes());
    put_field(&mut info, receiver_key_id.as_bytes());
    put_field(&mut info, session_time.as_bytes());
    info
}

/// Returns [`info`] of a session that starts at `start`.
pub(crate) fn info_of(
    suite: Suite,
    sender: &ClientId,
    receiver: &ClientId,
    key: KeyId,
    start: Timestamp,
) -> Vec<u8> {
    info(
        suite.as_str(),
        sender.as_str(),
        receiver.as_str(),
        &key.to_string(),
        &format_time(start),
    )
}

/// Returns whether a session that started at `start` may seal a message at `sent`, to the
/// millisecond.
pub(crate) fn is_within_age(start: Timestamp, sent: Timestamp) -> bool {
    let age = sent.as_millisecond().checked_sub(start.as_millisecond());
    age.and_then(|age| u64::try_from(age).ok())
        .is_some_and(|age| Duration::from_millis(age) <= MAX_AGE)
}

/// An LRU cache of the sessions that a receiver has opened.
pub(crate) struct SessionCache {
    capacity: usize,
    /// By cache key, the most recently used last, since nearly every lookup is for it.
    sessions: Vec<(Vec<u8>, Session)>,
}

/// A session that a receiver has opened.
pub(crate) struct Session {
    pub(crate) cipher: PayloadCipher,
    /// The session's start.
    pub(crate) time: Timestamp,
    pub(crate) enc_session_key_hash: [u8; 32],
    /// Whether the sender's signature was verified.
    pub(crate) is_verified: bool,
    /// The intermediate authorities above the sender's certificate, apart from the receiver's own.
    pub(crate) issuers: Vec<Intermediate>,
}

impl SessionCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            sessions: Vec::new(),
        }
    }

    /// Returns the session with this cache key, opened with `open` if it is not cached.
    ///
    /// The cache key covers everything that the session key was sealed for, and the sealed key
    /// itself.
    pub(crate) fn find_or_open<E>(
        &mut self,
        key: &[u8],
        open: impl FnOnce() -> Result<Session, E>,
    ) -> Result<Option<&Session>, E> {
        match self.sessions.iter().rposition(|(cached, _)| cached == key) {
            Some(last) if last + 1 == self.sessions.len() => {}
            Some(at) => {
                let session = self.sessions.remove(at);
                self.sessions.push(session);
            }
            None => {
                let session = open()?;
                if self.sessions.len() >= self.capacity {
                    self.sessions.remove(0);
                }
                self.sessions.push((key.to_owned(), session));
            }
        }
        Ok(self.sessions.last().map(|(_, session)| session))
    }

    /// Removes all sessions.
    pub(crate) fn clear(&mut self) {
        self.sessions.clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    #[test]
    fn the_age_counts_whole_milliseconds() {
        let at = |millis: i64| Timestamp::from_millisecond(1_757_314_980_000 + millis).unwrap();
        assert!(is_within_age(at(0), at(0)));
        assert!(is_within_age(at(0), at(600_000)));
        assert!(!is_within_age(at(0), at(600_001)));
        assert!(!is_within_age(at(0), at(-1)));
        assert!(!is_within_age(Timestamp::MIN, Timestamp::MAX));
    }

    #[test]
    fn evicts_the_least_recently_used_session() {
        let mut cache = SessionCache::new(2);
        let mut opened = Vec::new();
        for name in ["a", "b", "a", "c", "a", "b"] {
            cache
                .find_or_open(name.as_bytes(), || {
                    opened.push(name);
                    let cipher = PayloadCipher::new(&Zeroizing::new([0; 32]));
                    Ok::<_, ()>(Session {
                        cipher,
                        time: Timestamp::UNIX_EPOCH,
                        enc_session_key_hash: [0; 32],
                        is_verified: true,
                        issuers: Vec::new(),
                    })
                })
                .unwrap()
                .unwrap();
            assert!(cache.len() <= 2);
        }
        assert_eq!(opened, ["a", "b", "c", "b"]);
        assert!(cache.find_or_open(b"d", || Err(())).is_err());
        assert_eq!(cache.len(), 2, "a failed opening evicts nothing");
    }
}
