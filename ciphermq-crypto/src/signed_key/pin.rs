//! Pins: a sender's records of receivers' keys, which prevent rollback.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Announcement;
use crate::encoding::{encode, put_field};
use crate::keys::PublicKey;

/// A sender's record of a receiver's keys, stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Pin {
    /// The receiver has signed its keys.
    Signed {
        /// The highest epoch seen.
        epoch: u64,
        /// Base64 of SHA-256 of the announced suites and keys.
        keys: String,
    },
    /// The server returned an unsigned key, which was accepted on request.
    Unsigned {
        /// The key, base64.
        key: String,
    },
}

/// The reason why a key contradicts the pin.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// The announcement is older than the pinned one.
    #[error("the signed key is older ({}) than one that was seen before \
             ({})", format_epoch(*.offered), format_epoch(*.pinned))]
    Older {
        /// The epoch of the announcement.
        offered: u64,
        /// The pinned epoch.
        pinned: u64,
    },
    /// The announcement has other keys with the pinned epoch.
    #[error("the signed key announces other keys than before under the same epoch \
             ({})", format_epoch(*.0))]
    OtherKeys(u64),
    /// The key is unsigned, although the pinned one was signed.
    #[error("the key is not signed, although the receiver's key was signed before")]
    NoLongerSigned,
    /// The unsigned key differs from the pinned one.
    #[error(
        "the key is not the one that was used before, and no signature says that the receiver \
         changed it"
    )]
    Changed,
}

ciphermq_protocol::debug_as_report!(PinError);

impl Pin {
    /// Creates the pin of a verified announcement.
    pub(super) fn signed(announcement: &Announcement) -> Self {
        let mut fields = Vec::new();
        for key in &announcement.keys {
            put_field(&mut fields, key.suite().as_str().as_bytes());
            put_field(&mut fields, key.as_bytes());
        }
        Self::Signed {
            epoch: announcement.epoch,
            keys: encode(&Sha256::digest(fields)),
        }
    }

    /// Creates the pin of an unsigned key.
    #[must_use]
    pub fn unsigned(key: &PublicKey) -> Self {
        Self::Unsigned {
            key: key.to_base64(),
        }
    }

    /// Checks whether `offered` may replace the pin.
    ///
    /// # Errors
    ///
    /// [`PinError`]; the pin must be kept.
    pub fn accept(pinned: Option<&Self>, offered: &Self) -> Result<(), PinError> {
        match (pinned, offered) {
            (None, _) | (Some(Self::Unsigned { .. }), Self::Signed { .. }) => Ok(()),
            (Some(Self::Signed { .. }), Self::Unsigned { .. }) => Err(PinError::NoLongerSigned),
            (Some(Self::Unsigned { key }), Self::Unsigned { key: offered }) => {
                if key == offered {
                    Ok(())
                } else {
                    Err(PinError::Changed)
                }
            }
            (
                Some(Self::Signed { epoch, keys }),
                Self::Signed {
                    epoch: offered,
                    keys: offered_keys,
                },
            ) => {
                if offered < epoch {
                    Err(PinError::Older {
                        offered: *offered,
                        pinned: *epoch,
                    })
                } else if offered == epoch && keys != offered_keys {
                    Err(PinError::OtherKeys(*epoch))
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// Formats an epoch as a time, for people.
fn format_epoch(epoch: u64) -> String {
    i64::try_from(epoch)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .map_or_else(|| epoch.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(epoch: u64, keys: &str) -> Pin {
        Pin::Signed {
            epoch,
            keys: keys.to_owned(),
        }
    }

    fn unsigned(byte: u8) -> Pin {
        Pin::unsigned(&PublicKey::from_bytes([byte; 32]))
    }

    #[test]
    fn epochs_never_decrease() {
        let pinned = signed(10, "a");
        let accept = |offered: &Pin| Pin::accept(Some(&pinned), offered);
        assert_eq!(accept(&signed(10, "a")), Ok(()));
        assert_eq!(accept(&signed(11, "a")), Ok(()));
        assert_eq!(accept(&signed(11, "b")), Ok(()));
        assert_eq!(
            accept(&signed(9, "a")),
            Err(PinError::Older {
                offered: 9,
                pinned: 10
            })
        );
        assert_eq!(accept(&signed(10, "b")), Err(PinError::OtherKeys(10)));
        assert_eq!(accept(&unsigned(1)), Err(PinError::NoLongerSigned));
    }

    #[test]
    fn an_unsigned_key_is_pinned_until_a_signed_one_comes() {
        assert_eq!(Pin::accept(None, &unsigned(1)), Ok(()));
        assert_eq!(Pin::accept(None, &signed(1, "a")), Ok(()));
        let pinned = unsigned(1);
        assert_eq!(Pin::accept(Some(&pinned), &unsigned(1)), Ok(()));
        assert_eq!(
            Pin::accept(Some(&pinned), &unsigned(2)),
            Err(PinError::Changed)
        );
        assert_eq!(Pin::accept(Some(&pinned), &signed(1, "a")), Ok(()));
    }

    #[test]
    fn pins_round_trip_as_json() {
        for pin in [signed(10, "a"), unsigned(1)] {
            let json = serde_json::to_string(&pin).unwrap();
            assert_eq!(serde_json::from_str::<Pin>(&json).unwrap(), pin, "{json}");
        }
        assert_eq!(
            serde_json::to_string(&signed(10, "a")).unwrap(),
            r#"{"kind":"signed","epoch":10,"keys":"a"}"#
        );
    }

    #[test]
    fn errors_show_epochs_as_times() {
        let error = Pin::accept(
            Some(&signed(1_757_314_980_007, "a")),
            &signed(u64::MAX, "b"),
        );
        assert_eq!(error, Ok(()));
        let error = Pin::accept(
            Some(&signed(u64::MAX, "a")),
            &signed(1_757_314_980_007, "b"),
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("2025-09-08T07:03:00.007Z"), "{error}");
    }
}
