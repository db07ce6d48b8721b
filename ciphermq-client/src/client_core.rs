//! The parts of a client that its publishers and consumers share.

use std::sync::Arc;

use ciphermq_protocol::ClientId;
use jiff::Timestamp;

use crate::connector::Connector;
use crate::credentials::{self, CurrentCredentials};
use crate::driver::{self, DriverSettings, Handle, Setup};
use crate::error::ConnectError;
use crate::keys::{Announcements, Announcer, RecipientKeyCache};
use crate::revocation::{self, Fetcher};

/// A connection with the client's identity, its keys and its settings.
#[derive(Debug)]
pub(crate) struct ClientCore {
    pub(crate) connector: Arc<Connector>,
    pub(crate) settings: DriverSettings,
    pub(crate) handle: Handle,
    pub(crate) id: ClientId,
    pub(crate) credentials: Arc<CurrentCredentials>,
    pub(crate) keys: RecipientKeyCache,
    pub(crate) announcer: Announcer,
    pub(crate) lists: Fetcher,
}

impl ClientCore {
    /// Connects, and starts the connection's driver.
    pub(crate) async fn connect(
        connector: Arc<Connector>,
        settings: DriverSettings,
        keys: RecipientKeyCache,
        announcements: Announcements,
    ) -> Result<Self, ConnectError> {
        let credentials = Arc::clone(connector.credentials());
        let lists = Fetcher::new(Arc::clone(&credentials), keys.ttl());
        let handle =
            driver::start(connector.clone(), settings.clone(), Setup::client(), None).await?;
        credentials::watch(&credentials);
        // Without an answer the list that was kept counts, and the next attempt brings another one.
        lists.renew(&handle).await;
        credentials.check_lists(Timestamp::now())?;
        // Nobody has heard what was reported until now.
        let lists = lists.of_connection();
        revocation::keep_fetching(handle.downgrade(), handle.events(), lists.clone());
        let announcer = Announcer::new(Arc::clone(&credentials), announcements);
        Ok(Self {
            id: connector.client_id().clone(),
            connector,
            settings,
            handle,
            credentials,
            keys,
            announcer,
            lists,
        })
    }
}
