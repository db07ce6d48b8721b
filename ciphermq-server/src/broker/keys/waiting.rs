//! `list_waiting_keys`: counts a receiver's waiting messages by the key that they are sealed for.
//!
//! The key is named inside the envelope, so envelopes are read from the store and parsed: a bounded
//! number for each command, a few at a time, and for one client at a time. The reads bypass the
//! writer.

use ciphermq_protocol::envelope::Fields;
use ciphermq_protocol::waiting::{
    WaitingCursor, WaitingKey, WaitingPage, WaitingRequest, WaitingTally,
};
use ciphermq_protocol::{ErrorReply, Reply};

use crate::broker::ClientSession;
use crate::model::{LaneKey, PageLimit, QueueId, Seq};
use crate::store;

/// The most messages that one command examines.
const MESSAGES: u32 = 10_000;
/// The most bytes of envelopes that one command reads.
const BYTES: usize = 32 << 20;
/// The most queues that one command examines.
const QUEUES: u32 = 10_000;
/// The part of that which is in memory at a time.
const AT_ONCE: PageLimit = PageLimit {
    messages: 512,
    bytes: 1 << 20,
};

/// The longest suite name that is reported: its text is the sender's choice.
const SUITE_BYTES: usize = 64;
/// The number of digits of a key id.
const KEY_ID_DIGITS: usize = 16;

impl ClientSession {
    /// Executes `list_waiting_keys`.
    pub(in crate::broker) async fn waiting_keys(
        &self,
        request: WaitingRequest,
    ) -> Result<Reply, ErrorReply> {
        let limit = request.limit.unwrap_or(MESSAGES).clamp(1, MESSAGES);
        let page = self.query(self.count_keys(request.after, limit)).await?;
        Ok(Reply::WaitingKeys(page))
    }

    async fn count_keys(
        &self,
        after: Option<WaitingCursor>,
        limit: u32,
    ) -> Result<WaitingPage, store::Error> {
        // Clients that count wait for each other, to leave connections for deliveries.
        let _turn = self.broker.counting.lock().await;
        let from = after.map_or(i64::MIN, |after| after.queue);
        let lanes = self
            .broker
            .reader
            .lanes(&self.client_id, QueueId(from), QUEUES)
            .await?;
        let mut tally = WaitingTally::default();
        let (mut messages, mut bytes) = (usize::try_from(limit).unwrap_or(usize::MAX), BYTES);
        for queue in lanes.queues {
            let lane = LaneKey {
                queue,
                receiver: self.client_id.clone(),
            };
            let begun = after.filter(|after| after.queue == queue.0);
            let mut seq = begun.map_or(Seq::default(), |after| Seq(after.seq));
            loop {
                if messages == 0 || bytes == 0 {
                    return Ok(WaitingPage {
                        keys: tally.into_keys(),
                        next: Some(WaitingCursor {
                            queue: queue.0,
                            seq: seq.0,
                        }),
                    });
                }
                let limit = PageLimit {
                    messages: AT_ONCE.messages.min(messages),
                    bytes: AT_ONCE.bytes.min(bytes),
                };
                let read = self.broker.reader.envelopes(&lane, seq, limit).await?;
                for (sent_time, envelope) in read.envelopes {
                    bytes = bytes.saturating_sub(envelope.len());
                    tally.add(waiting_key(&envelope.to_bytes(), sent_time));
                }
                messages = messages.saturating_sub(read.seen);
                seq = read.last.unwrap_or(seq);
                if !read.more {
                    break;
                }
            }
        }
        Ok(WaitingPage {
            keys: tally.into_keys(),
            next: lanes.next.map(|queue| WaitingCursor {
                queue: queue.0,
                seq: 0,
            }),
        })
    }
}

/// Reads the key and the suite in an envelope, if they are well-formed.
fn waiting_key(envelope: &[u8], oldest_sent_time: Option<String>) -> WaitingKey {
    let fields = std::str::from_utf8(envelope)
        .ok()
        .and_then(|json| Fields::parse(json).ok());
    let (key_id, suite) = fields.map_or((None, None), |fields| {
        (fields.receiver_key_id, fields.suite)
    });
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    WaitingKey {
        key_id: key_id
            .filter(|id| id.len() == KEY_ID_DIGITS && id.bytes().all(is_digit))
            .map(Into::into),
        suite: suite
            .filter(|suite| {
                (1..=SUITE_BYTES).contains(&suite.len())
                    && suite.bytes().all(|byte| byte.is_ascii_graphic())
            })
            .map(Into::into),
        messages: 1,
        oldest_sent_time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(field: &str) -> (Option<String>, Option<String>) {
        let envelope = format!(
            r#"{{"message_id":"m","receiver_client_id":"r","enc_session_key":"YQ==","nonce":"Yg==","ciphertext":"Yw=="{field}}}"#
        );
        let key = waiting_key(envelope.as_bytes(), None);
        assert_eq!((key.messages, key.oldest_sent_time), (1, None));
        (key.key_id, key.suite)
    }

    #[test]
    fn an_envelope_names_its_key_or_none() {
        let id = "0123456789abcdef";
        let both = key(&format!(
            r#","receiver_key_id":"{id}","suite":"X25519-AES256GCM""#
        ));
        assert_eq!(
            both,
            (Some(id.to_owned()), Some("X25519-AES256GCM".to_owned()))
        );
        assert_eq!(key(""), (None, None));
        for bad in [
            "0123456789ABCDEF",
            "0123456789abcde",
            "0123456789abcdef0",
            "é1234567é01234",
            "",
        ] {
            assert_eq!(
                key(&format!(r#","receiver_key_id":"{bad}""#)).0,
                None,
                "{bad}"
            );
        }
        for bad in [
            "x".repeat(65),
            "a b".to_owned(),
            "ä".to_owned(),
            String::new(),
        ] {
            assert_eq!(key(&format!(r#","suite":"{bad}""#)).1, None, "{bad}");
        }
        let none = waiting_key(b"{\xff", None);
        assert_eq!((none.key_id, none.suite, none.messages), (None, None, 1));
    }
}
