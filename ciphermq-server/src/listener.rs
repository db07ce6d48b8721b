//! Accepts connections, and serves each in a task of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::broker::Broker;
use crate::connection::{self, BufferBudget};
use crate::stop::Stop;
use crate::tls::Peer;
use crate::tls::handshake_failure::HandshakeFailure;

/// The length of the queue of connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// The pause after a failed accept, for example for lack of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// The probing of silent peers.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);
/// The limit on waiting for a connection's new certificate to be stored.
const CERTIFICATE_WAIT: Duration = Duration::from_secs(1);
/// The limit on sent bytes remaining unacknowledged by the peer's TCP (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// The size of a socket's read buffer, in bytes. Pages that were never filled take no memory.
const READ_AHEAD: usize = 16 * 1024;

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

/// The shared state of all connection tasks.
#[derive(Clone)]
struct ConnectionContext {
    acceptor: TlsAcceptor,
    broker: Arc<Broker>,
    buffers: Arc<BufferBudget>,
    stop: Stop,
}

/// Accepts until the server stops, then waits for the connections to end.
pub async fn run(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    broker: Arc<Broker>,
    mut stop: Stop,
) {
    let slots = Arc::new(Semaphore::new(
        broker.limits().max_connections.min(Semaphore::MAX_PERMITS),
    ));
    let buffers = BufferBudget::new(broker.limits().max_buffered_bytes);
    let context = ConnectionContext {
        acceptor,
        broker,
        buffers,
        stop: stop.clone(),
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => match Arc::clone(&slots).try_acquire_owned() {
                    Ok(slot) => drop(connections.spawn(serve(stream, address, context.clone(), slot))),
                    Err(_) => tracing::warn!(%address, "Connection refused: limits.max_connections \
                        is reached"),
                },
                Err(error) => {
                    tracing::error!(%error, "Cannot accept connections for the moment");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stop.requested() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    context: ConnectionContext,
    slot: OwnedSemaphorePermit,
) {
    let ConnectionContext {
        acceptor,
        broker,
        buffers,
        mut stop,
    } = context;
    if let Err(error) = configure(&stream) {
        tracing::debug!(%address, %error, "Cannot set socket options");
    }
    let limit = broker.limits().handshake_timeout;
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(limit, acceptor.accept(read_ahead(stream))) => handshake,
        () = stop.requested() => return,
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return refused(address, &HandshakeFailure::from_error(&error)),
        Err(_) => return refused(address, &HandshakeFailure::timed_out()),
    };
    let peer = match Peer::from_chain(chain(&stream)) {
        Ok(peer) => peer,
        // The verifier has checked this during the handshake.
        Err(error) => {
            return tracing::error!(%address, %error, "Connection closed: the certificate names no \
                client");
        }
    };
    tracing::info!(client_id = %peer.client_id, %address, "Client connected");
    let client_id = peer.client_id.clone();
    let (session, mailbox) = broker.connect(client_id.clone());
    // Stored before the first command, so that a receiver of the client's messages finds it. The
    // write continues after the time limit: a store that does not answer must not keep clients out.
    let _ = tokio::time::timeout(CERTIFICATE_WAIT, broker.remember_certificate(&peer)).await;
    connection::serve(stream, session, mailbox, &buffers, stop).await;
    drop(slot);
    tracing::info!(%client_id, %address, "Client disconnected");
}

/// Logs why a client was refused, and what to do.
fn refused(address: SocketAddr, failure: &HandshakeFailure) {
    let HandshakeFailure {
        what: error,
        advice,
        names_no_client,
    } = failure;
    if *names_no_client {
        tracing::error!(%address, error, advice, "Connection closed: the certificate names no \
            client");
    } else {
        tracing::error!(%address, error, advice, "TLS handshake failed");
    }
}

/// Buffers the socket: TLS reads a few kilobytes at a time, and one read of the socket serves many
/// of them.
fn read_ahead(stream: TcpStream) -> BufReader<TcpStream> {
    BufReader::with_capacity(READ_AHEAD, stream)
}

fn chain(stream: &TlsStream<BufReader<TcpStream>>) -> &[CertificateDer<'static>] {
    stream.get_ref().1.peer_certificates().unwrap_or_default()
}

/// Sets socket options: small replies are sent at once, and vanished peers are noticed.
fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}
