//! Forms of signed keys that are ambiguous or too long, all with right signatures.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::announcements::Payload;
use super::keys::Cases;
use super::signer::Signer;
use super::{RECEIVER, issue, now, spec};
use crate::signed_key::{Announcement, MAX_SIGNED_KEY_BYTES};

pub(super) fn cases(cases: &mut Cases<'_>) {
    let signer = Signer::p384(&issue(cases.ca, RECEIVER));
    headers(cases, &signer);
    payloads(cases, &signer);
    parts(cases, &signer);
    signatures(cases);
    certificates(cases);
    lengths(cases, &signer);
}

/// Changes the last character of a text in its unused bits, which leaves the decoded bytes the
/// same.
fn stray_bits(text: &str) -> String {
    let mut digits = text.trim_end_matches('=').to_owned();
    let padding = "=".repeat(text.len() - digits.len());
    let last = digits.pop().unwrap();
    // Unused bits are zero in canonical base64; in the next digit one of them is set.
    digits.push(char::from(u8::try_from(last).unwrap() + 1));
    digits + &padding
}

fn headers(cases: &mut Cases<'_>, signer: &Signer) {
    let payload = Payload::default().to_string();
    let good = signer.header();
    let fields = good.trim_start_matches('{').trim_end_matches('}');
    let (algorithm, rest) = fields.split_once(',').unwrap();
    let (typ, x5c) = rest.split_once(',').unwrap();
    let signed = signer.with_header(&good, &payload);
    let spaced =
        format!(" {{ {x5c} ,\r\n\t{algorithm} , \"t\\u0079p\":\"ciphermq\\u002dkeys\" }} ");
    cases.good(
        "white space, another order and escapes in the header",
        &signer.with_header(&spaced, &payload),
    );
    for (about, header) in [
        (
            "a header that is an array",
            format!("[\"ES384\",\"ciphermq-keys\",{}]", &x5c[6..]),
        ),
        (
            "a header with a key twice",
            format!("{{{algorithm},{algorithm},{typ},{x5c}}}"),
        ),
        (
            "a header with a key twice, once escaped",
            format!("{{{algorithm},{typ},\"\\u0074yp\":\"ciphermq-keys\",{x5c}}}"),
        ),
        ("a header without `typ`", format!("{{{algorithm},{x5c}}}")),
        (
            "a header whose `typ` is null",
            format!("{{{algorithm},\"typ\":null,{x5c}}}"),
        ),
        (
            "a header whose `x5c` is null",
            format!("{{{algorithm},{typ},\"x5c\":null}}"),
        ),
        (
            "a header whose `x5c` is a text",
            format!("{{{algorithm},{typ},\"x5c\":{}}}", &x5c[7..x5c.len() - 1]),
        ),
        ("a header with something behind it", format!("{good} {{}}")),
    ] {
        cases.bad(
            about,
            "malformed",
            &signer.with_header(&header, &payload),
            &signed,
        );
    }
}

fn payloads(cases: &mut Cases<'_>, signer: &Signer) {
    let payload = Payload::default();
    let good = signer.signed_key(&payload.to_string());
    let more = |more: &str| payload.to_string().replacen('{', &format!("{{{more},"), 1);
    cases.good(
        "white space, escapes, null and keys that stand twice in fields that are not known",
        &signer.signed_key(&more(
            "\"new\" : {\"a\":1,\"a\":[null]},\n \"n\\u0065wer\":null",
        )),
    );
    let key = &payload.keys[0];
    let key_twice = Payload {
        keys: vec![key.replacen('{', "{\"suite\":\"X25519-AES256GCM\",", 1)],
        ..Payload::default()
    };
    let fields: serde_json::Value = serde_json::from_str(key).unwrap();
    let array = serde_json::json!([fields["suite"], fields["key_id"], fields["key"]]);
    let array = Payload {
        keys: vec![array.to_string()],
        ..Payload::default()
    };
    for (about, payload) in [
        (
            "a key of the payload that stands twice",
            more("\"epoch\":1"),
        ),
        (
            "a key of the payload that stands twice, once escaped",
            more("\"\\u0065poch\":1"),
        ),
        (
            "a key that is not known and stands twice",
            more("\"new\":1,\"new\":1"),
        ),
        (
            "a key of an announced key that stands twice",
            key_twice.to_string(),
        ),
        ("an announced key that is an array", array.to_string()),
        ("a payload with something behind it", format!("{payload} 1")),
        (
            "a payload behind a byte order mark",
            format!("\u{feff}{payload}"),
        ),
        ("a payload that is an array", format!("[{payload}]")),
    ] {
        cases.bad(about, "malformed", &signer.signed_key(&payload), &good);
    }
    let mut bytes = more("\"new\":\"?\"").into_bytes();
    *bytes.iter_mut().find(|byte| **byte == b'?').unwrap() = 0xff;
    let part = URL_SAFE_NO_PAD.encode(bytes);
    let header = URL_SAFE_NO_PAD.encode(signer.header());
    cases.bad(
        "a payload that is not UTF-8",
        "malformed",
        &signer.with_parts(&header, &part),
        &good,
    );
}

