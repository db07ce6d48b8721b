//! Verification of signed keys by senders.

use ciphermq_protocol::ClientId;
use jiff::Timestamp;

use super::{Announcement, Pin, jws};
use crate::identity::{Authority, Certificate, CertificateError};
use crate::keys::RecipientKey;
use crate::suite::Suite;

/// A receiver's keys whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedKeys {
    /// The announcement.
    pub announcement: Announcement,
    /// The certificate of the signature.
    pub certificate: Certificate,
}

/// The reason why a signed key is refused.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedKeyError {
    /// The signed key is not a compact JWS of this form.
    #[error("the signed key cannot be read: {0}")]
    Malformed(String),
    /// The certificate is refused.
    #[error("the certificate of the signed key is refused: {0}")]
    Certificate(#[from] CertificateError),
    /// Somebody other than the receiver has signed it.
    #[error("the signed key was signed by `{0}`, not by the receiver")]
    OtherSigner(ClientId),
    /// The header names another algorithm than that of the certificate's key.
    #[error("the signed key states the algorithm `{stated}`, its certificate's key has `{own}`")]
    Algorithm {
        /// The algorithm in the header.
        stated: String,
        /// The algorithm of the certificate's key.
        own: &'static str,
    },
    /// The signature does not verify.
    #[error("the signature of the signed key is wrong: it was altered, or forged")]
    Signature,
    /// The signed key announces keys of another client.
    #[error("the signed key announces the keys of `{0}`, not the receiver's")]
    OtherClient(ClientId),
    /// The signed key has expired.
    #[error("the signed key was valid until {0}")]
    Expired(Timestamp),
    /// The signed key is not valid yet.
    #[error("the signed key is valid only from {0} on")]
    NotYetValid(Timestamp),
    /// The signed key announces no known suite.
    #[error("the signed key announces no suite that this version knows")]
    NoKnownSuite,
}

ciphermq_protocol::debug_as_report!(SignedKeyError);

/// Verifies a signed key: chain, usage, validity, name, signature, keys.
///
/// [`Pin::accept`] compares the epoch.
///
/// # Errors
///
/// [`SignedKeyError`], about the first failed check.
pub fn verify(
    signed_key: &str,
    receiver: &ClientId,
    authority: &Authority,
    now: Timestamp,
) -> Result<VerifiedKeys, SignedKeyError> {
    let jws = jws::parse(signed_key).map_err(|what| SignedKeyError::Malformed(what.to_owned()))?;
    let certificate = authority.verify(&jws.chain, now)?;
    if certificate.client_id() != receiver {
        return Err(SignedKeyError::OtherSigner(certificate.client_id().clone()));
    }
    let own = certificate.algorithm().as_str();
    if jws.algorithm != own {
        let stated = jws.algorithm;
        return Err(SignedKeyError::Algorithm { stated, own });
    }
    if !certificate.has_signed(jws.signed.as_bytes(), &jws.signature) {
        return Err(SignedKeyError::Signature);
    }
    // The payload is the receiver's from here on; what remains is whether it is usable.
    let announcement = Announcement::read(&jws.payload).map_err(SignedKeyError::Malformed)?;
    if announcement.client_id != *receiver {
        return Err(SignedKeyError::OtherClient(announcement.client_id));
    }
    if now > announcement.not_after {
        return Err(SignedKeyError::Expired(announcement.not_after));
    }
    if now < announcement.not_before {
        return Err(SignedKeyError::NotYetValid(announcement.not_before));
    }
    if announcement.keys.is_empty() {
        return Err(SignedKeyError::NoKnownSuite);
    }
    Ok(VerifiedKeys {
        announcement,
        certificate,
    })
}

impl VerifiedKeys {
    /// Returns the key of the strongest suite that the receiver accepts.
    #[must_use]
    pub fn strongest(&self) -> Option<&RecipientKey> {
        Suite::ALL
            .into_iter()
            .find_map(|suite| self.of_suite(suite))
    }

    /// Returns the key of this suite, if the receiver accepts it.
    #[must_use]
    pub fn of_suite(&self, suite: Suite) -> Option<&RecipientKey> {
        self.announcement
            .keys
            .iter()
            .find(|key| key.suite() == suite)
    }

