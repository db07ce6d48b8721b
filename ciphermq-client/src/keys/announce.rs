//! Signing and registering this client's own keys.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::signed_key::{AnnouncementError, OwnSignedKey};
use ciphermq_crypto::{Authority, Identity, Keyring, RecipientKey, SignedKeyError, signed_key};
use ciphermq_protocol::{ClientId, Command, Reply};
use jiff::Timestamp;

use super::announced::{Announced, Announcements, HIGHEST_ABOVE, NotRecorded, Signed};
use crate::driver::Handle;
use crate::error::{RequestError, RequestErrorKind};

/// The validity of announced keys, limited further by the certificate that signs them: long enough
/// for a receiver that is away for months, since nobody can send to it afterwards.
pub const ANNOUNCEMENT_VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Attempts to register keys while other processes of this client are faster.
const TRIES: usize = 8;

/// Why this client's keys were not announced.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The request to the server failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The certificate cannot sign the keys.
    #[error("the keys cannot be signed: {0}")]
    Sign(#[from] AnnouncementError),
    /// No sender would accept the signed keys.
    #[error("no sender would take the keys: {0}")]
    NotAccepted(#[from] SignedKeyError),
    /// The server has a signed key with a higher epoch that this client has not signed.
    #[error("the server has a signed key of a higher epoch that this client did not sign")]
    NotOurs {
        /// The epoch that the server's key states.
        epoch: Option<u64>,
    },
    /// Senders use a signed key that is not in the keyring, and this certificate cannot sign
    /// another one.
    #[error(
        "senders use the signed key of this client that the server has, until {until}: it is for \
         another key pair than \
         the one given here, and this client's certificate cannot sign a new one"
    )]
    SignedForOtherKeys {
        /// When senders stop using the signed key.
        until: Timestamp,
    },
    /// The server has confirmed the keys, but returns others, or none.
    #[error("the server has confirmed the keys, and does not hand them out")]
    NotKept,
    /// Other processes of this client announce keys all the time.
    #[error("other processes of this client announce keys without end")]
    Contended,
    /// The last epoch was the highest possible one.
    #[error("this client has signed a key with the highest epoch that on_server is")]
    NoHigherEpoch,
    /// Another process of this client has announced other keys later.
    #[error("another process of this client has announced other keys, and they have run out")]
    OtherKeys,
}

ciphermq_protocol::debug_as_report!(AnnounceError, |error| Some(error.advice()));

impl AnnounceError {
    /// Returns what to do, for a person who runs this client.
    #[must_use]
    pub fn advice(&self) -> String {
        use ciphermq_crypto::identity::CertificateError::{Expired, NotTrusted, NotYetValid};
        match self {
            Self::Request(error) => error
                .advice()
                .unwrap_or("Check that the server runs, then try again.")
                .to_owned(),
            Self::Sign(AnnouncementError::Expired(_))
            | Self::NotAccepted(SignedKeyError::Certificate(Expired(_))) => {
                "Check this machine's clock. If it is right, get a new certificate for this \
                 client."
                    .to_owned()
            }
            Self::NotAccepted(SignedKeyError::Certificate(NotYetValid(_))) => {
                "Check this machine's clock. If it is right, wait until the certificate is valid, \
                 or get another one."
                    .to_owned()
            }
            Self::NotAccepted(SignedKeyError::Certificate(NotTrusted(_))) => {
                "Senders take keys that are signed with a certificate of their authority. Use a \
                 certificate of the authority of --ca, with the intermediate ones in its file; or \
                 name the authority that has issued it with --ca."
                    .to_owned()
            }
            Self::Sign(_) | Self::NotAccepted(_) => {
                "Get a certificate for this client that can sign: `ciphermq-cli certs` makes such \
                 ones."
                    .to_owned()
            }
            Self::NotOurs { epoch: Some(epoch) } if *epoch <= HIGHEST_ABOVE => format!(
                "If this client had another certificate authority before, go beyond what it signed \
                 then: `ciphermq-cli register-key --above {epoch}`. If not, look at who else could \
                 register keys in its name."
            ),
            Self::NotOurs { .. } => "Nothing can go beyond it. Whoever runs the server can remove \
                                     its row of this client in `signed_keys`; look at who else \
                                     could register keys in its name."
                .to_owned(),
            Self::SignedForOtherKeys { .. } => "Get a certificate for this client that can sign: \
                `ciphermq-cli certs` makes such ones; or give the private key that the signed key \
                is for with --private-key."
                .to_owned(),
            Self::NotKept => "Somebody between here and the server's database may be exchanging \
                              keys: look at the server's log, and at `ciphermq-cli verify-key` as \
                              a sender."
                .to_owned(),
            Self::Contended => "Look at what runs with this client's certificate, and try \
                                again."
                .to_owned(),
            Self::NoHigherEpoch => "Senders that have seen it must remove their records of this \
                                    client's key, and whoever runs the server its row in \
                                    `signed_keys`. Use a new certificate authority if somebody \
                                    else could have signed it."
                .to_owned(),
            Self::OtherKeys => "Start this receiver again, with the newest keys, or run \
                                `ciphermq-cli register-key` where they are."
                .to_owned(),
        }
    }
}

