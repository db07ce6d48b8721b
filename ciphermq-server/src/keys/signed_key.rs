//! Reads the claims of a signed key, a compact JWS (RFC 7515, section 7.1). The server does not
//! verify the signature.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD, prelude::BASE64_STANDARD};
use ciphermq_protocol::ClientId;
use ciphermq_protocol::json::Object;
use rustls::pki_types::CertificateDer;

use super::{Error, parse_key};

/// The limits of a chain of certificates.
pub(crate) const MAX_CHAIN: usize = 8;
pub(crate) const MAX_CHAIN_BYTES: usize = 64 * 1024;

/// A signed key holds a few certificates and a few keys.
const MAX_SIGNED_KEY_BYTES: usize = 64 * 1024;

/// The claims of a signed key that the server uses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SignedKeyClaims {
    /// Unix milliseconds, growing from each signed key of a client to the next.
    pub(super) epoch: u64,
    /// The X25519 key, if there is one.
    pub(super) bare: Option<Vec<u8>>,
}

/// Parses a signed key of this client.
pub(super) fn parse_claims(
    client_id: &ClientId,
    signed_key: &str,
) -> Result<SignedKeyClaims, Error> {
    let invalid = |text: &str| Error::Invalid(format!("a signed key is a compact JWS: {text}"));
    if signed_key.len() > MAX_SIGNED_KEY_BYTES {
        return Err(invalid("this one is too long"));
    }
    let mut parts = signed_key.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(invalid("it has three parts, separated by dots"));
    };
    let decode = |part: &str| {
        URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| invalid("its parts are base64url without padding"))
    };
    decode(header)?;
    let payload = decode(payload)?;
    decode(signature)?;
    let payload = String::from_utf8(payload).map_err(|_| invalid("its payload is UTF-8"))?;
    let payload = Object::parse(&payload).map_err(|error| invalid(&error.to_string()))?;
    let unreadable = |error: serde_json::Error| invalid(&error.to_string());
    let owner: ClientId = payload.get("client_id").map_err(unreadable)?;
    if owner != *client_id {
        return Err(Error::OtherClient(client_id.clone()));
    }
    let keys: Vec<Object<'_>> = payload.get("keys").map_err(unreadable)?;
    if keys.is_empty() {
        return Err(invalid("it holds no key"));
    }
    let bare = x25519_key(&keys).map_err(unreadable)?;
    let epoch: serde_json::Number = payload.get("epoch").map_err(unreadable)?;
    Ok(SignedKeyClaims {
        epoch: epoch
            .as_u64()
            .ok_or_else(|| invalid("`epoch` is an integer from 0 on, of 64 bits"))?,
        bare: bare.map(|key| parse_key(&key)).transpose()?,
    })
}

/// Returns the chain that a signed key states, the certificate that signed it first; `None` if it
/// has none that can be read, or a longer one than those who verify it accept.
pub(crate) fn signing_chain(signed_key: &str) -> Option<Vec<CertificateDer<'static>>> {
    let (header, _) = signed_key.split_once('.')?;
    let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    let chain: Vec<String> = Object::parse(&header).ok()?.get("x5c").ok()?;
    let decode = |text: &String| BASE64_STANDARD.decode(text).ok().map(CertificateDer::from);
    let chain: Vec<_> = chain.iter().map(decode).collect::<Option<_>>()?;
    is_short_enough(&chain).then_some(chain)
}

