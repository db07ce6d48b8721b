//! The address that the server listens on.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// The length of the queue of connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// The error of an address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("[server] address: cannot listen on {address}: {source}\n{advice}")]
pub struct BindError {
    address: String,
    advice: &'static str,
    source: io::Error,
}

/// An address that is reserved for this server, but not listened on yet.
#[derive(Debug)]
pub struct Bound {
    address: String,
    socket: TcpSocket,
}

/// Binds the address. Clients cannot connect yet, and no other process can bind it.
///
/// # Errors
///
/// [`BindError`] says what to do.
pub async fn bind(address: &str) -> Result<Bound, BindError> {
    let bind = |found: SocketAddr| {
        let socket = match found {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        // A restarted server need not wait until its old connections leave TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(found)?;
        Ok(socket)
    };
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let found = tokio::net::lookup_host(address).await;
    for found in found.map_err(|source| BindError::new(address, source))? {
        match bind(found) {
            Ok(socket) => {
                let address = address.to_owned();
                return Ok(Bound { address, socket });
            }
            Err(error) => failure = error,
        }
    }
    Err(BindError::new(address, failure))
}

impl Bound {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// [`BindError`] if another server has started to listen there in the meantime.
    pub fn listen(self) -> Result<TcpListener, BindError> {
        let Self { address, socket } = self;
        socket
            .listen(BACKLOG)
            .map_err(|source| BindError::new(&address, source))
    }
}

impl BindError {
    fn new(address: &str, source: io::Error) -> Self {
        let advice = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "Another program listens there. Stop it, or choose another port."
            }
            io::ErrorKind::AddrNotAvailable => {
                "This machine has no such address. Choose one that it has, or 0.0.0.0 for all."
            }
            io::ErrorKind::PermissionDenied => {
                "Ports below 1024 need a privilege. Choose a higher one."
            }
            _ => "Write host:port, with a host that this machine has.",
        };
        Self {
            address: address.to_owned(),
            advice,
            source,
        }
    }
}
