//! The parts of a client that its publishers and consumers share.

use std::sync::Arc;

use ciphermq_crypto::Identity;
use ciphermq_crypto::identity::IdentityError;
use ciphermq_protocol::ClientId;

use crate::connector::Connector;
use crate::driver::{self, DriverSettings, Handle, Setup};
use crate::error::ConnectError;
use crate::keys::{Announcements, Announcer, RecipientKeyCache};

/// A connection with the client's identity, its keys and its settings.
#[derive(Debug)]
pub(crate) struct ClientCore {
    pub(crate) connector: Arc<Connector>,
    pub(crate) settings: DriverSettings,
    pub(crate) handle: Handle,
    pub(crate) id: ClientId,
    /// The signing identity, or why this client's certificate cannot sign.
    pub(crate) identity: Result<Arc<Identity>, IdentityError>,
    pub(crate) keys: RecipientKeyCache,
    pub(crate) announcer: Announcer,
}

impl ClientCore {
    /// Connects, and starts the connection's driver.
    pub(crate) async fn connect(
        connector: Arc<Connector>,
        settings: DriverSettings,
        identity: Result<Arc<Identity>, IdentityError>,
        keys: RecipientKeyCache,
        announcements: Announcements,
    ) -> Result<Self, ConnectError> {
        let handle =
            driver::start(connector.clone(), settings.clone(), Setup::client(), None).await?;
        let id = connector.client_id().clone();
        let announcer = Announcer::new(
            id.clone(),
            identity.as_ref().ok().cloned(),
            keys.authority().clone(),
            announcements,
        );
        Ok(Self {
            connector,
            settings,
            handle,
            id,
            identity,
            keys,
            announcer,
        })
    }
}
