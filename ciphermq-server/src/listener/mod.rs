//! Accepts connections, and serves each in a task of its own.
//!
//! ```text
//!   accept ──► Handshake (pool, by address) ──► Established (by client and address) ──► connection
//! ```
//!
//! - `bind`: the address that is listened on
//! - `source`: the part of an address that limits count by
//! - `handshakes`, `connections`: the limits, without I/O; `admission` applies them
//! - `certificate_end`: when a client's certificate is no longer accepted
//! - `failing`: addresses whose handshakes fail again and again, which wait a moment
//! - `descriptors`: file descriptors, of which every connection needs one

mod admission;
mod bind;
mod certificate_end;
mod connections;
mod descriptors;
mod failing;
mod handshakes;
mod source;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciphermq_protocol::{ClientId, ErrorCode, ErrorReply};
use rustls::ProtocolVersion;
use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::admission::{Admission, Established, Handshake};
pub use self::bind::{BindError, Bound, bind};
use self::connections::ConnectionLimits;
pub(crate) use self::descriptors::raise_limit;
use self::descriptors::{AcceptFailures, Capacity};
use self::failing::FailingSources;
use self::source::Source;
use crate::broker::{Broker, Origin};
use crate::config::{self, Limits};
use crate::connection::{self, Memory};
use crate::repeated::Event;
use crate::stop::Stop;
use crate::tls::Peer;
use crate::tls::current::Credentials;
use crate::tls::handshake_failure::HandshakeFailure;
use crate::tls::trust::Trust;

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

/// A client's connection.
type Tls = TlsStream<BufReader<TcpStream>>;

/// The shared state of all connection tasks.
#[derive(Clone)]
struct ConnectionContext {
    /// Those in force when the connection was accepted, and those that replace them.
    credentials: watch::Receiver<Arc<Credentials>>,
    broker: Arc<Broker>,
    memory: Arc<Memory>,
    failing: Arc<FailingSources>,
    stop: Stop,
}

/// Accepts until the server stops, then waits for the connections to end.
pub async fn run(
    listener: TcpListener,
    credentials: watch::Receiver<Arc<Credentials>>,
    broker: Arc<Broker>,
    mut stop: Stop,
) {
    let admission = admission(broker.limits());
    let memory = Memory::new(broker.limits());
    let context = ConnectionContext {
        credentials,
        broker,
        memory,
        failing: Arc::default(),
        stop: stop.clone(),
    };
    let mut connections = JoinSet::new();
    let mut failures = AcceptFailures::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    if let Some(failures) = failures.accepted(Instant::now()) {
                        tracing::info!(failures, "Connections are accepted again");
                    }
                    let handshake = admission.begin(address.ip().into());
                    connections.spawn(serve(stream, address, handshake, context.clone()));
                }
                Err(error) if descriptors::concerns_one_connection(&error) => {
                    tracing::debug!(%error, "A connection broke before it was accepted");
                }
                Err(error) => {
                    if failures.failed(Instant::now()) {
                        let advice = descriptors::advice(&error);
                        tracing::error!(%error, advice, "Cannot accept connections for the \
                            moment; those that are open go on");
                    }
                    admission.free_one();
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

/// Applies the limits, as far as there are file descriptors, and warns if they do not suffice.
fn admission(limits: &Limits) -> Arc<Admission> {
    let (capacity, warning) = Capacity::fit(limits, descriptors::limit());
    if let Some(warning) = warning {
        tracing::warn!(target: config::WARNINGS, "{warning}");
    }
    let connections = ConnectionLimits {
        all: capacity.connections,
        reserved: capacity.reserved,
        per_source: limits.max_connections_per_address,
    };
    let per_source = limits.max_handshakes_per_address;
    Admission::new(capacity.handshakes, per_source, connections)
}

/// Waits until a client that has sent nothing has gone.
async fn closed(stream: &TcpStream) {
    match stream.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    handshake: Handshake,
    mut context: ConnectionContext,
) {
    if let Err(error) = configure(&stream) {
        tracing::debug!(%address, %error, "Cannot set socket options");
    }
    let limit = context.broker.limits().handshake_timeout;
    let source = Source::from(address.ip());
    let pause = context.failing.pause(source, Instant::now());
    let accept = async {
        if !pause.is_zero() {
            // One whose client has gone takes no other's place meanwhile.
            let _ = tokio::time::timeout(pause, closed(&stream)).await;
        }
        let current = Arc::clone(&context.credentials.borrow_and_update());
        let accepted = tokio::time::timeout(limit, accept(stream, current.acceptor())).await;
        (accepted, Arc::clone(current.trust()))
    };
    let (accepted, trust) = tokio::select! {
        accepted = accept => accepted,
        () = handshake.must_give_way() => {
            return refused(address, &HandshakeFailure::gave_way(), &context);
        }
        () = context.stop.requested() => return,
    };
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return refused(address, &HandshakeFailure::from_error(&error), &context);
        }
        Err(_) => return refused(address, &HandshakeFailure::timed_out(), &context),
    };
    let peer = match Peer::from_chain(chain(&stream), trust.client_id_from()) {
        Ok(peer) => peer,
        // The verifier has checked this during the handshake.
        Err(error) => {
            return refused(
                address,
                &HandshakeFailure::names_no_client(&error),
                &context,
            );
        }
    };
    let is_administrator = context
        .broker
        .authorization()
        .is_administrator(&peer.client_id);
    if let Some(error) = context.broker.refusal(&peer.client_id) {
        log_blocked(address, &peer.client_id, &context.broker);
        // It keeps its place in the pool of handshakes meanwhile: a client that connects again and
        // again takes no more than there are.
        return tokio::select! {
            () = connection::refuse(stream, error) => {}
            () = handshake.must_give_way() => {}
        };
    }
    let limit = context.broker.quotas().of(&peer.client_id).connections;
    match handshake.establish(peer.client_id.clone(), is_administrator, limit) {
        Ok(established) => session(stream, address, peer, trust, established, context).await,
        Err(refusal) => {
            let (client_id, reason) = (peer.client_id.as_str(), refusal.to_string());
            let repeated = context.broker.repeated();
            if repeated.is_first(Event::ConnectionRefused, client_id, &reason) {
                tracing::warn!(client_id, %address, "Connection refused: {reason}");
            }
            let error = ErrorReply::new(ErrorCode::Overloaded, reason);
            connection::refuse(stream, error).await;
        }
    }
}

