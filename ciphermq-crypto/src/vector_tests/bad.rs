//! The envelopes that must not open, and texts that are no envelopes.

use ciphermq_protocol::envelope::Fields;

use super::*;
use crate::encoding::{decode, encode};

fn flip(base64: &str, byte: usize) -> String {
    let mut bytes = decode(base64).unwrap();
    bytes[byte] ^= 1;
    encode(&bytes)
}

/// Returns texts that are not envelopes, which the broker refuses, too.
fn no_envelopes(good: &str) -> Vec<(&'static str, String)> {
    let more = |more: &str| good.replacen('{', &format!("{{{more},"), 1);
    let value = |field: &str, value: &str| {
        let start = good.find(&format!("\"{field}\":")).unwrap() + field.len() + 3;
        let end = start + 1 + good[start + 1..].find('"').unwrap() + 1;
        format!("{}{value}{}", &good[..start], &good[end..])
    };
    let long = format!("\"{}\"", "x".repeat(256));
    vec![
        (
            "a field stands twice",
            more("\"tag\":\"AAAAAAAAAAAAAAAAAAAAAA==\""),
        ),
        ("a field stands twice, once as null", more("\"tag\":null")),
        (
            "a field stands twice, once escaped",
            more("\"t\\u0061g\":null"),
        ),
        (
            "a field that is not known stands twice",
            more("\"new\":1,\"new\":1"),
        ),
        ("the message id is null", value("message_id", "null")),
        ("the nonce is null", value("nonce", "null")),
        ("the nonce is a number", value("nonce", "1")),
        ("the tag is a number", value("tag", "1")),
        ("the message id is empty", value("message_id", "\"\"")),
        ("the message id has a space", value("message_id", "\"m 1\"")),
        ("the message id has 256 bytes", value("message_id", &long)),
        (
            "the sender has an invisible character",
            value("sender_client_id", "\"sender_1\\u200b\""),
        ),
        (
            "the exchange has a line feed",
            value("exchange", "\"ciphermq\\nexchange\""),
        ),
        ("an array", format!("[{good}]")),
        ("something stands behind it", format!("{good} {{}}")),
        (
            "a byte order mark stands before it",
            format!("\u{feff}{good}"),
        ),
    ]
}

