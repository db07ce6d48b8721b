//! The key directory: receivers' public keys and signed keys, sealed at rest.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD, prelude::BASE64_STANDARD};
use ciphermq_protocol::ClientId;
use serde::Deserialize;

use crate::at_rest::{self, SealedKey, Sealer};
use crate::store::writer::WriterHandle;
use crate::store::{self, Change, Reader, SealedRow};

/// An X25519 public key has so many bytes (RFC 7748, section 5).
const KEY_BYTES: usize = 32;
/// A signed key is a few certificates and a few keys long.
const MAX_SIGNED_KEY_BYTES: usize = 256 * 1024;

/// Why a key was not registered or not found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was sent is no key. The text says what it should be.
    #[error("{0}")]
    Invalid(String),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The store did not answer in time.
    #[error("the database does not answer")]
    Unavailable,
    /// The row cannot be opened.
    #[error(transparent)]
    AtRest(#[from] at_rest::Error),
}

/// Registers and finds keys.
#[derive(Clone)]
pub struct KeyDirectory {
    sealer: Sealer,
    reader: Arc<dyn Reader>,
    writer: WriterHandle,
}

impl KeyDirectory {
    /// A directory on the store, whose rows `sealer` seals.
    #[must_use]
    pub fn new(sealer: Sealer, reader: Arc<dyn Reader>, writer: WriterHandle) -> Self {
        Self {
            sealer,
            reader,
            writer,
        }
    }

    /// Keeps a client's public key, base64 of 32 bytes, in place of an older one. Returns when it is durable.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::Invalid`] if it is no key.
    pub async fn register(&self, client_id: &ClientId, key: &str) -> Result<(), Error> {
        let key = parse_key(key)?;
        let row = self.seal(client_id, &key)?;
        self.write(Change::PublicKey(client_id.clone(), row)).await
    }

    /// A client's public key, base64 of 32 bytes.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::AtRest`] if the row does not fit the configured key.
    pub async fn public_key(&self, client_id: &ClientId) -> Result<Option<String>, Error> {
        let Some(row) = self.reader.public_key(client_id).await? else {
            return Ok(None);
        };
        let opened = self.sealer.open(client_id.as_str(), &sealed_key(row))?;
        if opened.legacy {
            let row = self.seal(client_id, &opened.bytes)?;
            self.write(Change::PublicKey(client_id.clone(), row)).await?;
        }
        Ok(Some(BASE64_STANDARD.encode(opened.bytes)))
    }

    /// Keeps a client's signed key in place of an older one, and the X25519 key in it as the bare one.
    ///
    /// The server does not judge the signature: senders do, and trust the server with nothing.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::Invalid`] if it is no compact JWS with an X25519 key in it.
    pub async fn register_signed(&self, client_id: &ClientId, signed_key: &str) -> Result<(), Error> {
        let bare = bare_key(client_id, signed_key)?;
        let signed = self.seal(client_id, signed_key.as_bytes())?;
        self.write(Change::SignedKey(client_id.clone(), signed)).await?;
        let bare = self.seal(client_id, &bare)?;
        self.write(Change::PublicKey(client_id.clone(), bare)).await
    }

    /// A client's signed key, as it was registered.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::AtRest`] if the row does not fit the configured key.
    pub async fn signed_key(&self, client_id: &ClientId) -> Result<Option<String>, Error> {
        let Some(row) = self.reader.signed_key(client_id).await? else {
            return Ok(None);
        };
        let opened = self.sealer.open(client_id.as_str(), &sealed_key(row))?;
        let text = String::from_utf8(opened.bytes)
            .map_err(|_| store::Error::Corrupt("a signed key is no text".into()))?;
        Ok(Some(text))
    }

    fn seal(&self, client_id: &ClientId, bytes: &[u8]) -> Result<SealedRow, Error> {
        let SealedKey {
            algorithm,
            ciphertext,
            nonce,
            tag,
        } = self.sealer.seal(client_id.as_str(), bytes)?;
        Ok(SealedRow {
            ciphertext,
            nonce,
            tag,
            algorithm,
        })
    }

