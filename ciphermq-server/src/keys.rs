//! The key directory: receivers' public keys and signed keys, sealed at rest.

mod adopt;
mod signed_key;

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ciphermq_protocol::ClientId;
use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard};

pub use adopt::adopt;
pub(crate) use signed_key::{MAX_CHAIN, MAX_CHAIN_BYTES, is_short_enough, signing_chain};

use self::signed_key::parse_claims;
use crate::at_rest::{self, AtRestCipher};
use crate::model::{Change, RowKind, SealedRow};
use crate::store::writer::WriterHandle;
use crate::store::{self, Reader};

/// The length of an X25519 public key (RFC 7748, section 5).
const KEY_BYTES: usize = 32;

/// The reason why a key was not registered or not found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request contains no valid key; the text states what is expected.
    #[error("{0}")]
    Invalid(String),
    /// The signed key belongs to another client.
    #[error("only the client itself registers its key, and this connection is {0}'s")]
    OtherClient(ClientId),
    /// A newer signed key is registered, the one with this epoch.
    #[error(
        "a signed key with the epoch {0} is registered already; ask for it with get_signed_key"
    )]
    Stale(u64),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The store did not answer in time.
    #[error("the database does not answer")]
    Unavailable,
    /// The row cannot be opened.
    #[error(transparent)]
    AtRest(at_rest::Error),
    /// The key cannot be sealed.
    #[error(transparent)]
    Seal(at_rest::Error),
}