/// The result of an announcement.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Registration {
    /// The owner of the keys.
    pub client: ClientId,
    /// The signed key that the server returns now; `None` if this client cannot sign and has
    /// registered a bare key.
    pub signed_key: Option<String>,
    /// The epoch of the signed key.
    pub epoch: Option<u64>,
    /// Why the next announcement may not know of this one; for people.
    pub not_recorded: Option<NotRecorded>,
    /// The signed key that senders still receive, if this client cannot sign and has registered a
    /// bare key.
    pub earlier: Option<EarlierSignedKey>,
}

/// A signed key that was registered before a bare one, and that the server still returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EarlierSignedKey {
    /// Senders use it, and the keyring can open messages that are sealed for it.
    InUse {
        /// When senders stop using it.
        until: Timestamp,
    },
    /// Senders refuse it, and do not fall back to a bare key.
    Refused(SignedKeyError),
}

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
    client: ClientId,
    /// `None` if the certificate cannot sign.
    identity: Option<Arc<Identity>>,
    authority: Authority,
    announcements: Announcements,
}

impl Announcer {
    pub(crate) fn new(
        client: ClientId,
        identity: Option<Arc<Identity>>,
        authority: Authority,
        announcements: Announcements,
    ) -> Self {
        Self {
            client,
            identity,
            authority,
            announcements,
        }
    }

