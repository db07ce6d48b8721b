//! The task that owns a connection: sockets, the clock and reconnecting.
//!
//! ```text
//!   start ──► establish ──► serve ──► lost ──► reconnect ─┐
//!                             ▲                           │
//!                             └───────────────────────────┘
//! ```
//!
//! What the lines mean is decided by the [`Machine`], which does no I/O. Operations of the client,
//! its publishers and consumers arrive on a channel, and wait in the machine while there is no
//! connection.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use ciphermq_crypto::identity::IdentityError;
use ciphermq_protocol::hello::HelloReply;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::delivery_queue::DeliveryQueue;
use super::ending;
use super::handle::{DriverState, Handle};
use super::machine::{ConnectionFault, Machine};
use super::op::Op;
use super::opening::Opening;
use super::renewal::Renewal;
use super::settings::{DriverSettings, Setup};
use crate::connection::Connection;
use crate::connector::{Connector, Stage, Stream};
use crate::credentials::Credentials;
use crate::error::{ConnectError, ConnectErrorKind};
use crate::event::{self, Event};

/// Capacity of the driver's channel, and the number of operations taken from it at once.
const OPS: usize = 1024;
const OPS_AT_ONCE: usize = 256;

/// Bytes read from the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// A connection on which hello and the set-up commands were answered.
pub(super) struct Established {
    stream: Stream,
    /// The bytes that followed those replies.
    buffer: BytesMut,
    connection: Connection,
    /// What it was made with.
    credentials: Arc<Credentials>,
}

impl Established {
    /// Returns the error of a signing certificate that the server has refused; `None` if it has
    /// not.
    pub(super) fn signing_refused(&self) -> Option<ConnectError> {
        let Err(error @ IdentityError::NotRegistered(_)) = &self.credentials.identity else {
            return None;
        };
        let what = format!("This client cannot sign: {error}.");
        Some(
            ConnectError::new(ConnectErrorKind::CertificateRefused, what)
                .advise(error.advice())
                .caused_by(error.clone()),
        )
    }
}

/// Connects, and starts the task that owns the connection.
///
/// # Errors
///
/// [`ConnectError`] if the first connection fails; later ones are tried again by the task.
pub(crate) async fn start(
    connector: Arc<Connector>,
    settings: DriverSettings,
    setup: Setup,
    queued: Option<Arc<DeliveryQueue>>,
) -> Result<Handle, ConnectError> {
    let first = establish(&connector, &settings, &setup, None).await?;
    let (events, listener) = broadcast::channel(event::BACKLOG);
    let (sender, ops) = mpsc::channel(OPS);
    let shared = Arc::new(DriverState::new(
        first.connection.clone(),
        first.credentials.clone(),
        listener,
        events.downgrade(),
    ));
    let handle = Handle::new(sender, settings.retry, shared.clone());
    let machine = Machine::new(&settings, queued, Instant::now());
    let settings = Arc::new(settings);
    let task = Task {
        renewal: Renewal::new(connector.clone(), settings.clone()),
        notices: connector.credentials().notices(),
        connector,
        settings,
        setup: Arc::new(setup),
        machine,
        ops,
        ops_closed: false,
        batch: Vec::with_capacity(OPS_AT_ONCE),
        shared,
        events,
    };
    tokio::spawn(task.run(first));
    Ok(handle)
}

/// Connects, and exchanges hello and the set-up commands: with the credentials in use, or with
/// earlier ones.
pub(super) async fn establish(
    connector: &Connector,
    settings: &DriverSettings,
    setup: &Setup,
    earlier: Option<Arc<Credentials>>,
) -> Result<Established, ConnectError> {
    let opening = async {
        // Files that cannot be used now are reported; those that were read before may do.
        connector.credentials().reload_or_report().await;
        let credentials = earlier.unwrap_or_else(|| connector.credentials().get());
        open(connector, settings, setup, credentials).await
    };
    timeout(connector.timeout, opening)
        .await
        .unwrap_or_else(|_| {
            let what = format!(
                "{} did not answer within {:?}.",
                connector.address(),
                connector.timeout
            );
            Err(ConnectError::new(ConnectErrorKind::TimedOut, what).advise(
                "Check the address, the network and firewalls on the way, and the server's log.",
            ))
        })
}

