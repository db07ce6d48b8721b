//! This client's own keys, signed and registered.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::signed_key::{AnnouncementError, OwnSignedKey};
use ciphermq_crypto::{Authority, Identity, Keyring, RecipientKey, SignedKeyError, signed_key};
use ciphermq_protocol::{ClientId, Command, Reply};
use jiff::Timestamp;

use super::announced::{Announced, Announcements, HIGHEST_ABOVE, NotRecorded, Signed};
use crate::driver::Handle;
use crate::error::{RequestError, RequestErrorKind};

/// How long announced keys are good for, at most as long as the certificate that signs them: long
/// enough for a receiver that is away for months, since nobody can send to it any more after that.
pub const ANNOUNCEMENT_VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// So often others of this client may be quicker.
const TRIES: usize = 8;

/// Why this client's keys were not announced.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The server did not answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The certificate cannot sign them.
    #[error("the keys cannot be signed: {0}")]
    Sign(#[from] AnnouncementError),
    /// Signed as they are, no sender would take them.
    #[error("no sender would take the keys: {0}")]
    NotAccepted(#[from] SignedKeyError),
    /// The server has a signed key of a higher epoch, and this client has not signed it.
    #[error("the server has a signed key of a higher epoch that this client did not sign")]
    NotOurs {
        /// What the server says of its epoch.
        epoch: Option<u64>,
    },
    /// Senders go on sealing for a key that is not in the keyring, since this certificate cannot
    /// sign another one.
    #[error(
        "senders use the signed key of this client that the server has, until {until}: it is for \
         another key pair than \
         the one given here, and this client's certificate cannot sign a new one"
    )]
    SignedForOtherKeys {
        /// When senders stop using the signed key.
        until: Timestamp,
    },
    /// The server has confirmed the keys, and hands out others, or none.
    #[error("the server has confirmed the keys, and does not hand them out")]
    NotKept,
    /// Other processes of this client announce keys all the time.
    #[error("other processes of this client announce keys without end")]
    Contended,
    /// There is no epoch above the last one.
    #[error("this client has signed a key with the highest epoch that there is")]
    NoHigherEpoch {
        /// The record of what was announced, if it has that key.
        record: Option<PathBuf>,
    },
    /// Another process of this client has announced other keys, later.
    #[error("another process of this client has announced other keys, and they have run out")]
    OtherKeys,
}

ciphermq_protocol::debug_as_report!(AnnounceError, |error| Some(error.advice()));

impl AnnounceError {
    /// What to do, for somebody who runs this client.
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
            Self::NoHigherEpoch { record } => {
                let record = record.as_ref().map_or_else(String::new, |record| {
                    format!(
                        " Remove this client's own record, too: {}.",
                        record.display()
                    )
                });
                format!(
                    "Senders that have seen it must remove their records of this client's key, and \
                     whoever runs the server its row in `signed_keys`.{record} Use a new \
                     certificate authority if somebody else could have signed it."
                )
            }
            Self::OtherKeys => "Start this receiver again, with the newest keys, or run \
                                `ciphermq-cli register-key` where they are."
                .to_owned(),
        }
    }
}

/// What became of an announcement.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Registration {
    /// Whose keys they are.
    pub client: ClientId,
    /// The signed key that the server hands out now; nothing if this client cannot sign, and has
    /// registered a bare key.
    pub signed_key: Option<String>,
    /// Its epoch.
    pub epoch: Option<u64>,
    /// Why the next one may not know of it: told to people.
    pub not_recorded: Option<NotRecorded>,
    /// The signed key that senders still get, if this client cannot sign and has registered a bare
    /// key.
    pub earlier: Option<EarlierSignedKey>,
}

/// A signed key that was registered before a bare one, and that the server still hands out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EarlierSignedKey {
    /// Senders use it, and the keyring can open what is sealed for it.
    InUse {
        /// When senders stop using it.
        until: Timestamp,
    },
    /// Senders refuse it, and use no bare key in its place.
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

