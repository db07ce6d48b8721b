//! The authorities in use, as a publisher or consumer follows them.

use std::ops::RangeInclusive;
use std::sync::Arc;

use ciphermq_crypto::Authority;
use ciphermq_crypto::identity::Intermediate;
use jiff::Timestamp;
use tokio::sync::watch;

use super::CurrentCredentials;
use crate::error::ConnectError;

/// The authorities in use, with their revocation lists, and whether they have changed.
#[derive(Debug)]
pub(crate) struct Trust {
    credentials: Arc<CurrentCredentials>,
    authority: watch::Receiver<Authority>,
}

impl Trust {
    /// Follows the authorities from now on.
    pub(crate) fn new(credentials: Arc<CurrentCredentials>) -> Self {
        Self {
            authority: credentials.subscribe_authority(),
            credentials,
        }
    }

    /// Returns the authorities in use.
    pub(crate) fn authority(&mut self) -> Authority {
        self.authority.borrow_and_update().clone()
    }

    /// Returns the authorities in use, and does not count as a look.
    pub(crate) fn current(&self) -> Authority {
        self.authority.borrow().clone()
    }

    /// Returns the authorities in use if they have changed since the last look.
    pub(crate) fn changed(&mut self) -> Option<Authority> {
        let has_changed = self.authority.has_changed().unwrap_or(false);
        has_changed.then(|| self.authority())
    }

    /// Waits for the next change of the authorities in use, or of their lists, after the last look.
    pub(crate) fn next_change(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let mut authority = self.authority.clone();
        async move {
            // Fails once the client is gone.
            if authority.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when lists must have been made; `None` if any will do.
    pub(crate) fn lists_made_in(&self, now: Timestamp) -> Option<RangeInclusive<Timestamp>> {
        self.credentials.lists_made_in(now)
    }

    /// Whether the lists about another client's certificate are as new as this client requires.
    pub(crate) fn has_lists_of(&self, issuers: &[Intermediate], now: Timestamp) -> bool {
        self.credentials.has_lists_of(issuers, now)
    }

    /// Checks that the client's own revocation lists are as new as this client requires.
    ///
    /// # Errors
    ///
    /// As [`CurrentCredentials::check_lists`].
    pub(crate) fn check_lists(&self, now: Timestamp) -> Result<(), ConnectError> {
        self.credentials.check_lists(now)
    }
}
