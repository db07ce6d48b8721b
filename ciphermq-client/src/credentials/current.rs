//! The credentials in use, which are replaced while connections last.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::Authority;
use ciphermq_crypto::Identity;
use ciphermq_crypto::identity::{IdentityError, RevocationList};
use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use super::load::{Credentials, Snapshot, Source};
use crate::error::{ConnectError, ConnectErrorKind};
use crate::event::{self, Event};

/// The credentials in use, and where they come from.
pub(crate) struct CurrentCredentials {
    source: Source,
    client_id: ClientId,
    /// What was seen when the files were read last.
    seen: Mutex<Seen>,
    current: watch::Sender<Arc<Credentials>>,
    /// The authorities in use, with the lists of what they have revoked.
    authority: watch::Sender<Authority>,
    /// The lists that were accepted, of these and of other authorities.
    lists: Mutex<Vec<RevocationList>>,
    /// The greatest age of the lists that is accepted.
    max_list_age: Option<Duration>,
    /// What concerns the listeners of every connection.
    notices: broadcast::Sender<Event>,
}

#[derive(Default)]
struct Seen {
    /// The public files behind the credentials in use.
    in_use: Snapshot,
    /// The last reason why others were not used.
    failure: Option<String>,
}

impl std::fmt::Debug for CurrentCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CurrentCredentials")
            .field("source", &self.source)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl CurrentCredentials {
    /// Reads the credentials for the first time. It waits for the disk.
    pub(crate) fn load(
        source: Source,
        max_list_age: Option<Duration>,
    ) -> Result<Self, ConnectError> {
        let in_use = source.snapshot();
        let credentials = source.load()?;
        let authority = watch::Sender::new(credentials.authority.clone());
        Ok(Self {
            source,
            client_id: credentials.client_id.clone(),
            seen: Mutex::new(Seen {
                in_use,
                failure: None,
            }),
            current: watch::Sender::new(Arc::new(credentials)),
            authority,
            lists: Mutex::default(),
            max_list_age,
            notices: broadcast::Sender::new(event::BACKLOG),
        })
    }

    /// Returns the client id, which stays the same when certificates are replaced.
    pub(crate) fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Returns the credentials in use.
    pub(crate) fn get(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.borrow())
    }

    /// Returns the authority that names clients, which refuses what is revoked.
    pub(crate) fn authority(&self) -> Authority {
        self.authority.borrow().clone()
    }

    /// Learns of authorities and lists that replace those in use.
    pub(crate) fn subscribe_authority(&self) -> watch::Receiver<Authority> {
        self.authority.subscribe()
    }

    /// Puts the revocation lists in force that the authorities in use have signed.
    pub(crate) fn set_lists(&self, lists: Vec<RevocationList>) {
        *self.lists.lock() = lists;
        let authority = self.current.borrow().authority.clone();
        self.set_authority(&authority);
    }

    fn set_authority(&self, authority: &Authority) {
        let lists = self.lists.lock();
        let signed = lists
            .iter()
            .filter_map(|list| authority.read_list(list.der()).ok());
        let lists: Vec<RevocationList> = signed.collect();
        let is_same = |current: &Authority| {
            current.has_same_anchors(authority)
                && current
                    .lists()
                    .iter()
                    .map(RevocationList::der)
                    .eq(lists.iter().map(RevocationList::der))
        };
        self.authority.send_if_modified(|current| {
            if is_same(current) {
                return false;
            }
            *current = authority.with_lists(lists.clone());
            true
        });
    }

    /// Checks that the revocation lists are as new as this client requires.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: an authority has no list, or an older one.
    pub(crate) fn check_lists(&self, now: Timestamp) -> Result<(), ConnectError> {
        let Some(max_age) = self.max_list_age else {
            return Ok(());
        };
        let made = self.authority.borrow().lists_made_at();
        let what = match made {
            Some(made) if now < made || now.duration_since(made).unsigned_abs() <= max_age => {
                return Ok(());
            }
            Some(made) => format!("The last revocation list was made at {made}"),
            None => "There is no revocation list of every authority".to_owned(),
        };
        Err(ConnectError::new(
            ConnectErrorKind::OldRevocationList,
            format!("{what}, and this client requires one that is at most {max_age:?} old."),
        )
        .advise(
            "Put a new list of the authority in place at the server: `keygen crl`, `[tls] \
             crl_paths`, and `ciphermq-cli reload`.",
        ))
    }

    /// Returns the identity that signs, or why the certificate cannot sign.
    pub(crate) fn identity(&self) -> Result<Arc<Identity>, IdentityError> {
        self.current.borrow().identity.clone()
    }

    /// Learns of credentials that replace those in use.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Credentials>> {
        self.current.subscribe()
    }

    /// Learns of what concerns every connection.
    pub(crate) fn notices(&self) -> broadcast::Receiver<Event> {
        self.notices.subscribe()
    }

    pub(super) fn notify(&self, notice: Event) {
        // Fails if there is no listener.
        let _ = self.notices.send(notice);
    }

    /// Reads the files again if they have changed, and says whether others are in use now.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the new ones cannot be used; those in use stay.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<bool, ConnectError> {
        if !self.source.has_files() {
            return Ok(false);
        }
        let current = Arc::clone(self);
        tokio::task::spawn_blocking(move || current.reload_now())
            .await
            .unwrap_or_else(|error| {
                Err(ConnectError::new(
                    ConnectErrorKind::Closed,
                    error.to_string(),
                ))
            })
    }

    /// Reads the files again if they have changed, and reports what hinders it, once each.
    ///
    /// Files that do not belong together, as they are while they are replaced one after the other,
    /// are looked at again the next time.
    pub(crate) async fn reload_or_report(self: &Arc<Self>) {
        let Err(reason) = self.reload().await else {
            return;
        };
        let text = reason.to_string();
        let failure = self.seen.lock().failure.replace(text.clone());
        if failure.as_ref() != Some(&text) {
            tracing::warn!(%reason, "The certificate files have changed and cannot be used");
            self.notify(Event::CertificateNotRenewed { reason });
        }
    }

    fn reload_now(&self) -> Result<bool, ConnectError> {
        // Held while reading, so that older files never replace newer ones.
        let mut seen = self.seen.lock();
        let snapshot = self.source.snapshot();
        if snapshot == seen.in_use {
            seen.failure = None;
            return Ok(false);
        }
        let credentials = self.source.load()?;
        self.check(&credentials)?;
        *seen = Seen {
            in_use: snapshot,
            failure: None,
        };
        let authority = credentials.authority.clone();
        self.current.send_replace(Arc::new(credentials));
        self.set_authority(&authority);
        tracing::info!("The certificate files have changed and are in use");
        Ok(true)
    }

    /// Refuses credentials that would make matters worse.
    fn check(&self, new: &Credentials) -> Result<(), ConnectError> {
        if new.client_id != self.client_id {
            let what = format!(
                "The client's certificate names `{}` now, and this client is `{}`.",
                new.client_id, self.client_id
            );
            return Err(ConnectError::new(ConnectErrorKind::OtherClient, what)
                .advise("Put this client's certificate back, or start a client of the new name."));
        }
        match new.flaw(Timestamp::now()) {
            Some(flaw) if self.get().flaw(Timestamp::now()).is_none() => Err(new.refused(&flaw)),
            _ => Ok(()),
        }
    }
}