/// Non-canonical base64url is refused.
fn parts(cases: &mut Cases<'_>, signer: &Signer) {
    let header = URL_SAFE_NO_PAD.encode(signer.header());
    // The length leaves unused bits, and both digits occur in which the alphabets differ.
    let spaced = |payload: String| format!("{payload}{}", " ".repeat((4 - payload.len() % 3) % 3));
    let payload = ["?>", " ?>", "  ?>"]
        .into_iter()
        .flat_map(|text| [format!("{text}~~~~???"), format!("{text}???~~~~")])
        .map(|text| {
            spaced(Payload::default().to_string().replacen(
                '{',
                &format!("{{\"new\":\"{text}\","),
                1,
            ))
        })
        .map(|payload| URL_SAFE_NO_PAD.encode(payload))
        .find(|part| part.contains('-') && part.contains('_'))
        .unwrap();
    assert_eq!(payload.len() % 4, 2);
    let good = signer.with_parts(&header, &payload);
    for (about, part) in [
        (
            "the payload in the alphabet of base64",
            payload.replace('-', "+").replace('_', "/"),
        ),
        ("the payload with padding", format!("{payload}==")),
        (
            "the payload with bits at its end that are not used",
            stray_bits(&payload),
        ),
        (
            "the payload with a line feed in it",
            format!("{}\n{}", &payload[..4], &payload[4..]),
        ),
        ("the payload with a digit too many", format!("{payload}AAA")),
    ] {
        cases.bad(
            about,
            "malformed",
            &signer.with_parts(&header, &part),
            &good,
        );
    }
    cases.bad("four parts", "malformed", &format!("{good}."), &good);
    let none = signer.with_parts(&header, "");
    cases.bad("an empty payload", "malformed", &none, &good);
}

fn signatures(cases: &mut Cases<'_>) {
    // 64 bytes leave unused bits.
    let certificate = cases.ca.issue_as(RECEIVER, &spec(&rcgen::PKCS_ED25519));
    let identity = certificate.identity();
    let keys = crate::Keyring::new(super::receiver_key()).recipient_keys();
    let announcement = Announcement::new(&identity, keys, now(), super::keys::DAY, None);
    let good = announcement.sign(&identity).unwrap();
    let about = "the signature with bits at its end that are not used";
    cases.bad(about, "malformed", &stray_bits(&good), &good);

    let signer = Signer::p384(&issue(cases.ca, RECEIVER));
    let good = signer.signed_key(&Payload::default().to_string());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let fixed = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let der = URL_SAFE_NO_PAD.encode(der(&fixed));
    let about = "an ECDSA signature as ASN.1, not as `r ‖ s`";
    cases.bad(about, "signature", &format!("{signed}.{der}"), &good);
}

/// Encodes an ECDSA signature as ASN.1.
fn der(fixed: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        while bytes.len() > 1 && bytes[0] == 0 {
            bytes.remove(0);
        }
        if bytes[0] >= 0x80 {
            bytes.insert(0, 0);
        }
        [vec![2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    };
    let (r, s) = fixed.split_at(fixed.len() / 2);
    let body = [integer(r), integer(s)].concat();
    [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat()
}

/// Non-canonical base64 in `x5c` is refused.
fn certificates(cases: &mut Cases<'_>) {
    let payload = Payload::default().to_string();
    // The length leaves unused bits, and a digit occurs in which the alphabets differ.
    let (signer, text) = std::iter::repeat_with(|| {
        let signer = Signer::p384(&issue(cases.ca, RECEIVER));
        let text = STANDARD.encode(&signer.chain[0]);
        (signer, text)
    })
    .find(|(_, text)| text.ends_with('=') && text.contains('+') && text.contains('/'))
    .unwrap();
    let good = signer.signed_key(&payload);
    for (about, other) in [
        (
            "a certificate in the alphabet of base64url",
            text.replace('+', "-").replace('/', "_"),
        ),
        (
            "a certificate without padding",
            text.trim_end_matches('=').to_owned(),
        ),
        (
            "a certificate with bits at its end that are not used",
            stray_bits(&text),
        ),
        (
            "a certificate with a line feed in it",
            format!("{}\\n{}", &text[..64], &text[64..]),
        ),
        (
            "a certificate with a space in it",
            format!("{} {}", &text[..64], &text[64..]),
        ),
    ] {
        let header = signer.header().replace(&text, &other);
        cases.bad(
            about,
            "malformed",
            &signer.with_header(&header, &payload),
            &good,
        );
    }
}

fn lengths(cases: &mut Cases<'_>, signer: &Signer) {
    let of_length = |length: usize| {
        let around = signer.signed_key(&Payload::default().to_string()).len();
        // White space in the header pads the length where that in the payload cannot.
        (0..4)
            .flat_map(|header| (0..16).map(move |less| (header, (length - around) / 4 * 3 - less)))
            .map(|(header, spaces)| {
                let header = format!("{}{}", signer.header(), " ".repeat(header));
                let payload = format!("{}{}", Payload::default(), " ".repeat(spaces));
                signer.with_header(&header, &payload)
            })
            .find(|signed| signed.len() == length)
            .unwrap()
    };
    let longest = of_length(MAX_SIGNED_KEY_BYTES);
    cases.good("65,536 bytes", &longest);
    let longer = of_length(MAX_SIGNED_KEY_BYTES + 1);
    cases.bad("65,537 bytes", "malformed", &longer, &longest);
}