pub(super) fn must_fail() -> Vec<MustFail> {
    let input = inputs().remove(0);
    let good = seal(&input).envelope;
    let fields = || Fields::parse(&good).unwrap();
    let mut cases = Vec::new();
    let mut case = |about: &str, expect: &str, envelope: String| {
        cases.push(MustFail {
            about: about.to_owned(),
            expect: expect.to_owned(),
            envelope,
        });
    };
    let mut altered = |about: &str, expect: &str, alter: &dyn Fn(&mut Fields<'_>)| {
        let mut fields = fields();
        alter(&mut fields);
        case(
            about,
            expect,
            String::from_utf8(Envelope::build(&fields).unwrap().raw().to_bytes().to_vec()).unwrap(),
        );
    };
    let other_key_id = key(0xb0).public_key().key_id().to_string();
    altered("the message id is another", "not_authentic", &|f| {
        f.message_id = "m-1".into();
    });
    altered("the sender is another", "not_authentic", &|f| {
        f.sender_client_id = Some("sender_2".into());
    });
    altered("the exchange is another", "not_authentic", &|f| {
        f.exchange = Some("other".into());
    });
    altered("the routing key is another", "not_authentic", &|f| {
        f.routing_key = Some("other".into());
    });
    altered("the sent time is another", "not_authentic", &|f| {
        f.sent_time = Some("2025-09-08T07:03:00.001Z".into());
    });
    altered("the session time is another", "not_authentic", &|f| {
        f.session_time = Some("2025-09-08T07:02:59.999Z".into());
    });
    altered("the content type is another", "not_authentic", &|f| {
        f.content_type = Some("text/html".into());
    });
    altered(
        "another of the receiver's keys is named",
        "not_authentic",
        &|f| {
            f.receiver_key_id = Some(other_key_id.clone().into());
        },
    );
    altered(
        "a key that the receiver has not is named",
        "no_private_key",
        &|f| {
            f.receiver_key_id = Some("0123456789abcdef".into());
        },
    );
    altered("the key id is in capitals", "not_authentic", &|f| {
        f.receiver_key_id = f
            .receiver_key_id
            .as_ref()
            .map(|id| id.to_uppercase().into());
    });
    altered("the receiver is another", "other_receiver", &|f| {
        f.receiver_client_id = "receiver_2".into();
    });
    altered("the suite is another", "unknown_suite", &|f| {
        f.suite = Some("X25519-AES128GCM".into());
    });
    altered("the suite is in small letters", "unknown_suite", &|f| {
        f.suite = Some("x25519-aes256gcm".into());
    });
    altered("the suite was taken away", "older_client", &|f| {
        f.suite = None;
    });
    altered("a bit of the nonce", "not_authentic", &|f| {
        f.nonce = flip(&f.nonce.text(), 0).into();
    });
    altered("a bit of the ciphertext", "not_authentic", &|f| {
        f.ciphertext = flip(&f.ciphertext.text(), 38).into();
    });
    altered("a bit of the tag", "not_authentic", &|f| {
        f.tag = f.tag.as_ref().map(|tag| flip(&tag.text(), 15).into());
    });
    altered("a bit of the encapsulated key", "not_authentic", &|f| {
        f.enc_session_key = flip(&f.enc_session_key, 31).into();
    });
    altered(
        "the top bit of the encapsulated key, which X25519 does not look at",
        "not_authentic",
        &|f| {
            let mut bytes = decode(&f.enc_session_key).unwrap();
            bytes[31] ^= 0x80;
            f.enc_session_key = encode(&bytes).into();
        },
    );
    altered("a bit of the sealed session key", "not_authentic", &|f| {
        f.enc_session_key = flip(&f.enc_session_key, 32).into();
    });
    altered("an encapsulated key of zeros", "not_authentic", &|f| {
        let mut bytes = decode(&f.enc_session_key).unwrap();
        bytes[..32].fill(0);
        f.enc_session_key = encode(&bytes).into();
    });
    for (about, point) in [
        (
            "an encapsulated key of small order, 1",
            "01".to_owned() + &"00".repeat(31),
        ),
        (
            "an encapsulated key of small order, 8",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800".to_owned(),
        ),
        (
            "an encapsulated key of zeros in another spelling",
            "ed".to_owned() + &"ff".repeat(30) + "7f",
        ),
    ] {
        altered(about, "not_authentic", &|f| {
            let mut bytes = decode(&f.enc_session_key).unwrap();
            bytes[..32].copy_from_slice(&hex(&point));
            f.enc_session_key = encode(&bytes).into();
        });
    }
    for field in [
        "session_time",
        "sent_time",
        "content_type",
        "receiver_key_id",
        "sender_client_id",
    ] {
        let about = format!("`{field}` was taken away");
        altered(&about, "not_authentic", &|f| match field {
            "session_time" => f.session_time = None,
            "sent_time" => f.sent_time = None,
            "content_type" => f.content_type = None,
            "receiver_key_id" => f.receiver_key_id = None,
            _ => f.sender_client_id = None,
        });
    }
    altered("the ciphertext is a byte shorter", "not_authentic", &|f| {
        let bytes = f.ciphertext.bytes().unwrap();
        let shorter = encode(&bytes[..bytes.len() - 1]);
        f.ciphertext = shorter.into();
    });
    altered(
        "the tag stands at the end of the ciphertext",
        "not_authentic",
        &|f| {
            let tag = f.tag.take().unwrap();
            f.ciphertext =
                encode(&[f.ciphertext.bytes().unwrap(), tag.bytes().unwrap()].concat()).into();
        },
    );
    altered("the tag is a byte shorter", "not_authentic", &|f| {
        f.tag = f
            .tag
            .as_ref()
            .map(|tag| encode(&tag.bytes().unwrap()[..15]).into());
    });
    altered("the tag's base64 has no padding", "not_authentic", &|f| {
        f.tag = f
            .tag
            .as_ref()
            .map(|tag| tag.text().trim_end_matches('=').to_owned().into());
    });
    altered(
        "the tag's base64 has stray bits at its end",
        "not_authentic",
        &|f| {
            f.tag = f.tag.as_ref().map(|tag| {
                let mut text = tag.text().trim_end_matches('=').to_owned();
                let last = text.pop().unwrap();
                // The last of 22 digits is one of A, Q, g, w; the next digit differs in bits that
                // are not used.
                text.push(char::from(u8::try_from(last).unwrap() + 1));
                (text + "==").into()
            });
        },
    );
    altered(
        "the ciphertext's base64 holds a line feed",
        "not_authentic",
        &|f| {
            let text = f.ciphertext.text().into_owned();
            f.ciphertext = format!("{}\n{}", &text[..4], &text[4..]).into();
        },
    );
    altered("the sent time in another spelling", "not_authentic", &|f| {
        f.sent_time = Some("2025-09-08T07:03:00Z".into());
    });
    altered("the exchange was taken away", "not_authentic", &|f| {
        f.exchange = None;
    });

    for (about, envelope) in no_envelopes(&good) {
        case(about, "no_envelope", envelope);
    }
    let null = |field: &str| {
        let start = good.find(&format!("\"{field}\":")).unwrap() + field.len() + 3;
        let end = start + 1 + good[start + 1..].find('"').unwrap() + 1;
        format!("{}null{}", &good[..start], &good[end..])
    };
    case("the tag is null", "not_authentic", null("tag"));
    case("the suite is null", "older_client", null("suite"));

    for (about, sent_millis) in [
        (
            "sealed a millisecond after the session's end, by a sender that does not keep the \
             limits",
            600_001,
        ),
        (
            "sealed a millisecond before the session's start, by a sender that does not keep the \
             limits",
            -1,
        ),
    ] {
        let late = Input {
            sent_millis: SESSION_MILLIS + sent_millis,
            ..inputs().remove(0)
        };
        case(about, "outside_session", seal(&late).envelope);
    }
    cases
}
