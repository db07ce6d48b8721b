//! The credentials in use, which are replaced while connections last.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ciphermq_crypto::Authority;
use ciphermq_crypto::identity::Intermediate;
use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use super::end::CertificateEnd;
use super::load::{Credentials, Snapshot, Source};
use crate::blocking::blocking;
use crate::error::{ConnectError, ConnectErrorKind};
use crate::event::{self, Event};
use crate::revocation::{KeptLists, UnknownLists};

/// The credentials in use, and where they come from.
pub(crate) struct CurrentCredentials {
    source: Source,
    client_id: ClientId,
    /// The public files behind the credentials in use.
    in_use: Mutex<Snapshot>,
    /// The last reason why others were not used.
    reported: Mutex<Option<String>>,
    current: watch::Sender<Arc<Credentials>>,
    /// The authorities in use, with the lists of what they have revoked.
    pub(super) authority: watch::Sender<Authority>,
    /// Raised whenever those or their lists change, after the change.
    pub(super) generation: AtomicU64,
    /// Held from reading lists to sending the authorities, so that nothing older follows.
    pub(super) refreshing: Mutex<()>,
    /// The lists that were accepted.
    pub(super) kept_lists: KeptLists,
    /// The server's lists of authorities that are not known.
    pub(super) unknown_lists: UnknownLists,
    /// Authorities that are learned once the server has answered.
    pub(super) unanswered: Mutex<Vec<Intermediate>>,
    /// The greatest age of the lists that is accepted.
    pub(super) max_list_age: Option<Duration>,
    /// What concerns the listeners of every connection.
    notices: broadcast::Sender<Event>,
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
        kept_lists: KeptLists,
        max_list_age: Option<Duration>,
    ) -> Result<Self, ConnectError> {
        let in_use = source.snapshot();
        let credentials = source.load()?;
        let authority = watch::Sender::new(credentials.authority.clone());
        let loaded = Self {
            source,
            client_id: credentials.client_id.clone(),
            in_use: Mutex::new(in_use),
            reported: Mutex::default(),
            current: watch::Sender::new(Arc::new(credentials)),
            authority,
            generation: AtomicU64::default(),
            refreshing: Mutex::default(),
            kept_lists,
            unknown_lists: UnknownLists::default(),
            unanswered: Mutex::default(),
            max_list_age,
            notices: broadcast::Sender::new(event::BACKLOG),
        };
        if let Err(reason) = loaded.refresh_authority() {
            tracing::warn!(%reason, advice = reason.advice(), "A revocation list is not known");
        }
        Ok(loaded)
    }

    /// Returns the client id, which stays the same when certificates are replaced.
    pub(crate) fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Returns the credentials in use.
    pub(crate) fn get(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.borrow())
    }

    /// Returns what ends: the certificates of this client, of its authorities, and the revocation
    /// lists in force.
    pub(crate) fn ends(&self) -> Vec<CertificateEnd> {
        let mut ends = self.current.borrow().ends.clone();
        let authority = self.authority.borrow();
        ends.extend(authority.lists().iter().map(CertificateEnd::of_list));
        ends
    }

    /// Returns the authority that names clients, which refuses what is revoked.
    pub(crate) fn authority(&self) -> Authority {
        self.authority.borrow().clone()
    }

    /// Learns of authorities and lists that replace those in use.
    pub(crate) fn subscribe_authority(&self) -> watch::Receiver<Authority> {
        self.authority.subscribe()
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
        blocking(move || current.reload_now()).await
    }

    /// Reads the files again if they have changed, and reports what hinders it, once each.
    ///
    /// Files that do not belong together, as they are while they are replaced one after the other,
    /// are looked at again the next time.
    pub(crate) async fn reload_or_report(self: &Arc<Self>) {
        let reason = match self.reload().await {
            Ok(_) => {
                *self.reported.lock() = None;
                return;
            }
            Err(reason) => reason,
        };
        let text = reason.to_string();
        let before = self.reported.lock().replace(text.clone());
        if before != Some(text) {
            tracing::warn!(%reason, "The certificate files have changed and cannot be used");
            self.notify(Event::CertificateNotRenewed { reason });
        }
    }

    fn reload_now(&self) -> Result<bool, ConnectError> {
        // Held while reading, so that older files never replace newer ones.
        let mut in_use = self.in_use.lock();
        let snapshot = self.source.snapshot();
        if snapshot == *in_use {
            return Ok(false);
        }
        let credentials = self.source.load()?;
        if self.source.snapshot() != snapshot {
            // Somebody is writing them: the next look comes soon.
            return Ok(false);
        }
        self.check(&credentials)?;
        *in_use = snapshot;
        self.current.send_replace(Arc::new(credentials));
        if let Err(reason) = self.refresh_authority() {
            self.notify(reason.into_event());
        }
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
        let (current, now) = (self.get(), Timestamp::now());
        match new.flaw(now) {
            Some(flaw) if current.flaw(now).is_none() => return Err(new.refused(&flaw)),
            _ => {}
        }
        match new.check_signer(now) {
            Err(error) if current.check_signer(now).is_ok() => {
                let what = format!("This client's new certificate cannot sign: {error}.");
                Err(ConnectError::new(ConnectErrorKind::BadCertificate, what)
                    .advise(error.advice())
                    .caused_by(error))
            }
            _ => Ok(()),
        }
    }
}
