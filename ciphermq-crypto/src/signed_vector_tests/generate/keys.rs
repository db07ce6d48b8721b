//! Cases of signed keys.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::{AUTHORITY, NOW, RECEIVER, chain_text, for_servers, issue, now, receiver_key, spec};
use crate::Keyring;
use crate::encoding::encode;
use crate::identity::testing::{Ca, CertificateSpec};
use crate::identity::{Authority, Identity};
use crate::keys::{PrivateKey, RecipientKey, XWingPrivateKey};
use crate::signed_key::{Announcement, VerifiedKeys, jws, verify};
use crate::signed_vector_tests::{BadKey, GoodKey, key_texts};
use crate::vector_tests::name;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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

pub(super) fn good(cases: &mut Cases<'_>) {
    let (ca, receiver) = (cases.ca, RECEIVER);
    let intermediate = ca.intermediate("An intermediate authority");
    let mut below = issue(&intermediate, receiver);
    below.chain.push(intermediate.certificate());
    for (about, certificate, keys) in [
        (
            "ECDSA P-384, keys for both suites",
            issue(ca, receiver),
            announced_keys(0xa1),
        ),
        (
            "ECDSA P-256, one suite",
            ca.issue_as(receiver, &spec(&rcgen::PKCS_ECDSA_P256_SHA256)),
            Keyring::new(receiver_key()).recipient_keys(),
        ),
        (
            "Ed25519",
            ca.issue_as(receiver, &spec(&rcgen::PKCS_ED25519)),
            announced_keys(0xa2),
        ),
        (
            "by way of an intermediate authority",
            below,
            announced_keys(0xa1),
        ),
    ] {
        cases.good(about, &announce(&certificate.identity(), keys, now()));
    }
}

/// The control of a bad case: the change with which the signed key is accepted.
pub(super) enum Control<'a> {
    /// This signed key, without the fault, instead.
    OtherKey(String),
    /// Another time.
    OtherTime(Timestamp),
    /// Another authority.
    OtherAuthority(Authority),
    /// No pin of this signed key, which is accepted, too.
    NoPin(&'a str),
}

fn accepted(about: &str, signed_key: &str, authority: &Authority, at: Timestamp) -> VerifiedKeys {
    verify(signed_key, &name(RECEIVER), authority, at)
        .unwrap_or_else(|error| panic!("{about}: {error}"))
}

/// A collection of cases of one authority.
pub(super) struct Cases<'a> {
    pub(super) ca: &'a Ca,
    good: Vec<GoodKey>,
    bad: Vec<BadKey>,
}

/// The collected cases.
pub(super) struct Generated {
    pub(super) good: Vec<GoodKey>,
    pub(super) bad: Vec<BadKey>,
}

