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

/// The pause before credentials that the server has refused are tried again.
const RETRY_DELAY: Duration = Duration::from_secs(10);

type Trial = Pin<Box<dyn Future<Output = Result<(), ConnectError>> + Send>>;

/// Tries new credentials while a connection lasts: it goes on if the server refuses them.
pub(super) struct Renewal {
    connector: Arc<Connector>,
    settings: Arc<DriverSettings>,
    current: watch::Receiver<Arc<Credentials>>,
    trial: Option<Trial>,
    has_failed: bool,
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
            has_failed: false,
            reported: None,
        }
    }

    /// Begins anew, for a connection that has just been made.
    pub(super) fn restart(&mut self) {
        self.trial = None;
        self.has_failed = false;
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
        let pause = if self.has_failed {
            RETRY_DELAY
        } else {
            Duration::ZERO
        };
        let (connector, settings) = (&self.connector, &self.settings);
        let trial = self.trial.get_or_insert_with(|| {
            let (connector, settings) = (Arc::clone(connector), Arc::clone(settings));
            Box::pin(async move {
                sleep(pause).await;
                // As a client without a consumer, which takes no deliveries.
                establish(&connector, &settings, &Setup::client(), None)
                    .await
                    .map(drop)
            })
        });
        let tried = trial.await;
        self.trial = None;
        self.has_failed = tried.is_err();
        tried
    }
}
