//! Signed keys.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::{AUTHORITY, NOW, RECEIVER, chain_text, for_servers, issue, now, receiver_key, wish};
use crate::Keyring;
use crate::identity::testing::{Ca, Wish};
use crate::identity::{Authority, Identity};
use crate::keys::{PrivateKey, RecipientKey, XWingPrivateKey};
use crate::signed_key::{Announcement, jws, verify};
use crate::signed_vector_tests::{BadKey, GoodKey, key_texts};
use crate::vector_tests::name;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn announced_keys(first: u8) -> Vec<RecipientKey> {
    Keyring::new(PrivateKey::from_bytes(&[first; 32]))
        .with_x_wing(XWingPrivateKey::from_bytes(&[first; 32]))
        .recipient_keys()
}

fn announce(identity: &Identity, keys: Vec<RecipientKey>, time: Timestamp) -> String {
    Announcement::new(identity, keys, time, DAY, None)
        .sign(identity)
        .unwrap()
}

pub(super) fn good(ca: &Ca) -> Vec<GoodKey> {
    let receiver = RECEIVER;
    let intermediate = ca.intermediate("An intermediate authority");
    let mut below = issue(&intermediate, receiver);
    below.chain.push(intermediate.certificate());
    [
        (
            "ECDSA P-384, keys for both suites",
            issue(ca, receiver),
            announced_keys(0xa1),
        ),
        (
            "ECDSA P-256, one suite",
            ca.issue_as(receiver, &wish(&rcgen::PKCS_ECDSA_P256_SHA256)),
            Keyring::new(receiver_key()).recipient_keys(),
        ),
        (
            "Ed25519",
            ca.issue_as(receiver, &wish(&rcgen::PKCS_ED25519)),
            announced_keys(0xa2),
        ),
        ("by way of an intermediate authority", below, announced_keys(0xa1)),
    ]
    .into_iter()
    .map(|(about, certificate, keys)| {
        let identity = certificate.identity();
        let announcement = Announcement::new(&identity, keys, now(), DAY, None);
        GoodKey {
            about: about.to_owned(),
            now: now().to_string(),
            algorithm: identity.algorithm().as_str().to_owned(),
            epoch: announcement.epoch,
            not_before: announcement.not_before.to_string(),
            not_after: announcement.not_after.to_string(),
            keys: key_texts(&announcement.keys),
            signed_key: announcement.sign(&identity).unwrap(),
        }
    })
    .collect()
}

/// What shows that a signed key is refused for one reason alone: it is believed,
enum But<'a> {
    /// if it is this one, which differs in what the case is about.
    Instead(String),
    /// at another time.
    At(Timestamp),
    /// under another authority.
    Under(Authority),
    /// if this one was not seen before, which is believed too.
    Unless(&'a str),
}

fn believed(about: &str, signed_key: &str, authority: &Authority, at: Timestamp) {
    let verified = verify(signed_key, &name(RECEIVER), authority, at);
    assert!(verified.is_ok(), "{about}: {verified:?}");
}

#[derive(Default)]
struct BadKeys(Vec<BadKey>);

impl BadKeys {
    fn case(&mut self, ca: &Ca, about: &str, expect: &str, at: Timestamp, signed_key: &str, but: But<'_>) {
        let mut pinned = None;
        match but {
            But::Instead(other) => believed(about, &other, &ca.authority(), at),
            But::At(other) => believed(about, signed_key, &ca.authority(), other),
            But::Under(other) => believed(about, signed_key, &other, at),
            But::Unless(seen) => {
                believed(about, seen, &ca.authority(), at);
                believed(about, signed_key, &ca.authority(), at);
                pinned = Some(seen.to_owned());
            }
        }
        self.0.push(BadKey {
            about: about.to_owned(),
            now: at.to_string(),
            pinned,
            expect: expect.to_owned(),
            signed_key: signed_key.to_owned(),
        });
    }
}