impl<'a> Cases<'a> {
    pub(super) fn new(ca: &'a Ca) -> Self {
        Self {
            ca,
            good: Vec::new(),
            bad: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> Generated {
        Generated {
            good: self.good,
            bad: self.bad,
        }
    }

    /// Adds a signed key that is accepted now.
    pub(super) fn good(&mut self, about: &str, signed_key: &str) {
        self.good_under(self.ca, about, now(), signed_key);
    }

    /// Adds a signed key that is accepted at this time by this authority.
    pub(super) fn good_under(&mut self, ca: &Ca, about: &str, at: Timestamp, signed_key: &str) {
        let verified = accepted(about, signed_key, &ca.authority(), at);
        let payload = URL_SAFE_NO_PAD
            .decode(signed_key.split('.').nth(1).unwrap())
            .unwrap();
        let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let text = |field: &str| payload[field].as_str().unwrap().to_owned();
        self.good.push(GoodKey {
            about: about.to_owned(),
            now: at.to_string(),
            authority: self.other_authority(ca),
            algorithm: verified.certificate.algorithm().to_string(),
            epoch: verified.announcement.epoch,
            not_before: text("not_before"),
            not_after: text("not_after"),
            keys: key_texts(&verified.announcement.keys),
            signed_key: signed_key.to_owned(),
        });
    }

    /// Adds a signed key that this authority refuses now, although `good`, without the fault, is
    /// accepted.
    pub(super) fn bad_under(
        &mut self,
        ca: &Ca,
        about: &str,
        expect: &str,
        signed_key: &str,
        good: &str,
    ) {
        accepted(about, good, &ca.authority(), now());
        self.bad.push(BadKey {
            about: about.to_owned(),
            now: now().to_string(),
            authority: self.other_authority(ca),
            pinned: None,
            expect: expect.to_owned(),
            signed_key: signed_key.to_owned(),
        });
    }

    /// Returns the certificate of an authority that is not the file's.
    fn other_authority(&self, ca: &Ca) -> Option<String> {
        (ca.certificate() != self.ca.certificate()).then(|| encode(&ca.certificate()))
    }

    /// Adds a signed key that is refused now, although `good`, without the fault, is accepted.
    pub(super) fn bad(&mut self, about: &str, expect: &str, signed_key: &str, good: &str) {
        self.bad_under(self.ca, about, expect, signed_key, good);
    }

    pub(super) fn case(
        &mut self,
        about: &str,
        expect: &str,
        at: Timestamp,
        signed_key: &str,
        control: Control<'_>,
    ) {
        let authority = self.ca.authority();
        let mut pinned = None;
        match control {
            Control::OtherKey(other) => drop(accepted(about, &other, &authority, at)),
            Control::OtherTime(other) => drop(accepted(about, signed_key, &authority, other)),
            Control::OtherAuthority(other) => drop(accepted(about, signed_key, &other, at)),
            Control::NoPin(seen) => {
                accepted(about, seen, &authority, at);
                accepted(about, signed_key, &authority, at);
                pinned = Some(seen.to_owned());
            }
        }
        self.bad.push(BadKey {
            about: about.to_owned(),
            now: at.to_string(),
            authority: None,
            pinned,
            expect: expect.to_owned(),
            signed_key: signed_key.to_owned(),
        });
    }
}

/// Signs a key with any header.
fn with_header(signer: &Identity, algorithm: &str, typ: &str, more: &str, payload: &str) -> String {
    let x5c = chain_text(signer.chain()).join("\",\"");
    let header = format!(r#"{{"alg":"{algorithm}","typ":"{typ}","x5c":["{x5c}"]{more}}}"#);
    let signed = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(header));
    let signature = signer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Signs an announcement of `client` with any keys, valid for the whole year.
pub(super) fn announcing(signer: &Identity, client: &str, keys: &[String]) -> String {
    let keys = keys.join(",");
    let times = r#""epoch":1,"not_before":"2025-01-01T00:00:00.000Z","not_after":"2026-01-01T00:00:00.000Z""#;
    let payload = format!(r#"{{"client_id":"{client}","keys":[{keys}],{times}}}"#);
    jws::sign(signer, payload.as_bytes()).unwrap()
}

pub(super) fn key_json(first: u8) -> String {
    let keyring = Keyring::new(PrivateKey::from_bytes(&[first; 32]));
    serde_json::to_string(&key_texts(&keyring.recipient_keys())[0]).unwrap()
}

pub(super) fn bad(cases: &mut Cases<'_>) {
    misused_signatures(cases.ca, cases);
    wrong_forms(cases.ca, cases);
    wrong_certificates(cases.ca, cases);
    wrong_announcements(cases.ca, cases);
    wrong_times(cases.ca, cases);
}

fn misused_signatures(ca: &Ca, cases: &mut Cases<'_>) {
    let receiver = issue(ca, RECEIVER).identity();
    let mallory = issue(ca, "mallory").identity();
    let honest = announce(&receiver, announced_keys(0xa1), now());
    let [header, payload, signature]: [&str; 3] =
        honest.split('.').collect::<Vec<_>>().try_into().unwrap();
    let mut case = |about, expect, signed_key: &str| {
        let honest = Control::OtherKey(honest.clone());
        cases.case(about, expect, now(), signed_key, honest);
    };
    let by_mallory = with_header(&mallory, "ES384", "ciphermq-keys", "", payload);
    case(
        "what the receiver announces, signed by another client with its own certificate",
        "other_signer",
        &by_mallory,
    );
    let signature_of_mallory = mallory
        .sign(format!("{header}.{payload}").as_bytes())
        .unwrap();
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

/// The signatures are right, so a lenient parser would accept these.
fn wrong_forms(ca: &Ca, cases: &mut Cases<'_>) {
    let receiver = issue(ca, RECEIVER).identity();
    let honest = announce(&receiver, announced_keys(0xa1), now());
    let payload = honest.split('.').nth(1).unwrap();
    let with_header = |algorithm, typ, more| with_header(&receiver, algorithm, typ, more, payload);
    let ours = with_header("ES384", "ciphermq-keys", "");
    let mut case = |about, expect, signed_key: &str| {
        cases.case(
            about,
            expect,
            now(),
            signed_key,
            Control::OtherKey(ours.clone()),
        );
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

fn wrong_certificates(ca: &Ca, cases: &mut Cases<'_>) {
    let keys = [key_json(0xa1)];
    let other = Ca::new(AUTHORITY);
    let of_other = announcing(&issue(&other, RECEIVER).identity(), RECEIVER, &keys);
    cases.case(
        "the certificate of another authority with the same name",
        "certificate_not_trusted",
        now(),
        &of_other,
        Control::OtherAuthority(other.authority()),
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
        let spec = CertificateSpec {
            valid: Some((NOW + from, NOW + until)),
            ..spec(&rcgen::PKCS_ECDSA_P384_SHA384)
        };
        let signed_key = announcing(&ca.issue_as(RECEIVER, &spec).identity(), RECEIVER, &keys);
        let but = Control::OtherTime(Timestamp::from_second(NOW + but).unwrap());
        cases.case(about, expect, now(), &signed_key, but);
    }
    let honest = announcing(&issue(ca, RECEIVER).identity(), RECEIVER, &keys);
    let server = announcing(&for_servers(ca, RECEIVER), RECEIVER, &keys);
    cases.case(
        "the certificate is for servers only",
        "certificate_usage",
        now(),
        &server,
        Control::OtherKey(honest),
    );
}

fn wrong_announcements(ca: &Ca, cases: &mut Cases<'_>) {
    let receiver = issue(ca, RECEIVER).identity();
    let key = key_json(0xa1);
    let key_id = receiver_key().public_key().key_id().to_string();
    let honest = announcing(&receiver, RECEIVER, std::slice::from_ref(&key));
    let mut case = |about, expect, signed_key: &str| {
        cases.case(
            about,
            expect,
            now(),
            signed_key,
            Control::OtherKey(honest.clone()),
        );
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

fn wrong_times(ca: &Ca, cases: &mut Cases<'_>) {
    let receiver = issue(ca, RECEIVER).identity();
    let signed = announce(&receiver, announced_keys(0xa1), now());
    let (first, last) = (now() - HOUR, now() + DAY);
    cases.case(
        "a millisecond after its end",
        "expired",
        last + MILLISECOND,
        &signed,
        Control::OtherTime(last),
    );
    cases.case(
        "a millisecond before its beginning, an hour before it was signed",
        "not_yet_valid",
        first - MILLISECOND,
        &signed,
        Control::OtherTime(first),
    );
    let newer = announce(&receiver, announced_keys(0xa2), now() + MILLISECOND);
    cases.case(
        "older than one that the sender has seen",
        "pinned_epoch_is_higher",
        now(),
        &signed,
        Control::NoPin(&newer),
    );
    let same_epoch = announce(&receiver, announced_keys(0xa2), now());
    cases.case(
        "other keys under the epoch that the sender has seen",
        "pinned_keys_are_others",
        now(),
        &signed,
        Control::NoPin(&same_epoch),
    );
}
