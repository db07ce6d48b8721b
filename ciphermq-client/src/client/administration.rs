//! Connections and clients of the server, and its reload, for administrators; its revocation lists
//! and the ends of its certificates, for all.

use ciphermq_protocol::administration::{
    ClientsPage, ClientsRequest, ConnectionsPage, ConnectionsRequest, Reloaded,
};
use ciphermq_protocol::ends::EndInfo;
use ciphermq_protocol::{ClientId, Command, Reply};

use super::Client;
use crate::error::RequestError;

impl Client {
    /// Fetches the certificate revocation lists that the server has loaded, in DER,
    /// **not verified**. None are returned if it has none.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer, is too old to return them, or allows no line
    /// that is long enough (`LimitReached`).
    pub async fn revocation_lists(&self) -> Result<Vec<Vec<u8>>, RequestError> {
        self.expect(Command::GetCrl, |reply| match reply {
            Reply::RevocationLists(lists) => lists.to_der(),
            _ => None,
        })
        .await
    }

    /// Asks when the server's certificate, the authorities that it trusts, and its revocation lists
    /// end. The server is not to be trusted in this.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer, or is too old to say (`Unsupported`).
    pub async fn ends(&self) -> Result<Vec<EndInfo>, RequestError> {
        self.expect(Command::ListEnds, |reply| match reply {
            Reply::Ends(page) => Some(page.ends),
            _ => None,
        })
        .await
    }
}

/// Only administrators of the server may do this; `NotAuthorized` is the answer to others.
impl Client {
    /// Lists connections, a page at a time: those of all clients, or of one. The `next` of a page
    /// is the `after` of the following request.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server refused or did not answer, or is too old to list them.
    pub async fn connections(
        &self,
        request: ConnectionsRequest,
    ) -> Result<ConnectionsPage, RequestError> {
        self.expect(Command::ListConnections(request), |reply| match reply {
            Reply::Connections(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// Closes a connection, by its number in the list. Its client may connect again.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: `NotFound` if there is none, perhaps because an earlier attempt has closed
    /// it.
    pub async fn close_connection(&self, connection: u64) -> Result<(), RequestError> {
        let command = Command::CloseConnection { connection };
        self.confirm(command, &Reply::ConnectionClosed).await
    }

    /// Lists clients, a page at a time: those that are connected or blocked, or that hold something
    /// that a quota counts. The `next` of a page is the `after` of the following request.
    ///
    /// # Errors
    ///
    /// [`RequestError`], as for [`Client::connections`].
    pub async fn clients(&self, request: ClientsRequest) -> Result<ClientsPage, RequestError> {
        self.expect(Command::ListClients(request), |reply| match reply {
            Reply::Clients(page) => Some(page),
            _ => None,
        })
        .await
    }

    /// Keeps a client out: its connections end, and it cannot connect again until it is unblocked.
    /// Messages for it wait. Blocking it again changes nothing.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: `NotAuthorized` also if the client is an administrator, who cannot be
    /// blocked.
    pub async fn block_client(&self, client: &ClientId) -> Result<(), RequestError> {
        let command = Command::BlockClient {
            client_id: client.clone(),
        };
        self.confirm(command, &Reply::ClientBlocked).await
    }

    /// Admits a blocked client again.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: `NotFound` if it is not blocked, perhaps because an earlier attempt has
    /// unblocked it.
    pub async fn unblock_client(&self, client: &ClientId) -> Result<(), RequestError> {
        let command = Command::UnblockClient {
            client_id: client.clone(),
        };
        self.confirm(command, &Reply::ClientUnblocked).await
    }

    /// Has the server read its configuration, certificates, authorities and revocation lists again,
    /// as SIGHUP does. Returns what has changed.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: `BadConfiguration` if one of them cannot be used; everything stays as it
    /// is then.
    pub async fn reload(&self) -> Result<Reloaded, RequestError> {
        self.expect(Command::Reload, |reply| match reply {
            Reply::Reloaded(reloaded) => Some(reloaded),
            _ => None,
        })
        .await
    }
}