async fn open(
    connector: &Connector,
    settings: &DriverSettings,
    setup: &Setup,
    credentials: Arc<Credentials>,
) -> Result<Established, ConnectError> {
    let (mut stream, tls) = connector.connect(&credentials).await?;
    let mut out = BytesMut::new();
    let mut opening = Opening::new(
        setup,
        credentials.signing_chain.as_deref(),
        &settings.program,
        &mut out,
    )?;
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    // A server that refused our certificate may have closed its side already, with the reason sent
    // before: so reading continues where writing fails.
    let written = async {
        stream.write_all(&out).await?;
        stream.flush().await
    }
    .await;
    loop {
        let read = match stream.read_buf(&mut buffer).await {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            other => other,
        };
        if let Err(error) = read {
            let said_nothing = error.get_ref().is_none();
            let error = if said_nothing {
                written.err().unwrap_or(error)
            } else {
                error
            };
            return Err(connector.explain(Stage::FirstReply, error));
        }
        if let Some(server) = opening.receive(&mut buffer)? {
            if server.client_id != *connector.client_id() {
                return Err(wrong_client_id(connector, &server));
            }
            return Ok(Established {
                stream,
                buffer,
                connection: Connection::new(server, tls),
                credentials: match opening.signing_refused() {
                    Some(reason) => Arc::new(credentials.without_signer(reason)),
                    None => credentials,
                },
            });
        }
    }
}

/// Reports that the server sees another client than the one that the certificate names.
fn wrong_client_id(connector: &Connector, server: &HelloReply) -> ConnectError {
    let what = format!(
        "{} takes this client for `{}`, and its certificate names `{}`.",
        connector.address(),
        server.client_id,
        connector.client_id()
    );
    ConnectError::new(ConnectErrorKind::OtherClient, what).advise(
        "Connect to the server itself: something on the way may connect to it with a certificate \
         of its own. If not, see to `client_id_from`: it must be the same at the server and at all \
         clients.",
    )
}

/// The state of the task.
struct Task {
    connector: Arc<Connector>,
    settings: Arc<DriverSettings>,
    /// The commands that follow hello on every connection.
    setup: Arc<Setup>,
    machine: Machine,
    /// Operations from all handles.
    ops: mpsc::Receiver<Op>,
    /// Whether all handles are gone.
    ops_closed: bool,
    /// The operations taken from the channel at once; kept to reuse its memory.
    batch: Vec<Op>,
    /// What handles read without asking the task.
    shared: Arc<DriverState>,
    events: broadcast::Sender<Event>,
    renewal: Renewal,
    /// What concerns the client's certificates.
    notices: broadcast::Receiver<Event>,
}

/// The way in which serving a connection ended.
enum End {
    /// Everything is settled, and the connection was asked to end.
    FlushWaiter,
    Lost(ConnectError),
    /// The server accepts new credentials, which the next connection uses.
    Renewed,
}

impl Task {
    async fn run(mut self, first: Established) {
        let mut next = Some(first);
        let (mut attempt, mut end) = (0, None);
        while let Some(established) = next {
            let mut moves = false;
            let began = Instant::now();
            match self.serve(established).await {
                End::FlushWaiter => break,
                End::Lost(reason) => {
                    self.lost(reason.clone());
                    if ending::is_final(&reason) {
                        end = Some(reason);
                        break;
                    }
                }
                End::Renewed => {
                    let reason = "the connection moves to a new certificate".to_owned();
                    self.machine.disconnected(Instant::now(), reason);
                    moves = true;
                }
            }
            // A server that drops the connection repeatedly must not be met without pauses.
            if began.elapsed() >= self.settings.backoff.longest() {
                attempt = 0;
            }
            next = match self.reconnect(&mut attempt, moves).await {
                Ok(next) => next,
                Err(reason) => {
                    end = Some(reason);
                    None
                }
            };
        }
        if let Some(reason) = &end {
            self.shared.ended(reason.clone());
        }
        self.ops.close();
        while let Ok(op) = self.ops.try_recv() {
            self.machine.apply(Instant::now(), op);
        }
        self.machine.push_acks(Instant::now(), self.shared.close());
        self.machine.close(end.as_ref());
        self.emit(Event::Closed);
    }

    fn emit(&self, event: Event) {
        // Fails if there is no listener.
        let _ = self.events.send(event);
    }

    fn lost(&mut self, reason: ConnectError) {
        tracing::warn!(server = %self.connector.address(), %reason, "Connection lost");
        self.machine
            .disconnected(Instant::now(), reason.to_string());
        self.shared.lost(reason.clone());
        self.emit(Event::Disconnected { reason });
    }

