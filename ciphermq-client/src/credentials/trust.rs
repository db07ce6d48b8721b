//! The authorities in use, as a publisher or consumer follows them.

use std::sync::Arc;

use ciphermq_crypto::Authority;
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

    /// Returns the authorities in use if they have changed since the last look.
    pub(crate) fn changed(&mut self) -> Option<Authority> {
        let has_changed = self.authority.has_changed().unwrap_or(false);
        has_changed.then(|| self.authority())
    }

    /// Checks that the revocation lists are as new as this client requires.
    ///
    /// # Errors
    ///
    /// As [`CurrentCredentials::check_lists`].
    pub(crate) fn check_lists(&self, now: Timestamp) -> Result<(), ConnectError> {
        self.credentials.check_lists(now)
    }
}