    async fn write(&self, change: Change) -> Result<(), Error> {
        self.writer.change(change).await.map_err(|_| Error::Unavailable)?;
        Ok(())
    }
}

fn sealed_key(row: SealedRow) -> SealedKey {
    SealedKey {
        algorithm: row.algorithm,
        ciphertext: row.ciphertext,
        nonce: row.nonce,
        tag: row.tag,
    }
}

fn parse_key(text: &str) -> Result<Vec<u8>, Error> {
    let invalid = || Error::Invalid(format!("a public key is base64 of {KEY_BYTES} bytes"));
    let key = BASE64_STANDARD.decode(text.trim_ascii()).map_err(|_| invalid())?;
    if key.len() != KEY_BYTES {
        return Err(invalid());
    }
    if key.iter().all(|byte| *byte == 0) {
        return Err(Error::Invalid("the all-zero public key is no key".to_owned()));
    }
    Ok(key)
}

/// The part of a signed key's payload that the server uses.
#[derive(Deserialize)]
struct Payload {
    client_id: ClientId,
    keys: Vec<SuiteKey>,
}

#[derive(Deserialize)]
struct SuiteKey {
    suite: String,
    key: String,
}

/// The X25519 key in a compact JWS (RFC 7515, section 7.1) of the client.
fn bare_key(client_id: &ClientId, signed_key: &str) -> Result<Vec<u8>, Error> {
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
    let (_, payload, _) = (decode(header)?, decode(payload)?, decode(signature)?);
    let payload: Payload = serde_json::from_slice(&payload).map_err(|error| invalid(&error.to_string()))?;
    if payload.client_id != *client_id {
        return Err(invalid("it names another client"));
    }
    let key = payload.keys.iter().find(|key| key.suite.starts_with("X25519-"));
    parse_key(&key.ok_or_else(|| invalid("it holds no X25519 key"))?.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: &str) -> ClientId {
        ClientId::new(id).unwrap()
    }

    #[test]
    fn a_key_is_32_bytes_and_not_zero() {
        assert_eq!(parse_key(&BASE64_STANDARD.encode([7; 32])).unwrap(), [7; 32]);
        for bad in [
            String::new(),
            "x".repeat(44),
            BASE64_STANDARD.encode([7; 31]),
            BASE64_STANDARD.encode([0; 32]),
        ] {
            assert!(matches!(parse_key(&bad), Err(Error::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn the_bare_key_is_found_in_a_signed_one() {
        let jws = |payload: serde_json::Value| {
            let payload = URL_SAFE_NO_PAD.encode(payload.to_string());
            format!(
                "{}.{payload}.{}",
                URL_SAFE_NO_PAD.encode("{}"),
                URL_SAFE_NO_PAD.encode("signature")
            )
        };
        let key = BASE64_STANDARD.encode([9; 32]);
        let good = serde_json::json!({"client_id": "receiver_1", "keys": [
            {"suite": "XWING-AES256GCM", "key": "eA=="}, {"suite": "X25519-AES256GCM", "key": key}]});
        assert_eq!(
            bare_key(&client("receiver_1"), &jws(good.clone())).unwrap(),
            [9; 32]
        );
        assert!(bare_key(&client("receiver_2"), &jws(good.clone())).is_err());
        assert!(
            bare_key(
                &client("receiver_1"),
                &jws(serde_json::json!({"client_id": "receiver_1", "keys": []}))
            )
            .is_err()
        );
        for bad in ["", "a.b", "a.b.c.d", "*.*.*"] {
            assert!(bare_key(&client("receiver_1"), bad).is_err(), "{bad}");
        }
        assert!(bare_key(&client("receiver_1"), &jws(good).replace('.', "..")).is_err());
    }
}
