//! Contents of signed keys: epochs, times, names, suites and keys, at their bounds and beyond.

use std::fmt;

use super::keys::{Cases, key_json};
use super::signer::Signer;
use super::{RECEIVER, issue};
use crate::encoding::encode;
use crate::keys::{KeyId, XWingPrivateKey};

/// The JSON values of a payload.
pub(super) struct Payload {
    pub(super) client_id: String,
    pub(super) keys: Vec<String>,
    pub(super) epoch: String,
    pub(super) not_before: String,
    pub(super) not_after: String,
}

impl Default for Payload {
    fn default() -> Self {
        Self {
            client_id: format!("\"{RECEIVER}\""),
            keys: vec![key_json(0xa1)],
            epoch: "1".to_owned(),
            not_before: "\"2025-01-01T00:00:00.000Z\"".to_owned(),
            not_after: "\"2026-01-01T00:00:00.000Z\"".to_owned(),
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client_id,
            keys,
            epoch,
            not_before,
            not_after,
        } = self;
        let keys = keys.join(",");
        write!(
            f,
            r#"{{"client_id":{client_id},"keys":[{keys}],"epoch":{epoch},"not_before":{not_before},"not_after":{not_after}}}"#
        )
    }
}

pub(super) fn cases(cases: &mut Cases<'_>) {
    let signer = Signer::p384(&issue(cases.ca, RECEIVER));
    epochs(cases, &signer);
    times(cases, &signer);
    names(cases, &signer);
    suites(cases, &signer);
    keys(cases, &signer);
}

fn refused(cases: &mut Cases<'_>, signer: &Signer, about: &str, payload: &Payload) {
    let good = signer.signed_key(&Payload::default().to_string());
    cases.bad(
        about,
        "malformed",
        &signer.signed_key(&payload.to_string()),
        &good,
    );
}

fn epochs(cases: &mut Cases<'_>, signer: &Signer) {
    let with = |epoch: &str| Payload {
        epoch: epoch.to_owned(),
        ..Payload::default()
    };
    for (about, epoch) in [
        ("the lowest epoch", "0"),
        ("the highest epoch", "18446744073709551615"),
    ] {
        cases.good(about, &signer.signed_key(&with(epoch).to_string()));
    }
    for (about, epoch) in [
        ("an epoch below zero", "-1"),
        ("an epoch of minus zero", "-0"),
        ("an epoch of 2^64", "18446744073709551616"),
        ("an epoch with a fraction", "1.0"),
        ("an epoch with an exponent", "1e3"),
        ("an epoch with a leading zero", "01"),
        ("an epoch that is a text", "\"1\""),
        ("an epoch that is null", "null"),
    ] {
        refused(cases, signer, about, &with(epoch));
    }
    let without = Payload::default().to_string().replace("\"epoch\":1,", "");
    let good = signer.signed_key(&Payload::default().to_string());
    cases.bad("no epoch", "malformed", &signer.signed_key(&without), &good);
}

fn times(cases: &mut Cases<'_>, signer: &Signer) {
    let always = Payload {
        not_before: "\"0000-01-01T00:00:00.000Z\"".to_owned(),
        not_after: "\"9999-12-31T23:59:59.999Z\"".to_owned(),
        ..Payload::default()
    };
    cases.good(
        "from the first time to the last",
        &signer.signed_key(&always.to_string()),
    );
    for (about, time) in [
        ("a time without a fraction", "\"2026-01-01T00:00:00Z\""),
        (
            "a time with six digits of it",
            "\"2026-01-01T00:00:00.000000Z\"",
        ),
        ("a time in small letters", "\"2026-01-01t00:00:00.000z\""),
        ("a time with a space", "\"2026-01-01 00:00:00.000Z\""),
        ("a time with a comma", "\"2026-01-01T00:00:00,000Z\""),
        ("a time with an offset", "\"2026-01-01T00:00:00.000+00:00\""),
        ("a leap second", "\"2016-12-31T23:59:60.000Z\""),
        ("an hour 24", "\"2026-01-01T24:00:00.000Z\""),
        (
            "a day that the year does not have",
            "\"2026-02-29T00:00:00.000Z\"",
        ),
        ("a year of five digits", "\"12026-01-01T00:00:00.000Z\""),
        ("a time that is a number", "1767225600000"),
        ("a time that is null", "null"),
    ] {
        let payload = Payload {
            not_after: time.to_owned(),
            ..Payload::default()
        };
        refused(cases, signer, about, &payload);
    }
}

fn names(cases: &mut Cases<'_>, signer: &Signer) {
    let long = format!("\"{}\"", "x".repeat(256));
    for (about, client_id) in [
        ("a client id that is null", "null"),
        ("an empty client id", "\"\""),
        ("a client id with a space", "\"receiver 1\""),
        (
            "a client id with an invisible character",
            "\"receiver_1\\u200b\"",
        ),
        ("a client id of 256 bytes", &long),
    ] {
        let payload = Payload {
            client_id: client_id.to_owned(),
            ..Payload::default()
        };
        refused(cases, signer, about, &payload);
    }
}

