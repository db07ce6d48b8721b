//! Signing and registering this client's own keys.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::identity::IdentityError;
use ciphermq_crypto::signed_key::OwnSignedKey;
use ciphermq_crypto::{Authority, Identity, Keyring, RecipientKey, SignedKeyError, signed_key};
use ciphermq_protocol::ClientId;
use jiff::Timestamp;

use super::announced::{Announced, Announcements, Signed};
use super::registration::{AnnounceError, EarlierSignedKey, NotRecorded, Registration};
use super::requests::{register_public, register_signed, signed_key_of};
use crate::blocking::{NotEnded, blocking};
use crate::credentials::CurrentCredentials;
use crate::driver::Handle;
use crate::error::{RequestError, RequestErrorKind};

/// Attempts to register keys while other processes of this client are faster.
const ATTEMPTS: usize = 8;

impl Registration {
    fn of(announced: Announced, not_recorded: Option<NotRecorded>) -> Self {
        Self {
            client: announced.client_id,
            signed_key: Some(announced.signed_key),
            epoch: Some(announced.epoch),
            not_recorded,
            earlier: None,
        }
    }
}

/// Signs this client's keys and registers them with the server.
#[derive(Debug, Clone)]
pub(crate) struct Announcer {
    credentials: Arc<CurrentCredentials>,
    announcements: Announcements,
}

impl Announcer {
    pub(crate) fn new(credentials: Arc<CurrentCredentials>, announcements: Announcements) -> Self {
        Self {
            credentials,
            announcements,
        }
    }

    /// Returns how long announcements are valid.
    pub(crate) fn lifetime(&self) -> Duration {
        self.announcements.lifetime()
    }

    /// Returns a signer with the certificate that the connection was made with.
    pub(crate) fn signer(&self, handle: &Handle) -> Signer {
        let credentials = handle.credentials();
        // What connects was accepted by the server.
        let signs_apart = credentials.signing_chain.as_ref();
        let unusable = signs_apart.and_then(|_| credentials.check_signer(Timestamp::now()).err());
        Signer {
            client: credentials.client_id.clone(),
            identity: credentials.identity.as_ref().ok().cloned(),
            unusable,
            authority: credentials.authority.clone(),
            // Its own intermediate authorities may be others than those in use by now.
            trusted: self.credentials.authority().refuse_unknown_issuers(false),
            announcements: self.announcements.clone(),
        }
    }
}

/// Signs a client's keys with one certificate, and registers them.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    client: ClientId,
    /// `None` if the certificate cannot sign.
    identity: Option<Arc<Identity>>,
    /// Why the certificate that signs, and does not connect, cannot be used.
    unusable: Option<IdentityError>,
    /// Recognizes what this client has signed, also with a certificate that is revoked now.
    authority: Authority,
    /// Decides as senders do.
    trusted: Authority,
    announcements: Announcements,
}

