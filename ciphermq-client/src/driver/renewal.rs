//! The move of a connection to new credentials.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::settings::{DriverSettings, Setup};
use super::task::establish;
use crate::connector::Connector;
use crate::credentials::Credentials;
use crate::error::ConnectError;

/// The shortest and the longest pause before credentials that the server has refused are tried
/// again.
const RETRY_DELAY: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

type Trial = Pin<Box<dyn Future<Output = Result<(), ConnectError>> + Send>>;

/// Tries new credentials while a connection lasts: it goes on if the server refuses them.
pub(super) struct Renewal {
    connector: Arc<Connector>,
    settings: Arc<DriverSettings>,
    current: watch::Receiver<Arc<Credentials>>,
    trial: Option<Trial>,
    /// The trials that have failed.
    failures: u32,
    /// The refusal that was reported last.
    reported: Option<String>,
}

impl Renewal {
    pub(super) fn new(connector: Arc<Connector>, settings: Arc<DriverSettings>) -> Self {
        Self {
            current: connector.credentials().subscribe(),
            connector,
            settings,
            trial: None,
            failures: 0,
            reported: None,
        }
    }

    /// Begins anew, for a connection that has just been made with these credentials: others than
    /// the current ones, if the server has just refused those.
    pub(super) fn restart(&mut self, made_with: &Arc<Credentials>) {
        self.trial = None;
        let is_current = Arc::ptr_eq(&self.current.borrow(), made_with);
        self.failures = if is_current { 0 } else { self.failures.max(1) };
    }

    /// Whether a refusal is another one than the last that was reported.
    pub(super) fn is_news(&mut self, reason: &ConnectError) -> bool {
        let text = reason.to_string();
        self.reported.replace(text.clone()) != Some(text)
    }

    /// Waits until the server accepts other credentials than those that the connection uses.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// The reason why it did not accept them. They are tried again.
    pub(super) async fn accepted(&mut self, used: &Arc<Credentials>) -> Result<(), ConnectError> {
        if self.trial.is_none() {
            let differs = |current: &Arc<Credentials>| !Arc::ptr_eq(current, used);
            if self.current.wait_for(differs).await.is_err() {
                // The client is gone, and with it this task.
                return std::future::pending().await;
            }
        }
        let pause = match self.failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(exponent) => RETRY_DELAY
                .saturating_mul(1 << exponent.min(8))
                .min(LONGEST_DELAY),
        };
        let (connector, settings) = (&self.connector, &self.settings);
        let trial = self.trial.get_or_insert_with(|| {
            let (connector, settings) = (Arc::clone(connector), Arc::clone(settings));
            let mut current = self.current.clone();
            current.mark_unchanged();
            Box::pin(async move {
                tokio::select! {
                    () = sleep(pause) => {}
                    // Others may be better.
                    _ = current.changed() => {}
                }
                // As a client without a consumer, which takes no deliveries.
                let setup = Setup::client();
                let tried = establish(&connector, &settings, &setup, None).await?;
                tried.signing_refused().map_or(Ok(()), Err)
            })
        });
        let tried = trial.await;
        self.trial = None;
        match tried {
            Ok(()) => self.failures = 0,
            Err(_) => self.failures = self.failures.saturating_add(1),
        }
        tried
    }
}