fn suites(cases: &mut Cases<'_>, signer: &Signer) {
    let with = |keys: Vec<String>| Payload {
        keys,
        ..Payload::default()
    };
    let x_wing = XWingPrivateKey::from_bytes(&[0xa1; 32]);
    let x_wing = x_wing_json(x_wing.public_key().as_bytes());
    cases.good(
        "an X-Wing key alone",
        &signer.signed_key(&with(vec![x_wing]).to_string()),
    );
    let new = [
        r#"{"suite":"NEW","key":"AA=="}"#,
        r#"{"suite":"NEW"}"#,
        r#"{"suite":"x25519-aes256gcm","key":null,"key_id":7,"more":{"a":1,"a":2}}"#,
        r#"{"suite":"","key":{"x":[1]}}"#,
    ];
    let keys = new.into_iter().map(str::to_owned).chain([key_json(0xa1)]);
    cases.good(
        "suites that are not known, whatever their keys look like",
        &signer.signed_key(&with(keys.collect()).to_string()),
    );
    for (about, key) in [
        ("an announced key that is a text", r#""NEW""#),
        ("an announced key that is null", "null"),
        ("an announced key without a suite", r#"{"key":"AA=="}"#),
        (
            "an announced key whose suite is null",
            r#"{"suite":null,"key":"AA=="}"#,
        ),
        (
            "an announced key whose suite stands twice",
            r#"{"suite":"NEW","suite":"NEW"}"#,
        ),
    ] {
        refused(
            cases,
            signer,
            about,
            &with(vec![key.to_owned(), key_json(0xa1)]),
        );
    }
}

fn x_wing_json(public: &[u8]) -> String {
    let (key_id, key) = (KeyId::of(public), encode(public));
    format!(r#"{{"suite":"XWING-AES256GCM","key_id":"{key_id}","key":"{key}"}}"#)
}

fn x25519_json(public: &[u8]) -> String {
    let (key_id, key) = (KeyId::of(public), encode(public));
    format!(r#"{{"suite":"X25519-AES256GCM","key_id":"{key_id}","key":"{key}"}}"#)
}

/// Invalid keys, each with the key id of its bytes.
fn keys(cases: &mut Cases<'_>, signer: &Signer) {
    let with = |key: String| Payload {
        keys: vec![key],
        ..Payload::default()
    };
    let zeros = [0; 32];
    let mut one = zeros;
    one[0] = 1;
    let mut p_plus_one = [0xff; 32];
    (p_plus_one[0], p_plus_one[31]) = (0xee, 0x7f);
    let order_8 = crate::vector_tests::hex(
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    );
    let x_wing = XWingPrivateKey::from_bytes(&[0xa1; 32]);
    let x_wing = x_wing.public_key().as_bytes();
    // The 12 bits of the first coefficient: 3329, the modulus, is the lowest invalid value.
    let mut modulus = x_wing.to_vec();
    modulus[0] = 0x01;
    modulus[1] = modulus[1] & 0xf0 | 0x0d;
    let mut below = x_wing.to_vec();
    below[0] = 0x00;
    below[1] = below[1] & 0xf0 | 0x0d;
    let below = signer.signed_key(&with(x_wing_json(&below)).to_string());
    cases.good("an X-Wing key whose first coefficient is 3328", &below);
    let at_modulus = signer.signed_key(&with(x_wing_json(&modulus)).to_string());
    let about = "an X-Wing key whose first coefficient is 3329, the modulus";
    cases.bad(about, "malformed", &at_modulus, &below);

    let good = key_json(0xa1);
    let id_of =
        |key: &str| serde_json::from_str::<serde_json::Value>(key).unwrap()["key_id"].to_string();
    let capitals = id_of(&good).to_uppercase();
    for (about, key) in [
        ("an X25519 key of zeros", x25519_json(&zeros)),
        ("an X25519 key of small order, 1", x25519_json(&one)),
        ("an X25519 key of small order, 8", x25519_json(&order_8)),
        (
            "an X25519 key of small order in another spelling",
            x25519_json(&p_plus_one),
        ),
        ("an X25519 key of 31 bytes", x25519_json(&[0xa1; 31])),
        ("an X25519 key of 33 bytes", x25519_json(&[0xa1; 33])),
        ("an X-Wing key of 1,215 bytes", x_wing_json(&x_wing[..1215])),
        ("a key without its padding", good.replacen("=\"", "\"", 1)),
        (
            "a key that is null",
            r#"{"suite":"X25519-AES256GCM","key_id":"0123456789abcdef","key":null}"#.to_owned(),
        ),
        (
            "a key id in capitals",
            good.replace(&id_of(&good), &capitals),
        ),
        (
            "a known suite without a key id",
            good.replace(&format!("\"key_id\":{},", id_of(&good)), ""),
        ),
    ] {
        assert_ne!(key, good, "{about}");
        refused(cases, signer, about, &with(key));
    }
}
