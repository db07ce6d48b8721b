//! A receiver's own earlier signed keys, whose epochs the next one must exceed.

use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use serde::Deserialize;

use super::jws;
use crate::identity::{Authority, Identity};
use crate::keys::KeyId;

/// A signed key that this client has signed itself, whether still valid or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSignedKey {
    /// The epoch, which the next one must exceed.
    pub epoch: u64,
    /// The ids of the announced keys, as far as they can be parsed.
    pub key_ids: Vec<KeyId>,
}

impl OwnSignedKey {
    /// Parses a signed key if the client of `identity` has signed it; `None` otherwise.
    ///
    /// The client may have used the same private key with any certificate, or another private key
    /// with a certificate of `authority` that names the client.
    ///
    /// Dates are ignored: senders may have pinned the epoch of a key that has expired, or that is
    /// not valid yet because the clock was ahead. The signature is verified, so that nobody else
    /// can raise the epoch.
    #[must_use]
    pub fn read(
        signed_key: &str,
        identity: &Identity,
        authority: &Authority,
        now: Timestamp,
    ) -> Option<Self> {
        let jws = jws::parse(signed_key).ok()?;
        let certificate = identity
            .own_certificate(&jws.chain)
            .or_else(|| authority.verify_at_nearest_validity(&jws.chain, now).ok())
            .filter(|certificate| certificate.client_id() == identity.client_id())?;
        let is_signed = jws.algorithm == certificate.algorithm().as_str()
            && certificate.has_signed(jws.signed.as_bytes(), &jws.signature);
        if !is_signed {
            return None;
        }
        let statement: Statement = serde_json::from_slice(&jws.payload).ok()?;
        (statement.client_id == *identity.client_id()).then(|| Self {
            epoch: statement.epoch,
            key_ids: key_ids(&statement.keys),
        })
    }
}

/// Returns the epoch in a signed key **without verifying the signature**, for error messages.
#[must_use]
pub fn unverified_epoch(signed_key: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Stated {
        epoch: u64,
    }
    let jws = jws::parse(signed_key).ok()?;
    let stated: Stated = serde_json::from_slice(&jws.payload).ok()?;
    Some(stated.epoch)
}

/// Returns the ids of the keys in a signed key **without verifying it**.
#[must_use]
pub fn stated_key_ids(signed_key: &str) -> Vec<KeyId> {
    #[derive(Deserialize)]
    struct Stated {
        keys: serde_json::Value,
    }
    let stated = jws::parse(signed_key)
        .ok()
        .and_then(|jws| serde_json::from_slice::<Stated>(&jws.payload).ok());
    stated.map_or_else(Vec::new, |stated| key_ids(&stated.keys))
}

/// The relevant fields of the payload. Keys of later versions may have an unknown form.
#[derive(Deserialize)]
struct Statement {
    client_id: ClientId,
    epoch: u64,
    #[serde(default)]
    keys: serde_json::Value,
}

