//! Receivers' public keys: how long they are believed, and the record of what was used.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ciphermq_crypto::PublicKey;
use ciphermq_protocol::ClientId;
use tokio::time::Instant;

use ciphermq_crypto::file::{self, Access, Existing};

pub use ciphermq_crypto::file::FileError;
pub use ciphermq_crypto::key_file::{
    KeyFileError, PRIVATE_KEY_FILE, PUBLIC_KEY_FILE, read_private, read_public,
};

use crate::client::Client;
use crate::error::{PublishError, PublishErrorKind};

/// How many receivers' keys are kept. With more receivers than that, the oldest are asked for again.
const MAX_KEYS: usize = 10_000;

/// Public keys that the server gave, each believed for a while.
#[derive(Debug)]
pub(crate) struct KeyCache {
    ttl: Duration,
    keys: Mutex<HashMap<ClientId, Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    key: PublicKey,
    since: Instant,
}

impl KeyCache {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            keys: Mutex::default(),
        }
    }

    /// The key, if it is still believed.
    pub(crate) fn fresh(&self, client: &ClientId, now: Instant) -> Option<PublicKey> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(client)
            .filter(|known| now.saturating_duration_since(known.since) < self.ttl)
            .map(|known| known.key)
    }

    pub(crate) fn insert(&self, client: ClientId, key: PublicKey, now: Instant) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_KEYS && !keys.contains_key(&client) {
            let oldest = keys
                .iter()
                .min_by_key(|(_, known)| known.since)
                .map(|(client, _)| client.clone());
            if let Some(oldest) = oldest {
                keys.remove(&oldest);
            }
        }
        keys.insert(client, Known { key, since: now });
    }
}

/// The receiver's key: the one that is believed, or the server's answer.
pub(crate) async fn receiver_key(client: &Client, receiver: &ClientId) -> Result<PublicKey, PublishError> {
    if let Some(key) = client.inner().keys.fresh(receiver, Instant::now()) {
        return Ok(key);
    }
    match client.public_key(receiver).await {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(PublishError::new(
            PublishErrorKind::NoReceiverKey,
            format!("The receiver `{receiver}` has no public key registered."),
        )
        .advise(format!(
            "Start the receiver once, or let it register its key: `ciphermq-cli receive`, or `ciphermq-cli register-key`, as `{receiver}`."
        ))),
        Err(error) => {
            let advice = error.advice().map(str::to_owned);
            let what = format!("The public key of `{receiver}` could not be had: {error}");
            Err(PublishError::new(PublishErrorKind::KeyUnavailable, what).advise_if(advice).caused_by(error))
        }
    }
}

/// Why a client's id cannot be part of a file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client id `{0}` cannot be part of a key file's name")]
pub struct UnfitForFile(pub ClientId);

/// Why the record of a receiver's key was not written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The receiver's id cannot be part of a file's name.
    #[error(transparent)]
    Unfit(#[from] UnfitForFile),
    /// The file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Where the record of a receiver's public key stands: `<folder>/<receiver>_public.key`.
///
/// # Errors
///
/// [`UnfitForFile`] for ids that would lead out of the folder, with `/`, `\` or beginning with a dot, and for the
/// one whose record would stand in the place of one's own public key.
pub fn record_path(folder: &Path, receiver: &ClientId) -> Result<PathBuf, UnfitForFile> {
    let id = receiver.as_str();
    let name = format!("{id}_public.key");
    if id.starts_with('.') || id.contains(['/', '\\']) || name == PUBLIC_KEY_FILE {
        return Err(UnfitForFile(receiver.clone()));
    }
    Ok(folder.join(name))
}

/// Records which public key was used for a receiver, in place of an earlier record; where it stands. It is a
/// record for people, and never taken for the server's answer.
///
/// # Errors
///
/// [`RecordError`].
pub fn write_record(folder: &Path, receiver: &ClientId, key: &PublicKey) -> Result<PathBuf, RecordError> {
    let path = record_path(folder, receiver)?;
    file::write(
        path.clone(),
        (key.to_base64() + "\n").as_bytes(),
        Access::Public,
        Existing::Replace,
    )?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    #[test]
    fn a_key_is_believed_until_its_time_is_over() {
        let cache = KeyCache::new(Duration::from_secs(300));
        let now = Instant::now();
        let key = PublicKey::from_bytes([7; 32]);
        assert_eq!(cache.fresh(&client("a"), now), None);
        cache.insert(client("a"), key, now);
        assert_eq!(
            cache.fresh(&client("a"), now + Duration::from_secs(299)),
            Some(key)
        );
        assert_eq!(cache.fresh(&client("a"), now + Duration::from_secs(300)), None);
        assert_eq!(cache.fresh(&client("b"), now), None);
        let other = PublicKey::from_bytes([8; 32]);
        cache.insert(client("a"), other, now + Duration::from_secs(300));
        assert_eq!(
            cache.fresh(&client("a"), now + Duration::from_secs(599)),
            Some(other)
        );
    }

    #[test]
    fn the_cache_lets_go_of_the_oldest() {
        let cache = KeyCache::new(Duration::from_secs(300));
        let now = Instant::now();
        let key = PublicKey::from_bytes([7; 32]);
        for index in 0..=MAX_KEYS {
            let at = now + Duration::from_micros(u64::try_from(index).unwrap());
            cache.insert(client(&format!("c{index}")), key, at);
        }
        assert_eq!(cache.keys.lock().unwrap().len(), MAX_KEYS);
        assert_eq!(cache.fresh(&client("c0"), now), None);
        assert_eq!(cache.fresh(&client("c1"), now), Some(key));
    }

    #[test]
    fn records_stay_in_their_folder() {
        let folder = Path::new("certs");
        assert_eq!(
            record_path(folder, &client("receiver_1")).unwrap(),
            folder.join("receiver_1_public.key")
        );
        for name in ["../x", "/etc/x", ".hidden", "a/b", "a\\b", "..", "receiver"] {
            assert_eq!(
                record_path(folder, &client(name)),
                Err(UnfitForFile(client(name)))
            );
        }
    }
    #[test]
    fn a_record_is_replaced_by_the_next_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        for byte in [1, 2] {
            let key = PublicKey::from_bytes([byte; 32]);
            let path = write_record(folder.path(), &client("receiver_1"), &key).unwrap();
            assert_eq!(read_public(&path).unwrap(), key);
        }
    }
}