/// Signs this client's keys, and registers them with whoever keeps them.
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

    /// Signs the keyring's public keys anew, above everything that this client ever signed, and
    /// registers them: nothing is said to be done unless the server hands out what a sender takes.
    /// A client that cannot sign registers its bare key.
    pub(crate) async fn announce(
        &self,
        handle: &Handle,
        keyring: &Keyring,
        above: Option<u64>,
    ) -> Result<Registration, AnnounceError> {
        let there = match self.ask(handle).await {
            Ok(there) => there,
            // An older server keeps bare keys only.
            Err(error) if error.kind() == RequestErrorKind::Unsupported => {
                return self.register_bare(handle, keyring, None).await;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(identity) = &self.identity else {
            let earlier = there.map(|text| self.earlier(&text, keyring)).transpose()?;
            return self.register_bare(handle, keyring, earlier).await;
        };
        let there = there.and_then(|text| self.own(identity, &text));
        if let Some(own) = &there
            && !own.key_ids.iter().any(|key| keyring.contains(*key))
        {
            tracing::warn!(
                client = %self.client,
                "the server has keys of this client that are not in its keyring: what was sealed \
                 for them cannot be opened here"
            );
        }
        let mut floor = there.map(|own| own.epoch).max(above);
        for _ in 0..TRIES {
            let signed = self.sign(identity, keyring.recipient_keys(), floor).await?;
            self.check(&signed.announced.signed_key)?;
            match self.register(handle, &signed.announced.signed_key).await {
                Ok(()) => return self.confirm(handle, identity, signed).await,
                Err(error) if error.kind() == RequestErrorKind::StaleKey => {
                    // Another process of this client was quicker, or its clock was ahead.
                    floor = Some(self.newer(handle, identity, signed.announced.epoch).await?);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(AnnounceError::Contended)
    }

    /// Sees to it that the server hands out the last announcement of this client, or a new one
    /// where that has run out: it may have got another database. `Some` if something was
    /// registered.
    ///
    /// Keys that another process of this client has announced later are left, and registered again,
    /// as they are: this one's may be the older ones.
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
        let there = text.and_then(|text| {
            let own = self.own(identity, &text)?;
            Some(Announced {
                client_id: self.client.clone(),
                epoch: own.epoch,
                signed_key: text,
            })
        });
        let recorded = self.last(identity).await;
        let newest = [Some(mine), recorded.as_ref(), there.as_ref()]
            .into_iter()
            .flatten()
            .max_by_key(|announced| announced.epoch)
            .unwrap_or(mine);
        let is_good = self.is_good_for_long(identity, &newest.signed_key);
        if is_good && there.as_ref() == Some(newest) {
            return Ok(None);
        }
        if is_good {
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

    /// Whether senders take it now, and for long enough: half of its time is left, or it ends with
    /// the certificate.
    pub(crate) fn is_due(&self, announced: &Announced) -> bool {
        let identity = self.identity.as_deref();
        identity.is_some_and(|identity| !self.is_good_for_long(identity, &announced.signed_key))
    }

    fn is_good_for_long(&self, identity: &Identity, signed_key: &str) -> bool {
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
            .and_then(|identity| self.own(identity, signed_key));
        own.is_some_and(|own| own.key_ids.iter().any(|key| keyring.contains(*key)))
    }

    fn own(&self, identity: &Identity, signed_key: &str) -> Option<OwnSignedKey> {
        OwnSignedKey::read(signed_key, identity, &self.authority, Timestamp::now())
    }

    /// Whether a sender would take it now.
    fn check(&self, signed_key: &str) -> Result<(), SignedKeyError> {
        signed_key::verify(signed_key, &self.client, &self.authority, Timestamp::now()).map(drop)
    }

    /// The epoch of the key of ours that the server has, which is above this one.
    async fn newer(
        &self,
        handle: &Handle,
        identity: &Identity,
        epoch: u64,
    ) -> Result<u64, AnnounceError> {
        let there = self.ask(handle).await?;
        let own = there.as_deref().and_then(|text| self.own(identity, text));
        own.map(|own| own.epoch)
            .filter(|newer| *newer >= epoch)
            .ok_or_else(|| AnnounceError::NotOurs {
                epoch: there.as_deref().and_then(signed_key::unverified_epoch),
            })
    }

    /// Asks for what was registered, and looks at it as a sender does.
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
        let there = self.ask(handle).await?.ok_or(AnnounceError::NotKept)?;
        if there == announced.signed_key {
            return Ok(Registration::of(announced, not_recorded));
        }
        // Another process of this client has been here since.
        let epoch = self
            .own(identity, &there)
            .map(|own| own.epoch)
            .filter(|epoch| *epoch >= announced.epoch)
            .ok_or(AnnounceError::NotKept)?;
        self.check(&there)?;
        let announced = Announced {
            client_id: self.client.clone(),
            epoch,
            signed_key: there,
        };
        let (announcer, identity) = (self.clone(), Arc::clone(identity));
        let learned = announced.clone();
        blocking(move || {
            let (announcements, authority) = (announcer.announcements, announcer.authority);
            announcements.learn(&identity, &authority, learned);
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
        let (announcer, identity) = (self.clone(), Arc::clone(identity));
        blocking(move || {
            let (announcements, authority) = (announcer.announcements, announcer.authority);
            announcements.sign(&identity, &authority, keys, floor, Timestamp::now())
        })
        .await
    }

    async fn last(&self, identity: &Arc<Identity>) -> Option<Announced> {
        let (announcer, identity) = (self.clone(), Arc::clone(identity));
        blocking(move || {
            Ok(announcer
                .announcements
                .last(&identity, &announcer.authority))
        })
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

    /// What senders make of a signed key that this client cannot replace.
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

/// Asks for the signed key of a client, as it is.
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

/// Registers a signed key, as it is.
pub(crate) async fn register_signed(handle: &Handle, signed_key: &str) -> Result<(), RequestError> {
    let command = Command::RegisterSignedKey {
        signed_key: signed_key.to_owned(),
    };
    handle.expect(command, registered).await
}

fn registered(reply: Reply) -> Option<()> {
    matches!(reply, Reply::PublicKeyRegistered).then_some(())
}

/// Runs what waits for a disk, or a lock, on a thread where that holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AnnounceError> + Send + 'static,
) -> Result<T, AnnounceError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(RequestError::new(RequestErrorKind::Closed, "The client was closed.").into())
    })
}