    /// Signs the keyring's public keys with an epoch above everything that this client ever signed,
    /// and registers them. Succeeds only if the server then returns keys that a sender accepts. A
    /// client that cannot sign registers its bare key.
    pub(crate) async fn announce(
        &self,
        handle: &Handle,
        keyring: &Keyring,
        above: Option<u64>,
    ) -> Result<Registration, AnnounceError> {
        let on_server = match self.ask(handle).await {
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
            && !own.key_ids.iter().any(|key| keyring.holds(*key))
        {
            tracing::warn!(
                client = %self.client,
                "The server has keys of this client that are not in its keyring: messages that \
                 are sealed for them cannot be opened here"
            );
        }
        let mut floor = on_server.map(|own| own.epoch).max(above);
        for _ in 0..TRIES {
            let signed = self.sign(identity, keyring.recipient_keys(), floor).await?;
            self.check(&signed.announced.signed_key)?;
            match self.register(handle, &signed.announced.signed_key).await {
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
    /// as they are: this process's keys may be the older ones.
    pub(crate) async fn keep(
        &self,
        handle: &Handle,
        keyring: &Keyring,
        mine: &Announced,
    ) -> Result<Option<Registration>, AnnounceError> {
        let Some(identity) = &self.identity else {
            return Ok(None);
        };
        let text = self.ask(handle).await?;
        let on_server = text.and_then(|text| {
            let own = self.parse_own(identity, &text)?;
            Some(Announced {
                client_id: self.client.clone(),
                epoch: own.epoch,
                signed_key: text,
            })
        });
        let recorded = self.last().await;
        let recorded =
            recorded.filter(|recorded| self.parse_own(identity, &recorded.signed_key).is_some());
        let newest = [Some(mine), recorded.as_ref(), on_server.as_ref()]
            .into_iter()
            .flatten()
            .max_by_key(|announced| announced.epoch)
            .unwrap_or(mine);
        let is_valid = self.is_valid_for_long(identity, &newest.signed_key);
        if is_valid && on_server.as_ref() == Some(newest) {
            return Ok(None);
        }
        if is_valid {
            match self.register(handle, &newest.signed_key).await {
                Ok(()) => return Ok(Some(Registration::of(newest.clone(), None))),
                Err(error) if error.kind() == RequestErrorKind::StaleKey => {}
                Err(error) => return Err(error.into()),
            }
        } else if !self.has_keys(&newest.signed_key, keyring) {
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
        signed_key::verify(signed_key, &self.client, &self.authority, now).is_ok_and(|verified| {
            let until = verified.announcement.not_after;
            until >= identity.not_after()
                || until.duration_since(now).unsigned_abs() > ANNOUNCEMENT_VALIDITY / 2
        })
    }

    fn has_keys(&self, signed_key: &str, keyring: &Keyring) -> bool {
        let own = self
            .identity
            .as_deref()
            .and_then(|identity| self.parse_own(identity, signed_key));
        own.is_some_and(|own| own.key_ids.iter().any(|key| keyring.holds(*key)))
    }

    fn parse_own(&self, identity: &Identity, signed_key: &str) -> Option<OwnSignedKey> {
        OwnSignedKey::read(signed_key, identity, &self.authority, Timestamp::now())
    }

    /// Checks that a sender would accept the keys now.
    fn check(&self, signed_key: &str) -> Result<(), SignedKeyError> {
        signed_key::verify(signed_key, &self.client, &self.authority, Timestamp::now()).map(drop)
    }

    /// Returns the epoch of this client's key on the server, which is above the given one.
    async fn newer_epoch(
        &self,
        handle: &Handle,
        identity: &Identity,
        epoch: u64,
    ) -> Result<u64, AnnounceError> {
        let on_server = self.ask(handle).await?;
        let own = on_server
            .as_deref()
            .and_then(|text| self.parse_own(identity, text));
        own.map(|own| own.epoch)
            .filter(|newer| *newer >= epoch)
            .ok_or_else(|| AnnounceError::NotOurs {
                epoch: on_server.as_deref().and_then(signed_key::stated_epoch),
            })
    }

    /// Fetches the registered keys and verifies them as a sender does.
    async fn confirm(
        &self,
        handle: &Handle,
        identity: &Identity,
        signed: Signed,
    ) -> Result<Registration, AnnounceError> {
        let Signed {
            announced,
            not_recorded,
        } = signed;
        let on_server = self.ask(handle).await?.ok_or(AnnounceError::NotKept)?;
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
        let (announcements, learned) = (self.announcements.clone(), announced.clone());
        blocking(move || {
            announcements.learn(learned);
            Ok(())
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
        let (announcements, identity) = (self.announcements.clone(), Arc::clone(identity));
        blocking(move || announcements.sign(&identity, keys, floor, Timestamp::now())).await
    }

    async fn last(&self) -> Option<Announced> {
        let (announcements, client) = (self.announcements.clone(), self.client.clone());
        blocking(move || Ok(announcements.last(&client)))
            .await
            .ok()
            .flatten()
    }

    async fn ask(&self, handle: &Handle) -> Result<Option<String>, RequestError> {
        signed_key_of(handle, &self.client).await
    }

    async fn register(&self, handle: &Handle, signed_key: &str) -> Result<(), RequestError> {
        register_signed(handle, signed_key).await
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
            Some(key) if keyring.holds(key.key_id()) => Ok(EarlierSignedKey::InUse { until }),
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
        let command = Command::RegisterPublicKey {
            client_id: None,
            key: keyring.newest().public_key().to_base64(),
        };
        handle.expect(command, registered).await?;
        Ok(Registration {
            client: self.client.clone(),
            signed_key: None,
            epoch: None,
            not_recorded: None,
            earlier,
        })
    }
}

/// Fetches the signed key of a client as it is.
pub(crate) async fn signed_key_of(
    handle: &Handle,
    client: &ClientId,
) -> Result<Option<String>, RequestError> {
    let command = Command::GetSignedKey {
        client_id: client.clone(),
    };
    handle
        .expect(command, |reply| match reply {
            Reply::SignedKey(key) => Some(Some(key)),
            Reply::PublicKeyNotFound => Some(None),
            _ => None,
        })
        .await
}

/// Registers a signed key as it is.
pub(crate) async fn register_signed(handle: &Handle, signed_key: &str) -> Result<(), RequestError> {
    let command = Command::RegisterSignedKey {
        signed_key: signed_key.to_owned(),
    };
    handle.expect(command, registered).await
}

fn registered(reply: Reply) -> Option<()> {
    matches!(reply, Reply::PublicKeyRegistered).then_some(())
}

/// Runs a function that waits for a disk or a lock on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AnnounceError> + Send + 'static,
) -> Result<T, AnnounceError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(RequestError::new(RequestErrorKind::Closed, "The client was closed.").into())
    })
}
