//! The JSON of `list_waiting_keys` and of its reply.
//!
//! A receiver that has changed its keys must keep an old private key for as long as messages wait
//! that were sealed for it. The server counts them, a bounded number for each command;
//! [`WaitingTally`] adds the pages up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The JSON object of `list_waiting_keys`: a page of the waiting messages.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct WaitingRequest {
    /// The end of the last page; counting starts at the first message if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<WaitingCursor>,
    /// The most messages to count; the server has a limit of its own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::number::deserialize"
    )]
    pub limit: Option<u32>,
}

/// The position at which counting continues.
///
/// It is opaque: clients return it unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object, as `next` was")]
pub struct WaitingCursor {
    /// The number of a queue.
    #[serde(deserialize_with = "crate::number::integer")]
    pub queue: i64,
    /// The number of the last message in it that was counted.
    #[serde(deserialize_with = "crate::number::integer")]
    pub seq: i64,
}

/// The keys that a page of the waiting messages is sealed for.
///
/// The same key may occur again in the next page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingPage {
    /// The keys; each pair of key and suite occurs once.
    pub keys: Vec<WaitingKey>,
    /// The position of the next page; `None` after the last page.
    ///
    /// A page without keys need not be the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<WaitingCursor>,
}

/// The number of messages that wait for one key of their receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingKey {
    /// The key's id, 16 lower-case hexadecimal digits; `None` for older clients' envelopes, which
    /// do not name it.
    pub key_id: Option<String>,
    /// The suite of the messages; `None` for older clients' envelopes, which do not name it.
    pub suite: Option<String>,
    /// The number of messages. A message that waits in several queues is counted once.
    pub messages: u64,
    /// The time when the server accepted the oldest of them, RFC 3339 in UTC with microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_sent_time: Option<String>,
}

/// A sum of [`WaitingKey`]s, of single messages or of pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaitingTally(BTreeMap<KeyAndSuite, (u64, Option<String>)>);

type KeyAndSuite = (Option<String>, Option<String>);

impl WaitingTally {
    /// Adds the messages that wait for a key.
    pub fn add(&mut self, key: WaitingKey) {
        let (messages, oldest) = self.0.entry((key.key_id, key.suite)).or_default();
        *messages = messages.saturating_add(key.messages);
        // The server writes all times in one form and length, so the lesser text is the earlier
        // time.
        *oldest = match (oldest.take(), key.oldest_sent_time) {
            (Some(before), Some(time)) => Some(before.min(time)),
            (before, time) => before.or(time),
        };
    }

    /// Returns the keys in the order of their ids, unknown ones first.
    ///
    /// Each pair of key and suite occurs once.
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
    fn request_and_page_round_trip() {
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
    fn counts_of_a_key_are_added_and_its_oldest_time_kept() {
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