fn key_ids(keys: &serde_json::Value) -> Vec<KeyId> {
    let keys = keys.as_array().into_iter().flatten();
    keys.filter_map(|key| key.get("key_id")?.as_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::testing::{Ca, CertificateSpec};
    use crate::keys::{PrivateKey, RecipientKey};
    use crate::signed_key::Announcement;
    use std::time::Duration;

    const NOW: i64 = 1_800_000_000;
    const DAY: i64 = 24 * 60 * 60;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Signs a key at this time.
    fn signed(identity: &Identity, second: i64) -> String {
        let key = RecipientKey::X25519(*PrivateKey::from_bytes(&[7; 32]).public_key());
        let day = Duration::from_secs(DAY.cast_unsigned());
        let announcement = Announcement::new(identity, vec![key], at(second), day, None);
        announcement.sign(identity).unwrap()
    }

    fn valid(from: i64, until: i64) -> CertificateSpec {
        CertificateSpec {
            valid: Some((from, until)),
            ..CertificateSpec::default()
        }
    }

    #[test]
    fn the_epoch_counts_whatever_the_dates() {
        let ca = Ca::new("ca");
        let identity = ca.issue("receiver_1").identity();
        for second in [NOW, NOW + 3 * 60 * 60, NOW + 400 * DAY, NOW - 400 * DAY] {
            let own = OwnSignedKey::read(
                &signed(&identity, second),
                &identity,
                &ca.authority(),
                at(NOW),
            );
            let own = own.unwrap();
            assert_eq!(own.epoch, u64::try_from(second).unwrap() * 1000);
            let key = PrivateKey::from_bytes(&[7; 32]);
            assert_eq!(own.key_ids, [key.public_key().key_id()]);
        }
    }

    #[test]
    fn signatures_of_earlier_certificates_count() {
        let [ca, other] = ["ca", "other"].map(Ca::new);
        let (before, after) = (
            valid(NOW - 9 * DAY, NOW - DAY),
            valid(NOW - DAY, NOW + 9 * DAY),
        );
        let identity = ca.issue_as("receiver_1", &after).identity();
        let read = |signed: &str| OwnSignedKey::read(signed, &identity, &ca.authority(), at(NOW));
        // Other key pairs of the same client, of an expired certificate and of a future one.
        let expired = ca.issue_as("receiver_1", &before).identity();
        assert!(read(&signed(&expired, NOW - 5 * DAY)).is_some());
        let to_come = ca
            .issue_as("receiver_1", &valid(NOW + DAY, NOW + 9 * DAY))
            .identity();
        assert!(read(&signed(&to_come, NOW + 2 * DAY)).is_some());
        // A certificate of an authority that is no longer trusted counts only with the own private
        // key.
        let issued = ca.issue("receiver_1");
        let renewed = other.renew(&issued, "receiver_1").identity();
        let ours = issued.identity();
        let from_other = signed(&renewed, NOW);
        assert!(OwnSignedKey::read(&from_other, &ours, &ca.authority(), at(NOW)).is_some());
        assert!(read(&from_other).is_none());
    }

    #[test]
    fn signatures_of_others_and_altered_keys_do_not_count() {
        let [ca, other] = ["ca", "other"].map(Ca::new);
        let identity = ca.issue("receiver_1").identity();
        let read = |signed: &str| OwnSignedKey::read(signed, &identity, &ca.authority(), at(NOW));
        let own = signed(&identity, NOW);
        assert!(read(&own).is_some());
        for stranger in [
            ca.issue("mallory").identity(),
            other.issue("receiver_1").identity(),
        ] {
            assert!(read(&signed(&stranger, NOW)).is_none());
        }
        // Mallory claims to be the receiver; the receiver claims to be another client.
        let claim = br#"{"client_id":"receiver_1","keys":[],"epoch":18446744073709551615}"#;
        let mallory = ca.issue("mallory").identity();
        assert!(read(&jws::sign(&mallory, claim).unwrap()).is_none());
        let of_other = br#"{"client_id":"receiver_2","keys":[],"epoch":1}"#;
        assert!(read(&jws::sign(&identity, of_other).unwrap()).is_none());
        // A higher epoch under the receiver's signature of another payload.
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let parts: Vec<&str> = own.split('.').collect();
        let payload = URL_SAFE_NO_PAD.encode(claim);
        assert!(read(&format!("{}.{payload}.{}", parts[0], parts[2])).is_none());
        for other in ["", "..", "x.y.z"] {
            assert!(read(other).is_none());
        }
    }

    #[test]
    fn keys_of_an_unknown_form_do_not_hide_the_epoch() {
        let ca = Ca::new("ca");
        let identity = ca.issue("receiver_1").identity();
        for keys in [r#"[{"suite":"NEW","key":{}}]"#, "7", "null"] {
            let payload = format!(r#"{{"client_id":"receiver_1","keys":{keys},"epoch":5}}"#);
            let signed = jws::sign(&identity, payload.as_bytes()).unwrap();
            let own = OwnSignedKey::read(&signed, &identity, &ca.authority(), at(NOW)).unwrap();
            assert_eq!((own.epoch, own.key_ids.len()), (5, 0));
        }
    }
}