/// Logs that a blocked client was refused; only the first time.
fn log_blocked(address: SocketAddr, client_id: &ClientId, broker: &Broker) {
    let (client_id, reason) = (client_id.as_str(), "the client is blocked");
    let repeated = broker.repeated();
    if repeated.is_first(Event::ConnectionRefused, client_id, reason) {
        tracing::warn!(client_id, %address, "Connection refused: {reason}");
    }
}

/// Accepts a TLS connection. TLS takes memory only once the client has sent something.
async fn accept(stream: TcpStream, acceptor: &TlsAcceptor) -> io::Result<Tls> {
    stream.readable().await?;
    acceptor.accept(read_ahead(stream)).await
}

/// Serves a client from its handshake to the connection's end.
async fn session(
    stream: Tls,
    address: SocketAddr,
    peer: Peer,
    trust: Arc<Trust>,
    established: Established,
    context: ConnectionContext,
) {
    let ConnectionContext {
        credentials,
        broker,
        memory,
        stop,
        ..
    } = context;
    tracing::info!(client_id = %peer.client_id, %address, "Client connected");
    let client_id = peer.client_id.clone();
    let origin = Origin {
        address,
        tls: tls_version(&stream),
    };
    let (session, mailbox) = broker.connect(client_id.clone(), origin);
    // Stored before the first command, so that a receiver of the client's messages finds it. The
    // write continues after the time limit: a store that does not answer must not keep clients out.
    let _ = tokio::time::timeout(CERTIFICATE_WAIT, broker.remember_certificate(&peer)).await;
    drop(peer);
    let chain = chain(&stream).to_vec();
    let closing = Arc::clone(&session.closing);
    let ended_by_certificate = async {
        let flaw = certificate_end::no_longer_accepted(&chain, trust, credentials).await;
        let reason = format!("the client's certificate {flaw}");
        let (event, source) = (Event::ConnectionEnded, client_id.as_str());
        if broker.repeated().is_first(event, source, &reason) {
            tracing::warn!(%client_id, %address, "Connection ended: {reason}");
        }
        closing.with_error(certificate_end::last_line(&flaw));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = connection::serve(stream, session, mailbox, &memory, stop) => {}
        () = ended_by_certificate => {}
    }
    drop(established);
    tracing::info!(%client_id, %address, "Client disconnected");
}

/// Logs why a client was refused, and what to do; only the first time for each address and reason.
fn refused(address: SocketAddr, failure: &HandshakeFailure, context: &ConnectionContext) {
    let source = Source::from(address.ip());
    context.failing.failed(source, Instant::now());
    let HandshakeFailure {
        what: error,
        advice,
        names_no_client,
    } = failure;
    let event = if *names_no_client {
        Event::NamesNoClient
    } else {
        Event::HandshakeFailed
    };
    let repeated = context.broker.repeated();
    if !repeated.is_first(event, &source.to_string(), error) {
        return;
    }
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

fn chain(stream: &Tls) -> &[CertificateDer<'static>] {
    stream.get_ref().1.peer_certificates().unwrap_or_default()
}

fn tls_version(stream: &Tls) -> Option<&'static str> {
    match stream.get_ref().1.protocol_version()? {
        ProtocolVersion::TLSv1_2 => Some("1.2"),
        ProtocolVersion::TLSv1_3 => Some("1.3"),
        _ => None,
    }
}

/// Sets socket options: small replies are sent at once, and vanished peers are noticed.
fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}