impl Signer {
    /// Signs the keyring's public keys with an epoch above everything that this client ever signed,
    /// and registers them. Succeeds only if the server then returns keys that a sender accepts. A
    /// client that cannot sign registers its bare key.
    pub(crate) async fn announce(
        &self,
        handle: &Handle,
        keyring: &Keyring,
        above: Option<u64>,
    ) -> Result<Registration, AnnounceError> {
        if let Some(reason) = &self.unusable {
            return Err(AnnounceError::Signer(reason.clone()));
        }
        let on_server = match signed_key_of(handle, &self.client).await {
            Ok(on_server) => on_server,
            // An older server supports bare keys only.
            Err(error) if error.kind() == RequestErrorKind::Unsupported => {
                return self.register_bare(handle, keyring, None).await;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(identity) = &self.identity else {
            let earlier = on_server
                .map(|text| self.earlier(&text, keyring))
                .transpose()?;
            return self.register_bare(handle, keyring, earlier).await;
        };
        let on_server = on_server.and_then(|text| self.parse_own(identity, &text));
        if let Some(own) = &on_server
            && !own.key_ids.iter().any(|key| keyring.contains(*key))
        {
            tracing::warn!(
                client = %self.client,
                "The server has keys of this client that are not in its keyring: messages that \
                 are sealed for them cannot be opened here"
            );
        }
        let mut floor = on_server.map(|own| own.epoch).max(above);
        for _ in 0..ATTEMPTS {
            let signed = self.sign(identity, keyring.recipient_keys(), floor).await?;
            self.check(&signed.announced.signed_key)?;
            match register_signed(handle, &signed.announced.signed_key).await {
                Ok(()) => return self.confirm(handle, identity, signed).await,
                Err(error) if error.kind() == RequestErrorKind::StaleKey => {
                    // Another process of this client was faster, or its clock was ahead.
                    floor = Some(
                        self.newer_epoch(handle, identity, signed.announced.epoch)
                            .await?,
                    );
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(AnnounceError::Contended)
    }

    /// Ensures that the server returns this client's last announcement, or a new one if that has
    /// expired: the server may have another database. `Some` if something was registered.
    ///
    /// Keys that another process of this client has announced later are kept, and registered again
    /// as they are: this process's keys may be the older ones. With `sign_anew`, one of these keys
    /// that another certificate has signed is replaced.
    pub(crate) async fn keep(
        &self,
        handle: &Handle,
        keyring: &Keyring,
        mine: &Announced,
        sign_anew: bool,
    ) -> Result<Option<Registration>, AnnounceError> {
        let Some(identity) = &self.identity else {
            return Ok(None);
        };
        let text = signed_key_of(handle, &self.client).await?;
        let on_server = text.and_then(|text| {
            let own = self.parse_own(identity, &text)?;
            Some(Announced {
                client_id: self.client.clone(),
                epoch: own.epoch,
                signed_key: text,
            })
        });
        let recorded = self.last(identity).await;
        let newest = [Some(mine), recorded.as_ref(), on_server.as_ref()]
            .into_iter()
            .flatten()
            .max_by_key(|announced| announced.epoch)
            .unwrap_or(mine);
        let is_ours = newest.epoch <= mine.epoch || self.has_keys(&newest.signed_key, keyring);
        let is_replaced = sign_anew && is_ours && !self.is_signed_by(identity, &newest.signed_key);
        let is_valid = !is_replaced && self.is_valid_for_long(identity, &newest.signed_key);
        if is_valid && on_server.as_ref() == Some(newest) {
            return Ok(None);
        }
        if is_valid {
            match register_signed(handle, &newest.signed_key).await {
                Ok(()) => return Ok(Some(Registration::of(newest.clone(), None))),
                Err(error) if error.kind() == RequestErrorKind::StaleKey => {}
                Err(error) => return Err(error.into()),
            }
        } else if !is_ours {
            return Err(AnnounceError::OtherKeys);
        }
        self.announce(handle, keyring, Some(newest.epoch))
            .await
            .map(Some)
    }

    /// Whether the announcement needs renewal: senders refuse it, or more than half of its validity
    /// is over. One that ends with the certificate is never due.
    pub(crate) fn is_due(&self, announced: &Announced) -> bool {
        let identity = self.identity.as_deref();
        identity.is_some_and(|identity| !self.is_valid_for_long(identity, &announced.signed_key))
    }

    fn is_valid_for_long(&self, identity: &Identity, signed_key: &str) -> bool {
        let now = Timestamp::now();
        signed_key::verify(signed_key, &self.client, &self.trusted, now).is_ok_and(|verified| {
            let until = verified.announcement.not_after;
            until >= identity.not_after()
                || until.duration_since(now).unsigned_abs() > self.announcements.lifetime() / 2
        })
    }

    /// Whether an announcement is signed with this certificate.
    fn is_signed_by(&self, identity: &Identity, signed_key: &str) -> bool {
        let verified =
            signed_key::verify(signed_key, &self.client, &self.authority, Timestamp::now());
        verified.is_ok_and(|verified| verified.certificate.fingerprint() == identity.fingerprint())
    }

    fn has_keys(&self, signed_key: &str, keyring: &Keyring) -> bool {
        let own = self
            .identity
            .as_deref()
            .and_then(|identity| self.parse_own(identity, signed_key));
        own.is_some_and(|own| own.key_ids.iter().any(|key| keyring.contains(*key)))
    }

    fn parse_own(&self, identity: &Identity, signed_key: &str) -> Option<OwnSignedKey> {
        OwnSignedKey::read(signed_key, identity, &self.authority, Timestamp::now())
    }

    /// Checks that a sender would accept the keys now.
    fn check(&self, signed_key: &str) -> Result<(), SignedKeyError> {
        signed_key::verify(signed_key, &self.client, &self.trusted, Timestamp::now()).map(drop)
    }

    /// Returns the epoch of this client's key on the server, which is above the given one.
    async fn newer_epoch(
        &self,
        handle: &Handle,
        identity: &Identity,
        epoch: u64,
    ) -> Result<u64, AnnounceError> {
        let on_server = signed_key_of(handle, &self.client).await?;
        let own = on_server
            .as_deref()
            .and_then(|text| self.parse_own(identity, text));
        own.map(|own| own.epoch)
            .filter(|newer| *newer >= epoch)
            .ok_or_else(|| AnnounceError::NotOurs {
                epoch: on_server.as_deref().and_then(signed_key::unverified_epoch),
            })
    }

    /// Fetches the registered keys and verifies them as a sender does.
    async fn confirm(
        &self,
        handle: &Handle,
        identity: &Arc<Identity>,
        signed: Signed,
    ) -> Result<Registration, AnnounceError> {
        let Signed {
            announced,
            not_recorded,
        } = signed;
        let on_server = signed_key_of(handle, &self.client)
            .await?
            .ok_or(AnnounceError::NotKept)?;
        if on_server == announced.signed_key {
            return Ok(Registration::of(announced, not_recorded));
        }
        // Another process of this client has registered keys since.
        let epoch = self
            .parse_own(identity, &on_server)
            .map(|own| own.epoch)
            .filter(|epoch| *epoch >= announced.epoch)
            .ok_or(AnnounceError::NotKept)?;
        self.check(&on_server)?;
        let announced = Announced {
            client_id: self.client.clone(),
            epoch,
            signed_key: on_server,
        };
        let (signer, identity) = (self.clone(), Arc::clone(identity));
        let learned = announced.clone();
        blocking(move || {
            let (announcements, authority) = (signer.announcements, signer.authority);
            announcements.learn(&identity, &authority, learned);
            Ok::<_, AnnounceError>(())
        })
        .await?;
        Ok(Registration::of(announced, not_recorded))
    }

    async fn sign(
        &self,
        identity: &Arc<Identity>,
        keys: Vec<RecipientKey>,
        floor: Option<u64>,
    ) -> Result<Signed, AnnounceError> {
        let (signer, identity) = (self.clone(), Arc::clone(identity));
        blocking(move || {
            let (announcements, authority) = (signer.announcements, signer.authority);
            announcements.sign(&identity, &authority, keys, floor, Timestamp::now())
        })
        .await
    }

    async fn last(&self, identity: &Arc<Identity>) -> Option<Announced> {
        let (signer, identity) = (self.clone(), Arc::clone(identity));
        let last = blocking(move || {
            let announcements = signer.announcements;
            Ok::<_, AnnounceError>(announcements.last(&identity, &signer.authority))
        });
        last.await.ok().flatten()
    }

    /// Returns the effect on senders of a signed key that this client cannot replace.
    ///
    /// # Errors
    ///
    /// [`AnnounceError::SignedForOtherKeys`] if they would seal what the keyring cannot open.
    fn earlier(
        &self,
        signed_key: &str,
        keyring: &Keyring,
    ) -> Result<EarlierSignedKey, AnnounceError> {
        let verified =
            signed_key::verify(signed_key, &self.client, &self.authority, Timestamp::now());
        let verified = match verified {
            Ok(verified) => verified,
            Err(error) => return Ok(EarlierSignedKey::Refused(error)),
        };
        let until = verified.announcement.not_after;
        match verified.strongest() {
            Some(key) if keyring.contains(key.key_id()) => Ok(EarlierSignedKey::InUse { until }),
            Some(_) => Err(AnnounceError::SignedForOtherKeys { until }),
            None => Ok(EarlierSignedKey::Refused(SignedKeyError::NoKnownSuite)),
        }
    }

    async fn register_bare(
        &self,
        handle: &Handle,
        keyring: &Keyring,
        earlier: Option<EarlierSignedKey>,
    ) -> Result<Registration, AnnounceError> {
        register_public(handle, keyring.newest().public_key()).await?;
        Ok(Registration {
            client: self.client.clone(),
            signed_key: None,
            epoch: None,
            not_recorded: None,
            earlier,
        })
    }
}

impl From<NotEnded> for AnnounceError {
    fn from(_: NotEnded) -> Self {
        RequestError::new(RequestErrorKind::Closed, "The client was closed.").into()
    }
}
