//! The two JSON objects of `list_waiting_keys`.
//!
//! A receiver that has changed its keys must keep an old private key for as long as messages wait
//! that were sealed by it. The server counts them, a bounded part of them for each command;
//! [`WaitingTally`] adds up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Which part of the waiting messages to count. Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct WaitingRequest {
    /// Where the last reply ended; left out, from the first message on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<WaitingCursor>,
    /// Look at so many messages at most; the server has a limit of its own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::deserialize"
    )]
    pub limit: Option<u32>,
}

/// Where counting goes on. Hand it back as it came: what it says is the server's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object, as `next` was")]
pub struct WaitingCursor {
    /// The number of a queue.
    #[serde(deserialize_with = "crate::number::integer")]
    pub queue: i64,
    /// The number of the last message in it that was looked at.
    #[serde(deserialize_with = "crate::number::integer")]
    pub seq: i64,
}

/// The keys by which a part of the waiting messages is sealed. The same key may come again in the
/// next part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingPage {
    /// The keys, each with a suite once.
    pub keys: Vec<WaitingKey>,
    /// Where counting goes on; left out: that was all. A part without a key need not be the last
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<WaitingCursor>,
}

/// How many messages wait for one key of their receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingKey {
    /// The key's id, 16 lower-case hexadecimal digits. `None`: the envelopes do not say, as those
    /// of older clients.
    pub key_id: Option<String>,
    /// The suite that they are sealed with. `None`: they name none, as those of older clients.
    pub suite: Option<String>,
    /// How many messages, each counted once, whatever the number of queues that it waits in.
    pub messages: u64,
    /// When the server accepted the oldest of them, RFC 3339 in UTC with microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_sent_time: Option<String>,
}

/// Adds up keys, those of messages or of whole pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaitingTally(BTreeMap<KeyAndSuite, (u64, Option<String>)>);

type KeyAndSuite = (Option<String>, Option<String>);

impl WaitingTally {
    /// Adds messages that wait for a key.
    pub fn add(&mut self, key: WaitingKey) {
        let (messages, oldest) = self.0.entry((key.key_id, key.suite)).or_default();
        *messages = messages.saturating_add(key.messages);
        // The server writes all its times in one form and length, so that the smaller text is the
        // earlier time.
        *oldest = match (oldest.take(), key.oldest_sent_time) {
            (Some(before), Some(time)) => Some(before.min(time)),
            (before, time) => before.or(time),
        };
    }

    /// The keys, each with a suite once, in the order of their ids; those that are not known come
    /// first.
    #[must_use]
    pub fn into_keys(self) -> Vec<WaitingKey> {
        let key = |((key_id, suite), (messages, oldest_sent_time))| WaitingKey {
            key_id,
            suite,
            messages,
            oldest_sent_time,
        };
        self.0.into_iter().map(key).collect()
    }
}

impl Extend<WaitingKey> for WaitingTally {
    fn extend<T: IntoIterator<Item = WaitingKey>>(&mut self, keys: T) {
        for key in keys {
            self.add(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key_id: Option<&str>, messages: u64, oldest: Option<&str>) -> WaitingKey {
        WaitingKey {
            key_id: key_id.map(str::to_owned),
            suite: key_id.map(|_| "X25519-AES256GCM".to_owned()),
            messages,
            oldest_sent_time: oldest.map(str::to_owned),
        }
    }

    #[test]
    fn both_objects_go_round() {
        for text in ["{}", r#"{"after":{"queue":1,"seq":7},"limit":10}"#] {
            let request: WaitingRequest = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
        }
        for text in [
            r#"{"keys":[]}"#,
            r#"{"keys":[{"key_id":null,"suite":null,"messages":2}],"next":{"queue":1,"seq":7}}"#,
            r#"{"keys":[{"key_id":"0011223344556677","suite":"X25519-AES256GCM","messages":1,"oldest_sent_time":"2025-09-08T07:03:00.000000Z"}]}"#,
        ] {
            let page: WaitingPage = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&page).unwrap(), text);
        }
        let newer = r#"{"keys":[],"next":null,"new":1}"#;
        assert_eq!(
            serde_json::from_str::<WaitingPage>(newer).unwrap(),
            WaitingPage::default()
        );
        assert!(serde_json::from_str::<WaitingRequest>(r#"{"after":{"queue":1}}"#).is_err());
        assert!(serde_json::from_str::<WaitingRequest>(r#"{"limit":-1}"#).is_err());
    }

    #[test]
    fn the_same_key_is_added_up_and_the_oldest_time_kept() {
        let mut tally = WaitingTally::default();
        let (early, late) = ("2025-09-08T07:03:00.000000Z", "2025-09-08T07:03:00.000001Z");
        tally.extend([key(Some("b"), 2, Some(late)), key(None, 1, None)]);
        tally.extend([
            key(Some("a"), 1, Some(late)),
            key(Some("b"), 3, Some(early)),
            key(None, 4, Some(late)),
        ]);
        assert_eq!(
            tally.into_keys(),
            [
                key(None, 5, Some(late)),
                key(Some("a"), 1, Some(late)),
                key(Some("b"), 5, Some(early))
            ]
        );
    }
}