    /// Connects again until it succeeds, at first without a pause if the connection only moves;
    /// `None` once no connection is needed.
    ///
    /// # Errors
    ///
    /// The reason for which further attempts are of no use.
    async fn reconnect(
        &mut self,
        attempt: &mut u32,
        mut moves: bool,
    ) -> Result<Option<Established>, ConnectError> {
        let mut earlier = None;
        // Others that sign are tried once: this connection is better than none.
        let mut may_sign_instead = true;
        loop {
            let pause = if std::mem::take(&mut moves) {
                Duration::ZERO
            } else {
                let pause = self.settings.backoff.pause(*attempt, rand::random());
                *attempt = attempt.saturating_add(1);
                self.emit(Event::Reconnecting {
                    after: pause,
                    attempt: *attempt,
                });
                pause
            };
            let (connector, settings, setup) = (
                self.connector.clone(),
                self.settings.clone(),
                self.setup.clone(),
            );
            let with = earlier.clone();
            let connecting = async move {
                sleep(pause).await;
                establish(&connector, &settings, &setup, with).await
            };
            let Some(connected) = self.run_until(connecting).await else {
                return Ok(None);
            };
            match connected {
                Ok(established) => {
                    let refused = established.signing_refused().filter(|_| may_sign_instead);
                    earlier = self.signs_instead(refused.as_ref(), earlier.is_some());
                    if earlier.is_none() {
                        return Ok(Some(established));
                    }
                    (may_sign_instead, moves) = (false, true);
                }
                Err(reason) => {
                    earlier = self.other_credentials(&reason, earlier.is_some());
                    tracing::warn!(server = %self.connector.address(), %reason, attempt, "Cannot \
                        connect");
                    self.machine
                        .disconnected(Instant::now(), reason.to_string());
                    self.shared.lost(reason.clone());
                    self.emit(Event::ConnectFailed {
                        reason: reason.clone(),
                    });
                    if ending::is_final(&reason) {
                        return Err(reason);
                    }
                }
            }
        }
    }

    /// Returns the credentials of the last connection, to be tried next, if the server has refused
    /// newer ones.
    fn other_credentials(
        &self,
        reason: &ConnectError,
        were_earlier: bool,
    ) -> Option<Arc<Credentials>> {
        let is_refused = matches!(
            reason.kind(),
            ConnectErrorKind::CertificateRefused | ConnectErrorKind::ServerCertificate
        );
        let last = self.shared.credentials();
        let is_other = !Arc::ptr_eq(&last, &self.connector.credentials().get());
        let may_do = is_refused && !were_earlier && is_other;
        (may_do && last.flaw(jiff::Timestamp::now()).is_none()).then_some(last)
    }

    /// Returns the credentials of the last connection, if the server has refused the certificate
    /// that newer ones sign with, and accepted theirs.
    fn signs_instead(
        &self,
        refused: Option<&ConnectError>,
        were_earlier: bool,
    ) -> Option<Arc<Credentials>> {
        let other = self.other_credentials(refused?, were_earlier)?;
        other
            .check_signer(jiff::Timestamp::now())
            .is_ok()
            .then_some(other)
    }

