//! Receivers' keys: fetched, verified and cached.

use std::collections::HashMap;
use std::time::Duration;

use ciphermq_crypto::identity::{CertificateError, Intermediate};
use ciphermq_crypto::{Pin, RecipientKey, SignedKeyError};
use ciphermq_protocol::ClientId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::pins::{Pins, PinsError};
use super::requests::{public_key_of, signed_key_of};
use crate::driver::Handle;
use crate::error::{PublishError, PublishErrorKind, RequestError, RequestErrorKind};
use crate::revocation::Fetcher;

/// Capacity of the cache. With more receivers, the oldest keys are fetched again.
const MAX_KEYS: usize = 10_000;

/// A cache of verified receivers' keys, with what is needed to verify them.
#[derive(Debug)]
pub(crate) struct RecipientKeyCache {
    pins: Pins,
    ttl: Duration,
    keys: Mutex<HashMap<ClientId, CachedKey>>,
}

/// A receiver's key, and whether it is authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceiverKey {
    pub(crate) key: RecipientKey,
    /// The receiver has signed the key, or the caller obtained it from the receiver.
    pub(crate) is_signed: bool,
    /// The intermediate authorities above the receiver, apart from the client's own.
    pub(crate) issuers: Vec<Intermediate>,
}

#[derive(Debug, Clone)]
struct CachedKey {
    key: ReceiverKey,
    /// The [generation](Fetcher::generation) of the authorities that have verified it, or an
    /// earlier one.
    generation: u64,
    since: Instant,
}

impl RecipientKeyCache {
    pub(crate) fn new(pins: Pins, ttl: Duration) -> Self {
        Self {
            pins,
            ttl,
            keys: Mutex::default(),
        }
    }

    /// Checks that keys may follow the pinned ones of a client.
    pub(crate) async fn check_pin(
        &self,
        client: &ClientId,
        offered: &Pin,
    ) -> Result<(), PinsError> {
        self.pins.check(client, offered).await.map(drop)
    }

    /// Returns the time for which a key is trusted before the server is asked again.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns the cached key, if it is still trusted: others may be revoked by a list that has
    /// come in force since they were verified.
    fn get(
        &self,
        client: &ClientId,
        admit_unsigned: bool,
        (generation, now): (u64, Instant),
    ) -> Option<ReceiverKey> {
        let keys = self.keys.lock();
        keys.get(client)
            .filter(|known| known.generation == generation)
            .filter(|known| now.saturating_duration_since(known.since) < self.ttl)
            .filter(|known| known.key.is_signed || admit_unsigned)
            .map(|known| known.key.clone())
    }

    fn insert(&self, client: ClientId, key: ReceiverKey, (generation, now): (u64, Instant)) {
        let mut keys = self.keys.lock();
        if keys.len() >= MAX_KEYS && !keys.contains_key(&client) {
            let oldest = keys
                .iter()
                .min_by_key(|(_, known)| known.since)
                .map(|(client, _)| client.clone());
            if let Some(oldest) = oldest {
                keys.remove(&oldest);
            }
        }
        let cached = CachedKey {
            key,
            generation,
            since: now,
        };
        keys.insert(client, cached);
    }