    /// Returns the pin of these keys.
    #[must_use]
    pub fn pin(&self) -> Pin {
        Pin::signed(&self.announcement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Keyring;
    use crate::identity::testing::{Ca, CertificateSpec};
    use crate::keys::{PrivateKey, XWingPrivateKey};
    use crate::vector_tests::name;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use std::time::Duration;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn keys() -> Vec<RecipientKey> {
        Keyring::new(PrivateKey::generate().unwrap())
            .with_x_wing(XWingPrivateKey::generate().unwrap())
            .recipient_keys()
    }

    fn announce(ca: &Ca, client: &str) -> (Announcement, String) {
        let identity = ca.issue(client).identity();
        let announcement = Announcement::new(&identity, keys(), now(), DAY, None);
        let signed = announcement.sign(&identity).unwrap();
        (announcement, signed)
    }

    fn check(ca: &Ca, signed: &str) -> Result<VerifiedKeys, SignedKeyError> {
        verify(signed, &name("receiver_1"), &ca.authority(), now())
    }

    #[test]
    fn a_receivers_announcement_is_accepted() {
        let ca = Ca::new("ca");
        let (announcement, signed) = announce(&ca, "receiver_1");
        assert!(!signed.contains(char::is_whitespace));
        let verified = check(&ca, &signed).unwrap();
        assert_eq!(verified.announcement.keys, announcement.keys);
        assert_eq!(verified.announcement.epoch, 1_800_000_000_000);
        assert_eq!(verified.announcement, announcement);
        let strongest = verified.strongest().unwrap();
        assert_eq!(strongest.suite(), Suite::XWingAes256Gcm);
        assert_eq!(
            verified.of_suite(Suite::X25519Aes256Gcm),
            Some(&announcement.keys[1])
        );
    }

    #[test]
    fn another_client_cannot_announce_for_the_receiver() {
        let ca = Ca::new("ca");
        let (_, signed) = announce(&ca, "mallory");
        assert_eq!(
            check(&ca, &signed).unwrap_err(),
            SignedKeyError::OtherSigner(name("mallory"))
        );
        // Not even with a payload that names the receiver.
        let mallory = ca.issue("mallory").identity();
        let forged =
            br#"{"client_id":"receiver_1","keys":[],"epoch":1,"not_before":"","not_after":""}"#;
        let signed = jws::sign(&mallory, forged).unwrap();
        assert_eq!(
            check(&ca, &signed).unwrap_err(),
            SignedKeyError::OtherSigner(name("mallory"))
        );
        // Not even with the receiver's certificate and mallory's signature.
        let (_, honest) = announce(&ca, "receiver_1");
        let parts: Vec<_> = honest.split('.').collect();
        let signature = signed.rsplit('.').next().unwrap();
        let mixed = format!("{}.{}.{signature}", parts[0], parts[1]);
        assert_eq!(check(&ca, &mixed).unwrap_err(), SignedKeyError::Signature);
    }

    #[test]
    fn another_authority_cannot_name_the_receiver() {
        let [ca, other] = ["ca", "ca"].map(Ca::new);
        let (_, signed) = announce(&other, "receiver_1");
        let error = check(&ca, &signed).unwrap_err();
        assert!(
            matches!(
                error,
                SignedKeyError::Certificate(CertificateError::NotTrusted(_))
            ),
            "{error}"
        );
    }

    #[test]
    fn a_receivers_announcement_of_another_clients_keys_is_refused() {
        let ca = Ca::new("ca");
        let receiver = ca.issue("receiver_1").identity();
        let (mut announcement, _) = announce(&ca, "receiver_1");
        announcement.client_id = name("receiver_2");
        assert!(announcement.sign(&receiver).is_err());
        let payload = br#"{"client_id":"receiver_2","keys":[],"epoch":1,"not_before":"2027-01-01T00:00:00.000Z","not_after":"2028-01-01T00:00:00.000Z"}"#;
        let signed = jws::sign(&receiver, payload).unwrap();
        assert_eq!(
            check(&ca, &signed).unwrap_err(),
            SignedKeyError::OtherClient(name("receiver_2"))
        );
    }

    #[test]
    fn a_signed_key_is_refused_outside_its_validity() {
        let ca = Ca::new("ca");
        let (announcement, signed) = announce(&ca, "receiver_1");
        let at = |time| verify(&signed, &name("receiver_1"), &ca.authority(), time).map(|_| ());
        let millisecond = Duration::from_millis(1);
        assert_eq!(at(announcement.not_after), Ok(()));
        assert_eq!(
            at(announcement.not_after + millisecond),
            Err(SignedKeyError::Expired(announcement.not_after))
        );
        assert_eq!(at(announcement.not_before), Ok(()));
        assert_eq!(
            at(announcement.not_before - millisecond),
            Err(SignedKeyError::NotYetValid(announcement.not_before))
        );
    }

    #[test]
    fn validity_ends_with_the_certificate() {
        let ca = Ca::new("ca");
        let until = now().as_second() + 60;
        let spec = CertificateSpec {
            valid: Some((0, until)),
            ..CertificateSpec::default()
        };
        let identity = ca.issue_as("receiver_1", &spec).identity();
        let announcement = Announcement::new(&identity, keys(), now(), DAY, None);
        assert_eq!(announcement.not_after.as_second(), until);
        let later = now() + 2 * DAY;
        let late = Announcement::new(&identity, keys(), later, DAY, None);
        assert!(matches!(
            late.sign(&identity),
            Err(AnnouncementError::Expired(_))
        ));
    }

    use crate::signed_key::AnnouncementError;

    #[test]
    fn epochs_increase_even_if_the_clock_does_not() {
        let identity = Ca::new("ca").issue("receiver_1").identity();
        let epoch = |after| Announcement::new(&identity, keys(), now(), DAY, after).epoch;
        assert_eq!(epoch(None), 1_800_000_000_000);
        assert_eq!(epoch(Some(5)), 1_800_000_000_000);
        assert_eq!(epoch(Some(1_900_000_000_000)), 1_900_000_000_001);
    }

    #[test]
    fn an_announcement_has_one_key_per_suite_and_at_least_one() {
        let identity = Ca::new("ca").issue("receiver_1").identity();
        let twice = [keys(), keys()].concat();
        for keys in [Vec::new(), twice] {
            let announcement = Announcement::new(&identity, keys, now(), DAY, None);
            assert_eq!(announcement.sign(&identity), Err(AnnouncementError::Keys));
        }
    }

    fn signed_payload(ca: &Ca, payload: &str) -> Result<VerifiedKeys, SignedKeyError> {
        let identity = ca.issue("receiver_1").identity();
        check(ca, &jws::sign(&identity, payload.as_bytes()).unwrap())
    }

    #[test]
    fn unknown_suites_are_ignored() {
        let ca = Ca::new("ca");
        let key = PrivateKey::from_bytes(&[7; 32]);
        let payload = |keys: &str| {
            format!(
                r#"{{"client_id":"receiver_1","keys":[{keys}],"epoch":1,"not_before":"2027-01-01T00:00:00.000Z","not_after":"2028-01-01T00:00:00.000Z","new":1}}"#
            )
        };
        let future = r#"{"suite":"FUTURE-AES256GCM","key_id":"x","key":"y"}"#;
        let bare = r#"{"suite":"NEW","key":"AA=="}"#;
        let odd = r#"{"suite":"NEWER","key":{"a":[null]},"key_id":7}"#;
        let ours = format!(
            r#"{{"suite":"X25519-AES256GCM","key_id":"{}","key":"{}"}}"#,
            key.public_key().key_id(),
            key.public_key()
        );
        let verified = signed_payload(
            &ca,
            &payload(&format!("{future},{bare},{ours},{odd},{bare}")),
        )
        .unwrap();
        assert_eq!(verified.announcement.keys.len(), 1);
        assert_eq!(
            signed_payload(&ca, &payload(future)).unwrap_err(),
            SignedKeyError::NoKnownSuite
        );
        for none in [
            r#""NEW""#,
            "{}",
            "null",
            r#"{"suite":null}"#,
            r#"{"suite":"NEW","suite":"NEW"}"#,
        ] {
            let error = signed_payload(&ca, &payload(&format!("{none},{ours}"))).unwrap_err();
            assert!(
                matches!(error, SignedKeyError::Malformed(_)),
                "{none}: {error}"
            );
        }
        let other_id = ours.replace(&key.public_key().key_id().to_string(), "0000000000000000");
        let error = signed_payload(&ca, &payload(&other_id)).unwrap_err();
        assert!(matches!(error, SignedKeyError::Malformed(_)), "{error}");
        let error = signed_payload(&ca, &payload(&format!("{ours},{ours}"))).unwrap_err();
        assert!(matches!(error, SignedKeyError::Malformed(_)), "{error}");
    }

    #[test]
    fn other_headers_are_refused() {
        let ca = Ca::new("ca");
        let (_, signed) = announce(&ca, "receiver_1");
        let (header, rest) = signed.split_once('.').unwrap();
        let header: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        let with = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut header = header.clone();
            change(&mut header);
            let header = URL_SAFE_NO_PAD.encode(header.to_string());
            check(&ca, &format!("{header}.{rest}")).unwrap_err()
        };
        for error in [
            with(&|header| header["typ"] = "JWT".into()),
            with(&|header| header["crit"] = serde_json::json!(["exp"])),
            with(&|header| header["jwk"] = serde_json::json!({})),
            with(&|header| header["x5c"] = serde_json::json!("x")),
            with(&|header| header["x5c"] = serde_json::json!(["!"])),
        ] {
            assert!(matches!(error, SignedKeyError::Malformed(_)), "{error}");
        }
        for algorithm in ["none", "HS256", "ES256", "EdDSA", "es384", ""] {
            let error = with(&|header| header["alg"] = algorithm.into());
            assert!(matches!(error, SignedKeyError::Algorithm { .. }), "{error}");
        }
        let error = with(&|header| header["x5c"] = serde_json::json!([]));
        assert_eq!(
            error,
            SignedKeyError::Certificate(CertificateError::Missing)
        );
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let ca = Ca::new("ca");
        let (_, signed) = announce(&ca, "receiver_1");
        for index in 0..signed.len() {
            let mut altered = signed.clone().into_bytes();
            altered[index] ^= 1;
            if let Ok(altered) = String::from_utf8(altered) {
                assert!(check(&ca, &altered).is_err(), "{index}");
            }
        }
        for length in (0..signed.len()).step_by(7) {
            assert!(check(&ca, &signed[..length]).is_err(), "{length}");
        }
        for other in [
            "",
            ".",
            "..",
            "...",
            &format!("{signed}."),
            &format!("{signed}="),
            &format!(" {signed}"),
            &"x".repeat(70_000),
        ] {
            assert!(check(&ca, other).is_err());
        }
    }
}