    /// Takes operations and ends attempts while `future` runs; `None` if the connection was asked
    /// to end and everything is settled.
    async fn run_until<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            self.apply_shared_state();
            // Without a connection there is none to break.
            let _ = self.machine.tick(Instant::now());
            if self.machine.is_done() {
                return None;
            }
            let deadline = self.machine.deadline(0);
            tokio::select! {
                output = &mut future => return Some(output),
                () = self.shared.wake.notified() => {}
                Ok(notice) = self.notices.recv() => self.emit(notice),
                count = self.ops.recv_many(&mut self.batch, OPS_AT_ONCE), if !self.ops_closed => {
                    self.take_ops(count);
                }
                () = sleep_until_deadline(deadline) => {}
            }
        }
    }

    /// Takes what handles leave in the shared state.
    fn apply_shared_state(&mut self) {
        let acks = self.shared.take_acks();
        self.machine.push_acks(Instant::now(), acks);
        if self.shared.is_ending() || self.ops_closed {
            self.machine.close_when_drained();
        }
    }

    fn take_ops(&mut self, count: usize) {
        let now = Instant::now();
        self.ops_closed = count == 0;
        // Acks take another path than operations: a flush waits for those that were made before it.
        let acks = self.shared.take_acks();
        self.machine.push_acks(now, acks);
        for op in self.batch.drain(..) {
            self.machine.apply(now, op);
        }
    }

    async fn serve(&mut self, established: Established) -> End {
        let Established {
            stream,
            mut buffer,
            connection,
            credentials,
        } = established;
        let hello: HelloReply = connection.server.clone();
        tracing::info!(server = %connection.address, client = %hello.client_id, "Connected");
        self.renewal.restart(&credentials);
        let was_made_with = self.shared.connected(connection, credentials.clone());
        self.machine.connected(Instant::now(), &hello);
        if !was_made_with.is_same(&credentials) {
            let until = credentials.until();
            self.emit(Event::CertificateRenewed { until });
        }
        self.emit(Event::Connected);

        let (mut reader, mut writer) = split(stream);
        let mut out = BytesMut::new();
        let mut needs_flush = false;
        if let Err(broken) = self.machine.receive(Instant::now(), &mut buffer) {
            return End::Lost(self.broken(broken));
        }
        loop {
            if let Some(pause) = self.machine.take_slowed() {
                self.emit(Event::RateLimited { pause });
            }
            self.apply_shared_state();
            let now = Instant::now();
            if let Err(broken) = self.machine.tick(now) {
                return End::Lost(self.broken(broken));
            }
            self.machine.produce(now, &mut out);
            needs_flush |= !out.is_empty();
            if self.machine.is_done() && !needs_flush {
                // The server notices the end either way; a TLS shutdown tells it that nothing is
                // missing.
                let _ = timeout(self.connector.timeout, writer.shutdown()).await;
                return End::FlushWaiter;
            }
            if buffer.capacity() - buffer.len() < READ_BYTES / 4 {
                buffer.reserve(READ_BYTES);
            }
            let deadline = self.machine.deadline(out.len());
            let result = tokio::select! {
                read = reader.read_buf(&mut buffer) => match read {
                    Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed \
                        it").into()),
                    Ok(_) => self
                        .machine
                        .receive(Instant::now(), &mut buffer)
                        .map_err(ServeError::ConnectionFault),
                    Err(error) => Err(error.into()),
                },
                written = write(&mut writer, &mut out), if needs_flush => match written {
                    Ok(flushed) => { needs_flush = !flushed; Ok(()) }
                    // The server may have sent the reason before it closed: read that first.
                    Err(error) => {
                        let pending = read_pending_error(&mut reader, &mut buffer).await;
                        Err(pending.unwrap_or(error).into())
                    }
                },
                () = self.shared.wake.notified() => Ok(()),
                count = self.ops.recv_many(&mut self.batch, OPS_AT_ONCE), if !self.ops_closed => {
                    self.take_ops(count);
                    Ok(())
                }
                () = sleep_until_deadline(deadline) => Ok(()),
                Ok(notice) = self.notices.recv() => {
                    self.emit(notice);
                    Ok(())
                }
                accepted = self.renewal.accepted(&credentials) => match accepted {
                    Ok(()) => return End::Renewed,
                    Err(reason) => {
                        if self.renewal.is_news(&reason) {
                            tracing::warn!(server = %self.connector.address(), %reason, "The \
                                server refuses the new certificate; the connection goes on with \
                                the old one");
                            self.emit(Event::CertificateNotRenewed { reason });
                        }
                        Ok(())
                    }
                },
            };
            match result {
                Ok(()) => {}
                Err(ServeError::ConnectionFault(broken)) => return End::Lost(self.broken(broken)),
                Err(ServeError::Io(error)) => {
                    return End::Lost(self.connector.explain(Stage::Running, error));
                }
            }
        }
    }

    fn broken(&self, broken: ConnectionFault) -> ConnectError {
        let kind = match &broken {
            ConnectionFault::Ended(error) => return ending::ended_by_server(error),
            ConnectionFault::Violation(_) => ConnectErrorKind::Protocol,
            ConnectionFault::Silent(_) => ConnectErrorKind::TimedOut,
        };
        ConnectError::new(
            kind,
            format!(
                "The connection to {} was given up: {broken}.",
                self.connector.address()
            ),
        )
        .caused_by(broken)
    }
}

enum ServeError {
    Io(io::Error),
    ConnectionFault(ConnectionFault),
}

impl From<io::Error> for ServeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes a part of `out`, or flushes once it is empty; returns whether it flushed. Cancel safe.
async fn write(writer: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> io::Result<bool> {
    if out.is_empty() {
        writer.flush().await?;
        return Ok(true);
    }
    if writer.write_buf(out).await? == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(false)
}

/// Returns the error that reading ends with, if the peer has already sent one.
async fn read_pending_error(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Option<io::Error> {
    let reading = async {
        loop {
            buffer.clear();
            match reader.read_buf(buffer).await {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(error),
            }
        }
    };
    timeout(Duration::from_millis(100), reading)
        .await
        .ok()
        .flatten()
}

async fn sleep_until_deadline(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