/// Whether a chain has no more certificates and bytes than those who verify it accept.
pub(crate) fn is_short_enough(chain: &[CertificateDer<'_>]) -> bool {
    let bytes: usize = chain.iter().map(|der| der.len()).sum();
    chain.len() <= MAX_CHAIN && bytes <= MAX_CHAIN_BYTES
}

/// Returns the first X25519 key. Keys of unknown suites are skipped, whatever they look like: the
/// receiver may be newer than this server.
fn x25519_key(keys: &[Object<'_>]) -> Result<Option<String>, serde_json::Error> {
    let mut found = None;
    for key in keys {
        let suite: String = key.get("suite")?;
        if found.is_none() && suite.starts_with("X25519-") {
            found = Some(key.get("key")?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn client(id: &str) -> ClientId {
        ClientId::new(id).unwrap()
    }

    fn jws(payload: &str) -> String {
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let other = |text| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{payload}.{}", other("{}"), other("signature"))
    }

    fn read(payload: &serde_json::Value) -> Result<SignedKeyClaims, Error> {
        parse_claims(&client("receiver_1"), &jws(&payload.to_string()))
    }

    fn with_keys(keys: &serde_json::Value) -> serde_json::Value {
        json!({"client_id": "receiver_1", "epoch": u64::MAX, "keys": keys})
    }

    fn x25519(key: &[u8]) -> serde_json::Value {
        json!({"suite": "X25519-AES256GCM", "key": BASE64_STANDARD.encode(key)})
    }

    #[test]
    fn epoch_and_bare_key_are_found() {
        let good =
            with_keys(&json!([{"suite": "XWING-AES256GCM", "key": "eA=="}, x25519(&[9; 32])]));
        let found = read(&good).unwrap();
        assert_eq!((found.epoch, found.bare), (u64::MAX, Some(vec![9; 32])));
        let other = parse_claims(&client("receiver_2"), &jws(&good.to_string()));
        assert!(
            matches!(other, Err(Error::OtherClient(client)) if client.as_str() == "receiver_2")
        );
        for bad in ["", "a.b", "a.b.c.d", "*.*.*"] {
            assert!(parse_claims(&client("receiver_1"), bad).is_err(), "{bad}");
        }
        assert!(
            parse_claims(
                &client("receiver_1"),
                &jws(&good.to_string()).replace('.', "..")
            )
            .is_err()
        );
        for (field, bad) in [
            ("keys", json!([])),
            ("keys", json!(null)),
            ("keys", json!({})),
            ("keys", json!([["X25519-AES256GCM", "eA=="]])),
            ("keys", json!([{"key": "eA=="}])),
            ("keys", json!([{"suite": null, "key": "eA=="}])),
            ("epoch", json!(-1)),
            ("epoch", json!(1.5)),
            ("epoch", json!("1")),
            ("epoch", json!(null)),
            ("client_id", json!(null)),
        ] {
            let mut payload = good.clone();
            payload[field] = bad;
            assert!(
                matches!(read(&payload), Err(Error::Invalid(_))),
                "{payload}"
            );
            payload.as_object_mut().unwrap().remove(field);
            assert!(
                matches!(read(&payload), Err(Error::Invalid(_))),
                "{payload}"
            );
        }
    }

    #[test]
    fn a_receiver_need_not_announce_an_x25519_key() {
        for keys in [
            json!([{"suite": "XWING-AES256GCM", "key": "eA=="}]),
            json!([{"suite": "NEW", "key": "AA=="}]),
        ] {
            let found = read(&with_keys(&keys)).unwrap();
            assert_eq!(
                found,
                SignedKeyClaims {
                    epoch: u64::MAX,
                    bare: None
                }
            );
        }
    }

    #[test]
    fn unknown_suites_are_skipped_and_malformed_keys_of_known_ones_refused() {
        for new in [
            json!({"suite": "NEW", "key": "AA=="}),
            json!({"suite": "NEW"}),
            json!({"suite": "NEW", "key": null}),
            json!({"suite": "NEW", "key": {"a": [1]}, "key_id": 7}),
            json!({"suite": "", "key": "?"}),
        ] {
            let found = read(&with_keys(&json!([new, x25519(&[9; 32])]))).unwrap();
            assert_eq!(found.bare, Some(vec![9; 32]), "{new}");
        }
        for bad in [
            x25519(&[9; 31]),
            x25519(&[0; 32]),
            json!({"suite": "X25519-AES256GCM"}),
            json!({"suite": "X25519-AES256GCM", "key": null}),
            json!({"suite": "X25519-AES256GCM", "key": [1]}),
        ] {
            assert!(
                matches!(read(&with_keys(&json!([bad]))), Err(Error::Invalid(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn ambiguous_json_is_refused() {
        let key = x25519(&[9; 32]).to_string();
        let twice = key.replacen('{', "{\"suite\":\"NEW\",", 1);
        for payload in [
            format!(r#"{{"client_id":"receiver_1","epoch":1,"keys":[{twice}]}}"#),
            format!(r#"{{"client_id":"receiver_1","epoch":1,"epoch":2,"keys":[{key}]}}"#),
            format!(r#"{{"client_id":"receiver_1","epoch":1,"keys":[{key}],"new":1,"new":2}}"#),
            format!(r#"["receiver_1",1,[{key}]]"#),
        ] {
            let read = parse_claims(&client("receiver_1"), &jws(&payload));
            assert!(matches!(read, Err(Error::Invalid(_))), "{payload}");
        }
    }
}
