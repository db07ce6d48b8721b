//! What a receiver says of its keys.

use std::time::Duration;

use ciphermq_protocol::ClientId;
use ciphermq_protocol::json::Object;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::jws;
use crate::encoding::{parse_time, time_text};
use crate::identity::{Identity, SignError};
use crate::keys::RecipientKey;
use crate::suite::Suite;

/// How much the clocks of sender and receiver may differ: a key is announced as valid from so long
/// ago on.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// A receiver's public keys, one a suite that it accepts, and how long they are good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Whose keys these are.
    pub client_id: ClientId,
    /// One a suite, the strongest first.
    pub keys: Vec<RecipientKey>,
    /// Unix milliseconds, growing from one announcement of a client to its next: the highest one
    /// counts.
    pub epoch: u64,
    /// From when on they may be used.
    pub not_before: Timestamp,
    /// Until when they may be used.
    pub not_after: Timestamp,
}

/// Why keys cannot be announced.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnouncementError {
    /// There is nothing to announce, or more than one key for a suite.
    #[error("an announcement holds one key a suite, and at least one")]
    Keys,
    /// The certificate that signs is not the receiver's, or its time is over.
    #[error("the certificate expired at {0}")]
    Expired(Timestamp),
    /// There is no randomness to sign with.
    #[error(transparent)]
    Sign(#[from] SignError),
}

ciphermq_protocol::debug_as_report!(AnnouncementError);

impl Announcement {
    /// What `identity` says of its keys from now on: valid for `validity`, at most as long as its
    /// certificate. The epoch is `now`, but higher than `after`, the highest one that is known to
    /// have been announced.
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

    /// Signs it: a compact JWS, without a space in it.
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
            not_before: time_text(self.not_before),
            not_after: time_text(self.not_after),
        };
        let payload = serde_json::to_vec(&payload).map_err(|_| SignError)?;
        Ok(jws::sign(identity, &payload)?)
    }

    /// Reads a payload; what is wrong with it otherwise. Keys of suites that are not known here are
    /// left out, whatever they look like: the receiver may be newer.
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
            parse_time(&text).ok_or_else(|| format!("`{text}` is no time"))
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

/// The key of a suite that is known.
fn read_key(suite: Suite, key: &Object<'_>) -> Result<RecipientKey, String> {
    let (key_id, key): (String, String) = (field(key, "key_id")?, field(key, "key")?);
    let key =
        RecipientKey::from_suite_and_base64(suite, &key).map_err(|error| error.to_string())?;
    if key.key_id().to_string() != key_id {
        return Err("the key id is not the key's".to_owned());
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

/// The payload's JSON, as it is written.
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
