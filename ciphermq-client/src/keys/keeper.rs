//! Keeps a consumer's keys announced for as long as it runs.
//!
//! The server may return with another database, or an older copy of it; the announcement may
//! expire, or the clock that it was made by may be corrected.

use std::time::Duration;

use ciphermq_crypto::Keyring;
use tokio::time::{Instant, sleep_until};

use super::announce::{Announcer, Signer};
use super::announced::Announced;
use super::registration::{AnnounceError, Registration};
use crate::driver::Handle;
use crate::event::{Event, Events};

/// The longest interval between checks for an expiring announcement. They need no request to the
/// server.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Pause before a retry after a failure.
const RETRY_DELAY: Duration = Duration::from_secs(30);

/// Renews an announcement when necessary, until the connection is closed for good.
pub(crate) fn keep_announced(
    handle: Handle,
    events: Events,
    announcer: Announcer,
    keyring: Keyring,
    announced: Option<Announced>,
) {
    let keeper = Keeper {
        handle,
        announcer,
        keyring,
        announced,
    };
    tokio::spawn(keeper.run(events));
}

struct Keeper {
    handle: Handle,
    announcer: Announcer,
    keyring: Keyring,
    /// `None` as long as nothing could be signed.
    announced: Option<Announced>,
}

impl Keeper {
    async fn run(mut self, mut events: Events) {
        let mut has_failed = false;
        // The keys are signed again with a new certificate, so that they are valid as long as it
        // is, and not by one that may be revoked.
        let mut sign_anew = false;
        let interval = CHECK_INTERVAL.min(self.announcer.lifetime() / 10);
        let mut next = match self.announced {
            Some(_) => Instant::now() + interval,
            // The listeners are to know at once.
            None => Instant::now(),
        };
        loop {
            let is_new = tokio::select! {
                event = events.next() => match event {
                    None | Some(Event::Closed) => return,
                    Some(Event::Connected) => true,
                    // The connection's own event follows.
                    Some(Event::CertificateRenewed { .. }) => {
                        sign_anew = true;
                        continue;
                    }
                    Some(_) => continue,
                },
                () = sleep_until(next) => false,
            };
            next = Instant::now() + interval;
            let signer = self.announcer.signer(&self.handle);
            let announced = self.announced.as_ref();
            let is_due = announced.is_none_or(|announced| signer.is_due(announced));
            if is_new || has_failed || is_due {
                has_failed = self.check(&signer, sign_anew, has_failed).await.is_err();
                if has_failed {
                    next = Instant::now() + RETRY_DELAY;
                } else {
                    sign_anew = false;
                }
            }
        }
    }

    /// Checks that the server returns the right keys; reports a failure once.
    async fn check(
        &mut self,
        signer: &Signer,
        sign_anew: bool,
        has_failed: bool,
    ) -> Result<(), ()> {
        let (handle, keyring) = (&self.handle, &self.keyring);
        let kept = match &self.announced {
            Some(announced) => signer.keep(handle, keyring, announced, sign_anew).await,
            None => signer.announce(handle, keyring, None).await.map(Some),
        };
        match kept {
            Ok(None) => Ok(()),
            Ok(Some(registration)) => {
                self.learn(&registration);
                self.handle.emit(Event::KeysAnnounced { registration });
                Ok(())
            }
            // Retried on the next connection.
            Err(AnnounceError::Request(error)) if error.is_retryable() => Err(()),
            Err(reason) => {
                if !has_failed {
                    self.handle.emit(Event::KeysNotAnnounced { reason });
                }
                Err(())
            }
        }
    }

    fn learn(&mut self, registration: &Registration) {
        if let Some(announced) = Announced::of(registration) {
            self.announced = Some(announced);
        }
    }
}