impl Error {
    /// Returns the one-line message for a client. The advice is for the server's operator, and in
    /// the log.
    pub(crate) fn for_client(&self) -> String {
        match self {
            Self::AtRest(error) => error.for_client(),
            error => error
                .to_string()
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// A directory of public keys and signed keys.
#[derive(Clone)]
pub struct KeyDirectory {
    at_rest_cipher: AtRestCipher,
    reader: Arc<dyn Reader>,
    writer: WriterHandle,
    registration_locks: Arc<RegistrationLocks>,
}

/// The locks that serialise each client's registrations of a signed key, from comparing it with the
/// stored one to writing it.
type RegistrationLocks = DashMap<ClientId, Arc<Mutex<()>>>;

impl KeyDirectory {
    /// Creates a directory on the store, whose rows `at_rest_cipher` seals.
    #[must_use]
    pub fn new(
        at_rest_cipher: AtRestCipher,
        reader: Arc<dyn Reader>,
        writer: WriterHandle,
    ) -> Self {
        Self {
            at_rest_cipher,
            reader,
            writer,
            registration_locks: Arc::default(),
        }
    }

    /// Stores a client's public key, base64 of 32 bytes, and replaces an older one. Returns when it
    /// is durable.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::Invalid`] if the key is invalid.
    pub async fn register(&self, client_id: &ClientId, key: &str) -> Result<(), Error> {
        let key = parse_key(key)?;
        let row = self.seal(RowKind::PublicKey, client_id, &key)?;
        let change = Change::PublicKey(client_id.clone(), row);
        self.write(client_id, change).await
    }

    /// Returns a client's public key, base64 of 32 bytes.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::AtRest`] if the row does not fit the configured key.
    pub async fn public_key(&self, client_id: &ClientId) -> Result<Option<String>, Error> {
        let Some(row) = self.reader.public_key(client_id).await? else {
            return Ok(None);
        };
        let opened = self.open(RowKind::PublicKey, client_id, row)?;
        Ok(Some(BASE64_STANDARD.encode(opened)))
    }

    /// Stores a client's signed key and replaces an older one.
    ///
    /// The X25519 key in it becomes the client's bare key; without one in it, the client has no
    /// bare key any more. Of two signed keys the one with the higher epoch stays, in whatever order
    /// they arrive. The server does not verify the signature: senders do, and do not trust the
    /// server.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::Invalid`] if it is not a compact JWS with an epoch and keys in it,
    /// [`Error::OtherClient`] if it is another client's, [`Error::Stale`] if its epoch is lower
    /// than that of the stored one.
    pub async fn register_signed(
        &self,
        client_id: &ClientId,
        signed_key: &str,
    ) -> Result<(), Error> {
        let claims = parse_claims(client_id, signed_key)?;
        let bare = claims.bare.as_deref();
        let change = Change::SignedKey {
            client_id: client_id.clone(),
            signed: self.seal(RowKind::SignedKey, client_id, signed_key.as_bytes())?,
            bare: bare
                .map(|key| self.seal(RowKind::PublicKey, client_id, key))
                .transpose()?,
        };
        let turn = RegistrationTurn::wait(&self.registration_locks, client_id).await;
        let stored = self.stored_epoch(client_id).await?;
        if let Some(stored) = stored.filter(|stored| *stored > claims.epoch) {
            return Err(Error::Stale(stored));
        }
        // If this future is dropped, the write continues, and must keep its turn: the next
        // registration has to see its result.
        let (directory, client_id) = (self.clone(), client_id.clone());
        let written = tokio::spawn(async move {
            let _turn = turn;
            directory.write(&client_id, change).await
        });
        written.await.unwrap_or(Err(Error::Unavailable))
    }

    /// Returns the epoch of the stored signed key.
    ///
    /// A row without an epoch, from before epochs were compared, gives way to any key. So does one
    /// that the configured key does not open, as it cannot be used.
    async fn stored_epoch(&self, client_id: &ClientId) -> Result<Option<u64>, Error> {
        match self.signed_key(client_id).await {
            Ok(stored) => {
                Ok(stored.and_then(|stored| Some(parse_claims(client_id, &stored).ok()?.epoch)))
            }
            Err(Error::AtRest(error)) => {
                tracing::warn!(%client_id, %error, "Replacing a signed key that cannot be opened");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns a client's signed key, as it was registered.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Error::AtRest`] if the row does not fit the configured key.
    pub async fn signed_key(&self, client_id: &ClientId) -> Result<Option<String>, Error> {
        let Some(row) = self.reader.signed_key(client_id).await? else {
            return Ok(None);
        };
        let opened = self.open(RowKind::SignedKey, client_id, row)?;
        let text = String::from_utf8(opened)
            .map_err(|_| store::Error::Corrupt("a signed key is no text".into()))?;
        Ok(Some(text))
    }

    fn seal(&self, kind: RowKind, client_id: &ClientId, bytes: &[u8]) -> Result<SealedRow, Error> {
        let sealed = self.at_rest_cipher.seal(kind, client_id.as_str(), bytes);
        sealed.map_err(Error::Seal)
    }

    fn open(&self, kind: RowKind, client_id: &ClientId, row: SealedRow) -> Result<Vec<u8>, Error> {
        let opened = self.at_rest_cipher.open(kind, client_id.as_str(), &row);
        opened.map_err(Error::AtRest)
    }

    async fn write(&self, client_id: &ClientId, change: Change) -> Result<(), Error> {
        self.writer
            .client(client_id)
            .change(change)
            .await
            .map_err(|_| Error::Unavailable)?;
        Ok(())
    }
}

/// Returns the bare key that a signed key of this client holds, in base64.
pub(crate) fn bare_key(client_id: &ClientId, signed_key: &str) -> Option<String> {
    let claims = parse_claims(client_id, signed_key).ok()?;
    claims.bare.map(|key| BASE64_STANDARD.encode(key))
}

/// A client's exclusive turn to register a signed key, until it is dropped.
struct RegistrationTurn {
    registration_locks: Arc<RegistrationLocks>,
    client_id: ClientId,
    /// Released before the references to the lock are counted, so that those left are the waiters'.
    guard: Option<OwnedMutexGuard<()>>,
}

impl RegistrationTurn {
    async fn wait(registration_locks: &Arc<RegistrationLocks>, client_id: &ClientId) -> Self {
        let lock = Arc::clone(&registration_locks.entry(client_id.clone()).or_default());
        let mut turn = Self {
            registration_locks: Arc::clone(registration_locks),
            client_id: client_id.clone(),
            guard: None,
        };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

impl Drop for RegistrationTurn {
    fn drop(&mut self) {
        self.guard = None;
        self.registration_locks
            .remove_if(&self.client_id, |_, lock| Arc::strong_count(lock) == 1);
    }
}

fn parse_key(text: &str) -> Result<Vec<u8>, Error> {
    let invalid = || Error::Invalid(format!("a public key is base64 of {KEY_BYTES} bytes"));
    let key = BASE64_STANDARD
        .decode(text.trim_ascii())
        .map_err(|_| invalid())?;
    if key.len() != KEY_BYTES {
        return Err(invalid());
    }
    if key.iter().all(|byte| *byte == 0) {
        return Err(Error::Invalid(
            "the all-zero public key is no key".to_owned(),
        ));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_and_not_zero() {
        assert_eq!(
            parse_key(&BASE64_STANDARD.encode([7; 32])).unwrap(),
            [7; 32]
        );
        for bad in [
            String::new(),
            "x".repeat(44),
            BASE64_STANDARD.encode([7; 31]),
            BASE64_STANDARD.encode([0; 32]),
        ] {
            assert!(matches!(parse_key(&bad), Err(Error::Invalid(_))), "{bad}");
        }
    }
}