/// A signed key with any header, rightly signed.
fn with_header(signer: &Identity, algorithm: &str, typ: &str, more: &str, payload: &str) -> String {
    let x5c = chain_text(signer.chain()).join("\",\"");
    let header = format!(r#"{{"alg":"{algorithm}","typ":"{typ}","x5c":["{x5c}"]{more}}}"#);
    let signed = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(header));
    let signature = signer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A signed key with any payload: an announcement of `client` that is valid for the whole year.
fn announcing(signer: &Identity, client: &str, keys: &[String]) -> String {
    let keys = keys.join(",");
    let times = r#""epoch":1,"not_before":"2025-01-01T00:00:00.000Z","not_after":"2026-01-01T00:00:00.000Z""#;
    let payload = format!(r#"{{"client_id":"{client}","keys":[{keys}],{times}}}"#);
    jws::sign(signer, payload.as_bytes()).unwrap()
}

fn key_json(first: u8) -> String {
    let keyring = Keyring::new(PrivateKey::from_bytes(&[first; 32]));
    serde_json::to_string(&key_texts(&keyring.recipient_keys())[0]).unwrap()
}

pub(super) fn bad(ca: &Ca) -> Vec<BadKey> {
    let mut cases = BadKeys::default();
    misused_signatures(ca, &mut cases);
    wrong_forms(ca, &mut cases);
    wrong_certificates(ca, &mut cases);
    wrong_announcements(ca, &mut cases);
    wrong_times(ca, &mut cases);
    cases.0
}

fn misused_signatures(ca: &Ca, cases: &mut BadKeys) {
    let receiver = issue(ca, RECEIVER).identity();
    let mallory = issue(ca, "mallory").identity();
    let honest = announce(&receiver, announced_keys(0xa1), now());
    let [header, payload, signature]: [&str; 3] = honest.split('.').collect::<Vec<_>>().try_into().unwrap();
    let mut case = |about, expect, signed_key: &str| {
        let honest = But::Instead(honest.clone());
        cases.case(ca, about, expect, now(), signed_key, honest);
    };
    let by_mallory = with_header(&mallory, "ES384", "ciphermq-keys", "", payload);
    case(
        "what the receiver announces, signed by another client with its own certificate",
        "other_signer",
        &by_mallory,
    );
    let signature_of_mallory = mallory.sign(format!("{header}.{payload}").as_bytes()).unwrap();
    case(
        "the receiver's certificate and another client's signature",
        "signature",
        &format!(
            "{header}.{payload}.{}",
            URL_SAFE_NO_PAD.encode(signature_of_mallory)
        ),
    );
    let other = announce(&receiver, announced_keys(0xee), now());
    let other_payload = other.split('.').nth(1).unwrap();
    case(
        "one of the keys is another",
        "signature",
        &format!("{header}.{other_payload}.{signature}"),
    );
    case("no signature", "signature", &format!("{header}.{payload}."));
}

/// Rightly signed, so that a reader which passes over the form would believe them.
fn wrong_forms(ca: &Ca, cases: &mut BadKeys) {
    let receiver = issue(ca, RECEIVER).identity();
    let honest = announce(&receiver, announced_keys(0xa1), now());
    let payload = honest.split('.').nth(1).unwrap();
    let with_header = |algorithm, typ, more| with_header(&receiver, algorithm, typ, more, payload);
    let ours = with_header("ES384", "ciphermq-keys", "");
    let mut case = |about, expect, signed_key: &str| {
        cases.case(ca, about, expect, now(), signed_key, But::Instead(ours.clone()));
    };
    case(
        "the algorithm `none`",
        "algorithm",
        &with_header("none", "ciphermq-keys", ""),
    );
    case(
        "the algorithm of another kind of key",
        "algorithm",
        &with_header("ES256", "ciphermq-keys", ""),
    );
    case(
        "a signature of another kind",
        "malformed",
        &with_header("ES384", "JWT", ""),
    );
    case(
        "a header field that is not known",
        "malformed",
        &with_header("ES384", "ciphermq-keys", r#","crit":["exp"]"#),
    );
    case("two parts", "malformed", ours.rsplit_once('.').unwrap().0);
    case("a space at its end", "malformed", &format!("{ours} "));
    case("padding at its end", "malformed", &format!("{ours}="));
}

fn wrong_certificates(ca: &Ca, cases: &mut BadKeys) {
    let keys = [key_json(0xa1)];
    let other = Ca::new(AUTHORITY);
    let of_other = announcing(&issue(&other, RECEIVER).identity(), RECEIVER, &keys);
    cases.case(
        ca,
        "the certificate of another authority with the same name",
        "certificate_not_trusted",
        now(),
        &of_other,
        But::Under(other.authority()),
    );
    for (about, expect, (from, until), but) in [
        (
            "the certificate has expired",
            "certificate_expired",
            (-20, -10),
            -15,
        ),
        (
            "the certificate is not valid yet",
            "certificate_not_yet_valid",
            (10, 86_400),
            15,
        ),
    ] {
        let wish = Wish {
            valid: Some((NOW + from, NOW + until)),
            ..wish(&rcgen::PKCS_ECDSA_P384_SHA384)
        };
        let signed_key = announcing(&ca.issue_as(RECEIVER, &wish).identity(), RECEIVER, &keys);
        let but = But::At(Timestamp::from_second(NOW + but).unwrap());
        cases.case(ca, about, expect, now(), &signed_key, but);
    }
    let honest = announcing(&issue(ca, RECEIVER).identity(), RECEIVER, &keys);
    let server = announcing(&for_servers(ca, RECEIVER), RECEIVER, &keys);
    cases.case(
        ca,
        "the certificate is for servers only",
        "certificate_usage",
        now(),
        &server,
        But::Instead(honest),
    );
}

fn wrong_announcements(ca: &Ca, cases: &mut BadKeys) {
    let receiver = issue(ca, RECEIVER).identity();
    let key = key_json(0xa1);
    let key_id = receiver_key().public_key().key_id().to_string();
    let honest = announcing(&receiver, RECEIVER, std::slice::from_ref(&key));
    let mut case = |about, expect, signed_key: &str| {
        cases.case(ca, about, expect, now(), signed_key, But::Instead(honest.clone()));
    };
    case(
        "the receiver announces another client's keys",
        "other_client",
        &announcing(&receiver, "receiver_2", std::slice::from_ref(&key)),
    );
    let future = key.replace("X25519-AES256GCM", "FUTURE-AES256GCM");
    assert_ne!(future, key);
    case(
        "no suite that is known",
        "no_known_suite",
        &announcing(&receiver, RECEIVER, &[future]),
    );
    let other_id = key.replace(&key_id, "0123456789abcdef");
    assert_ne!(other_id, key);
    case(
        "the key id is another key's",
        "malformed",
        &announcing(&receiver, RECEIVER, &[other_id]),
    );
    case(
        "two keys for one suite",
        "malformed",
        &announcing(&receiver, RECEIVER, &[key.clone(), key_json(0xa2)]),
    );
    case(
        "a payload that is no JSON",
        "malformed",
        &jws::sign(&receiver, b"keys").unwrap(),
    );
}

fn wrong_times(ca: &Ca, cases: &mut BadKeys) {
    let receiver = issue(ca, RECEIVER).identity();
    let signed = announce(&receiver, announced_keys(0xa1), now());
    let (first, last) = (now() - HOUR, now() + DAY);
    cases.case(
        ca,
        "a millisecond after its end",
        "expired",
        last + MILLISECOND,
        &signed,
        But::At(last),
    );
    cases.case(
        ca,
        "a millisecond before its beginning, an hour before it was signed",
        "not_yet_valid",
        first - MILLISECOND,
        &signed,
        But::At(first),
    );
    let newer = announce(&receiver, announced_keys(0xa2), now() + MILLISECOND);
    cases.case(
        ca,
        "older than one that the sender has seen",
        "pinned_epoch_is_higher",
        now(),
        &signed,
        But::Unless(&newer),
    );
    let same_epoch = announce(&receiver, announced_keys(0xa2), now());
    cases.case(
        ca,
        "other keys under the epoch that the sender has seen",
        "pinned_keys_are_others",
        now(),
        &signed,
        But::Unless(&same_epoch),
    );
}