    /// Returns the receiver's key: the cached one, or the server's answer, verified.
    pub(crate) async fn receiver_key(
        &self,
        handle: &Handle,
        lists: &Fetcher,
        receiver: &ClientId,
        admit_unsigned: bool,
    ) -> Result<ReceiverKey, PublishError> {
        let mut generation = lists.generation();
        if let Some(key) = self.get(receiver, admit_unsigned, (generation, Instant::now())) {
            return Ok(key);
        }
        let signed = match signed_key_of(handle, receiver).await {
            Ok(signed) => signed,
            // An older server supports bare keys only.
            Err(error) if error.kind() == RequestErrorKind::Unsupported => None,
            Err(error) if error.kind() == RequestErrorKind::KeyRevoked => {
                return Err(revoked(receiver, error));
            }
            Err(error) => return Err(unavailable(receiver, error)),
        };
        let (key, pin, issuers) = match signed {
            Some(text) => {
                let verified = lists.verify_keys(handle, &text, receiver).await;
                generation = verified.generation;
                let verified = verified
                    .keys
                    .map_err(|error| not_trusted(receiver, &error))?;
                let key = verified
                    .strongest()
                    .cloned()
                    .ok_or_else(|| not_trusted(receiver, &SignedKeyError::NoKnownSuite))?;
                let issuers = verified.certificate.issuers().to_vec();
                (key, verified.pin(), Some(issuers))
            }
            None => {
                let bare = public_key_of(handle, receiver)
                    .await
                    .map_err(|error| unavailable(receiver, error))?
                    .ok_or_else(|| no_key(receiver))?;
                if !admit_unsigned {
                    return Err(not_signed(receiver));
                }
                (bare.into(), Pin::unsigned(&bare), None)
            }
        };
        self.pins
            .accept(receiver, &pin)
            .await
            .map_err(|error| not_pinned(receiver, &error))?;
        let key = ReceiverKey {
            key,
            is_signed: issuers.is_some(),
            issuers: issuers.unwrap_or_default(),
        };
        let verified_by = (generation, Instant::now());
        self.insert(receiver.clone(), key.clone(), verified_by);
        Ok(key)
    }

    /// Removes a key from the cache: it is fetched again when it is needed.
    pub(crate) fn forget(&self, client: &ClientId) {
        self.keys.lock().remove(client);
    }
}

fn no_key(receiver: &ClientId) -> PublishError {
    PublishError::new(
        PublishErrorKind::NoReceiverKey,
        format!("The receiver `{receiver}` has no public key registered."),
    )
    .advise(format!(
        "Start the receiver once, or let it register its key: `ciphermq-cli receive`, or \
         `ciphermq-cli register-key`, as `{receiver}`."
    ))
}

fn unavailable(receiver: &ClientId, error: RequestError) -> PublishError {
    let advice = error.advice().map(str::to_owned);
    let what = format!("The public key of `{receiver}` could not be fetched: {error}");
    PublishError::new(PublishErrorKind::KeyUnavailable, what)
        .advise_if(advice)
        .caused_by(error)
}

/// Returns the error of a key that the server does not hand out: what has signed it is revoked.
fn revoked(receiver: &ClientId, error: RequestError) -> PublishError {
    PublishError::new(
        PublishErrorKind::KeyNotTrusted,
        format!("The public key of `{receiver}` is not to be trusted: {error}. Nothing was sent."),
    )
    .advise(format!(
        "Start the receiver `{receiver}` with a certificate that is not revoked: it signs its key \
         anew."
    ))
    .caused_by(error)
}

fn not_signed(receiver: &ClientId) -> PublishError {
    PublishError::new(
        PublishErrorKind::KeyNotSigned,
        format!(
            "The public key of `{receiver}` is not signed: whoever runs the server could have put \
             in one of their own. Nothing was sent."
        ),
    )
    .advise(format!(
        "Start the receiver with a version that signs its key, and with a certificate that can: \
         one with an RSA key, for example, cannot (`ciphermq-cli certs` makes one that can). \
         If the server can be trusted, --allow-unsigned-keys sends all the same, with the form \
         that the receiver reads: --suite X25519-AES256GCM if its certificate cannot sign, --suite \
         LEGACY-A, for example, if `{receiver}` is an older client."
    ))
}

fn not_trusted(receiver: &ClientId, error: &SignedKeyError) -> PublishError {
    let kind = match error {
        SignedKeyError::Certificate(
            CertificateError::OldList { .. } | CertificateError::UnknownIssuers(_),
        ) => PublishErrorKind::OldRevocationList,
        _ => PublishErrorKind::KeyNotTrusted,
    };
    let what = format!("The public key of `{receiver}` is not to be trusted: {error}.");
    PublishError::new(kind, format!("{what} Nothing was sent."))
        .advise(distrust_advice(receiver, error))
        .caused_by(error.clone())
}

