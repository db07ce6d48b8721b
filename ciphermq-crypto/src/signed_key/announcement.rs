//! What a receiver says of its keys.

use std::time::Duration;

use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::jws;
use crate::encoding::{parse_time, time_text};
use crate::identity::{Identity, SignError};
use crate::keys::RecipientKey;

/// How much the clocks of sender and receiver may differ: a key is announced as valid from so long ago on.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// A receiver's public keys, one a suite that it accepts, and how long they are good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Whose keys these are.
    pub client_id: ClientId,
    /// One a suite, the strongest first.
    pub keys: Vec<RecipientKey>,
    /// Unix milliseconds, growing from one announcement of a client to its next: the highest one counts.
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
    /// What `identity` says of its keys from now on: valid for `validity`, at most as long as its certificate.
    /// The epoch is `now`, but higher than `after`, the highest one that is known to have been announced.
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

    /// Reads a payload; what is wrong with it otherwise. Keys of suites that are not known here are left out.
    pub(super) fn read(payload: &[u8]) -> Result<Self, String> {
        let payload: Payload = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        let mut keys = Vec::with_capacity(payload.keys.len());
        for KeyText { suite, key_id, key } in payload.keys {
            let Ok(suite) = suite.parse() else { continue };
            let key = RecipientKey::from_suite_and_base64(suite, &key)
                .map_err(|error| format!("{suite}: {error}"))?;
            if key.key_id().to_string() != key_id {
                return Err(format!("{suite}: the key id is not the key's"));
            }
            keys.push(key);
        }
        if has_suite_twice(&keys) {
            return Err("there are two keys for one suite".to_owned());
        }
        let time = |text: &str| parse_time(text).ok_or_else(|| format!("`{text}` is no time"));
        Ok(Self {
            client_id: payload.client_id,
            keys,
            epoch: payload.epoch,
            not_before: time(&payload.not_before)?,
            not_after: time(&payload.not_after)?,
        })
    }
}

fn has_suite_twice(keys: &[RecipientKey]) -> bool {
    keys.iter().enumerate().any(|(index, key)| {
        keys.iter()
            .skip(index + 1)
            .any(|other| other.suite() == key.suite())
    })
}

/// The payload's JSON. Fields that are not known are passed over: they are signed, and may come to mean something.
#[derive(Serialize, Deserialize)]
struct Payload {
    client_id: ClientId,
    keys: Vec<KeyText>,
    epoch: u64,
    not_before: String,
    not_after: String,
}

#[derive(Serialize, Deserialize)]
struct KeyText {
    suite: String,
    key_id: String,
    key: String,
}
