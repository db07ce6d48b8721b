//! Announcements of keys, the contents of signed keys.

use std::time::Duration;

use ciphermq_protocol::ClientId;
use ciphermq_protocol::json::Object;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::jws;
use crate::encoding::{format_time, parse_time};
use crate::identity::{Identity, SignError};
use crate::keys::RecipientKey;
use crate::suite::Suite;

/// The tolerated difference between the clocks of sender and receiver, by which `not_before`
/// precedes the time of signing.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// A receiver's public keys, one per suite, and their validity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The receiver.
    pub client_id: ClientId,
    /// The keys, one per suite, the strongest first.
    pub keys: Vec<RecipientKey>,
    /// The version of the announcement, in Unix milliseconds; the highest of a client supersedes
    /// the others.
    pub epoch: u64,
    /// The beginning of their validity.
    pub not_before: Timestamp,
    /// The end of their validity.
    pub not_after: Timestamp,
}

/// The reason why keys cannot be announced.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnouncementError {
    /// The announcement has no keys, or several for one suite.
    #[error("an announcement holds one key a suite, and at least one")]
    Keys,
    /// The signing certificate is not the receiver's, or has expired.
    #[error("the certificate expired at {0}")]
    Expired(Timestamp),
    /// Signing failed for lack of randomness.
    #[error(transparent)]
    Sign(#[from] SignError),
}

ciphermq_protocol::debug_as_report!(AnnouncementError);

impl Announcement {
    /// Creates an announcement of `identity`'s keys that is valid for `validity`, at most as long
    /// as its certificate.
    ///
    /// The epoch is `now`, but higher than `after`, the highest epoch known to have been announced.
    #[must_use]
    pub fn new(
        identity: &Identity,
        keys: Vec<RecipientKey>,
        now: Timestamp,
        validity: Duration,
        after: Option<u64>,
    ) -> Self {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let until = now.checked_add(validity).unwrap_or(Timestamp::MAX);
        Self {
            client_id: identity.client_id().clone(),
            keys,
            epoch: millis.max(after.map_or(0, |after| after.saturating_add(1))),
            not_before: now.checked_sub(CLOCK_SKEW).unwrap_or(Timestamp::MIN),
            not_after: until.min(identity.not_after()),
        }
    }

    /// Signs the announcement and returns a compact JWS.
    ///
    /// # Errors
    ///
    /// [`AnnouncementError`].
    pub fn sign(&self, identity: &Identity) -> Result<String, AnnouncementError> {
        if self.keys.is_empty() || has_suite_twice(&self.keys) {
            return Err(AnnouncementError::Keys);
        }
        if self.not_after <= self.not_before || self.client_id != *identity.client_id() {
            return Err(AnnouncementError::Expired(identity.not_after()));
        }
        let payload = Payload {
            client_id: self.client_id.clone(),
            keys: self
                .keys
                .iter()
                .map(|key| KeyText {
                    suite: key.suite().as_str().to_owned(),
                    key_id: key.key_id().to_string(),
                    key: key.to_base64(),
                })
                .collect(),
            epoch: self.epoch,
            not_before: format_time(self.not_before),
            not_after: format_time(self.not_after),
        };
        let payload = serde_json::to_vec(&payload).map_err(|_| SignError)?;
        Ok(jws::sign(identity, &payload)?)
    }

    /// Parses a payload; the error is a description.
    ///
    /// Keys of unknown suites are ignored, whatever their form: the receiver may be newer.
    pub(super) fn read(payload: &[u8]) -> Result<Self, String> {
        let payload = std::str::from_utf8(payload).map_err(|error| error.to_string())?;
        let payload = Object::parse(payload).map_err(|error| error.to_string())?;
        let announced: Vec<Object<'_>> = field(&payload, "keys")?;
        let mut keys = Vec::with_capacity(announced.len());
        for key in announced {
            let suite: String = field(&key, "suite")?;
            if let Ok(suite) = suite.parse() {
                keys.push(read_key(suite, &key).map_err(|error| format!("{suite}: {error}"))?);
            }
        }
        if has_suite_twice(&keys) {
            return Err("there are two keys for one suite".to_owned());
        }
        let time = |name| {
            let text: String = field(&payload, name)?;
            parse_time(&text).ok_or_else(|| format!("`{text}` is not a time"))
        };
        Ok(Self {
            client_id: field(&payload, "client_id")?,
            keys,
            epoch: field(&payload, "epoch")?,
            not_before: time("not_before")?,
            not_after: time("not_after")?,
        })
    }
}

fn field<'a, T: Deserialize<'a>>(object: &Object<'a>, name: &'static str) -> Result<T, String> {
    object.get(name).map_err(|error| error.to_string())
}

/// Parses the key of a known suite.
fn read_key(suite: Suite, key: &Object<'_>) -> Result<RecipientKey, String> {
    let (key_id, key): (String, String) = (field(key, "key_id")?, field(key, "key")?);
    let key =
        RecipientKey::from_suite_and_base64(suite, &key).map_err(|error| error.to_string())?;
    if key.key_id().to_string() != key_id {
        return Err("the key id does not match the key".to_owned());
    }
    Ok(key)
}

fn has_suite_twice(keys: &[RecipientKey]) -> bool {
    keys.iter().enumerate().any(|(index, key)| {
        keys.iter()
            .skip(index + 1)
            .any(|other| other.suite() == key.suite())
    })
}

/// The JSON of the payload, for writing.
#[derive(Serialize)]
struct Payload {
    client_id: ClientId,
    keys: Vec<KeyText>,
    epoch: u64,
    not_before: String,
    not_after: String,
}

#[derive(Serialize)]
struct KeyText {
    suite: String,
    key_id: String,
    key: String,
}