/// Returns what to do about an untrusted signed key, for a person who sends to `receiver`.
#[must_use]
pub fn distrust_advice(receiver: &ClientId, error: &SignedKeyError) -> String {
    use SignedKeyError::{Certificate, Expired, NotYetValid};
    let anew = format!(
        "start the receiver `{receiver}` again, or run `ciphermq-cli register-key` as \
         `{receiver}`: it signs its key anew"
    );
    match error {
        Expired(_) | Certificate(CertificateError::Expired(_)) => format!(
            "Start the receiver `{receiver}` again, with a certificate that is valid: it signs its \
             key anew. If that does not help, check this machine's clock."
        ),
        NotYetValid(_) => format!(
            "Check this machine's clock. If it is right, the receiver's was ahead when it signed: \
             set it right, then {anew}."
        ),
        Certificate(CertificateError::NotYetValid(_)) => format!(
            "Check this machine's clock. If it is right, the receiver's certificate is for later: \
             give it one that is valid now, then {anew}."
        ),
        Certificate(
            error @ (CertificateError::OldList { .. } | CertificateError::UnknownIssuers(_)),
        ) => error.advice().to_owned(),
        _ => format!(
            "Check the clock, and that both sides use the same certificate authority. If they do, \
             somebody may be handing out keys of their own: look at `ciphermq-cli verify-key \
             {receiver}`."
        ),
    }
}

fn not_pinned(receiver: &ClientId, error: &PinsError) -> PublishError {
    PublishError::new(
        PublishErrorKind::KeyNotTrusted,
        format!("The public key of `{receiver}` is not used: {error}. Nothing was sent."),
    )
    .advise(error.advice(receiver))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ciphermq_crypto::PublicKey;

    fn client(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    fn cache() -> RecipientKeyCache {
        RecipientKeyCache::new(Pins::new(None), Duration::from_secs(300))
    }

    fn key(byte: u8, is_signed: bool) -> ReceiverKey {
        ReceiverKey {
            key: PublicKey::from_bytes([byte; 32]).into(),
            is_signed,
            issuers: Vec::new(),
        }
    }

    #[test]
    fn a_key_is_cached_until_its_ttl_ends() {
        let cache = cache();
        let now = Instant::now();
        let get = |name, seconds| {
            cache.get(
                &client(name),
                false,
                (1, now + Duration::from_secs(seconds)),
            )
        };
        assert_eq!(get("a", 0), None);
        cache.insert(client("a"), key(7, true), (1, now));
        assert_eq!(get("a", 299), Some(key(7, true)));
        assert_eq!(get("a", 300), None);
        assert_eq!(get("b", 0), None);
        let later = now + Duration::from_secs(300);
        cache.insert(client("a"), key(8, true), (1, later));
        assert_eq!(get("a", 599), Some(key(8, true)));
        cache.forget(&client("a"));
        assert_eq!(get("a", 599), None);
    }

    #[test]
    fn an_unsigned_key_is_returned_only_on_request() {
        let cache = cache();
        let now = Instant::now();
        cache.insert(client("a"), key(7, false), (1, now));
        assert_eq!(cache.get(&client("a"), false, (1, now)), None);
        assert_eq!(cache.get(&client("a"), true, (1, now)), Some(key(7, false)));
    }

    /// Also if it was forgotten in between, and cached by a verification that had begun before.
    #[test]
    fn a_key_that_other_authorities_have_verified_is_not_returned() {
        let cache = cache();
        let now = Instant::now();
        cache.insert(client("a"), key(7, true), (1, now));
        assert_eq!(cache.get(&client("a"), false, (2, now)), None);
        cache.forget(&client("a"));
        cache.insert(client("a"), key(7, true), (1, now));
        assert_eq!(cache.get(&client("a"), false, (2, now)), None);
        cache.insert(client("a"), key(7, true), (2, now));
        assert_eq!(cache.get(&client("a"), false, (2, now)), Some(key(7, true)));
    }

    #[test]
    fn the_cache_evicts_the_oldest() {
        let cache = cache();
        let now = Instant::now();
        for index in 0..=MAX_KEYS {
            let at = now + Duration::from_micros(u64::try_from(index).unwrap());
            cache.insert(client(&format!("c{index}")), key(7, true), (1, at));
        }
        assert_eq!(cache.keys.lock().len(), MAX_KEYS);
        let get = |name| cache.get(&client(name), false, (1, now));
        assert_eq!(get("c0"), None);
        assert_eq!(get("c1"), Some(key(7, true)));
    }
}
