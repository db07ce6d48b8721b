//! The handles' end of the driver's channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use ciphermq_protocol::{Command, ErrorReply, MessageId, Reply};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::acks::AckItem;
use super::ending;
use super::op::{Op, Request};
use super::outcome::CLOSED;
use super::settings::Retry;
use crate::connection::Connection;
use crate::credentials::Credentials;
use crate::error::kinds::OperationKind;
use crate::error::{AckError, AckErrorKind, ConnectError, Error, RequestError, RequestErrorKind};
use crate::event::{Event, Events};

/// Requests in flight at once; more wait for a permit.
const MAX_REQUESTS: usize = 256;

/// Pause before a request is retried after the server reported that its store does not answer or
/// that it is shutting down.
const PAUSE: Duration = Duration::from_millis(500);

/// A sender of operations to a driver. The driver ends when its last handle is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    ops: mpsc::Sender<Op>,
    requests: Arc<Semaphore>,
    retry: Retry,
    shared: Arc<DriverState>,
}

/// The state that the driver shares with its handles.
#[derive(Debug)]
pub(crate) struct DriverState {
    connection: Mutex<Arc<Connection>>,
    /// What the current connection, or the last one, was made with.
    credentials: Mutex<Arc<Credentials>>,
    /// Why there is no connection now.
    loss: Mutex<Option<ConnectError>>,
    /// Why there will be no connection any more, unless the owner has closed it.
    end: Mutex<Option<ConnectError>>,
    /// Acks on their way to the driver. Bounded by the number of delivered messages.
    acks: Mutex<AckQueue>,
    /// Wakes the driver: acks are queued, or the connection is to end.
    pub(crate) wake: Notify,
    is_ending: AtomicBool,
    /// Never read; listeners subscribe through it.
    events: broadcast::Receiver<Event>,
    /// Sends events that do not come from the driver. Weak, so that the channel ends with the
    /// driver.
    event_sender: broadcast::WeakSender<Event>,
}

#[derive(Debug, Default)]
struct AckQueue {
    items: Vec<AckItem>,
    is_closed: bool,
}

impl DriverState {
    pub(crate) fn new(
        connection: Connection,
        credentials: Arc<Credentials>,
        events: broadcast::Receiver<Event>,
        event_sender: broadcast::WeakSender<Event>,
    ) -> Self {
        Self {
            connection: Mutex::new(Arc::new(connection)),
            credentials: Mutex::new(credentials),
            loss: Mutex::default(),
            end: Mutex::default(),
            acks: Mutex::default(),
            wake: Notify::new(),
            is_ending: AtomicBool::new(false),
            events,
            event_sender,
        }
    }

    /// Records a new connection; returns what the one before was made with.
    pub(crate) fn connected(
        &self,
        connection: Connection,
        credentials: Arc<Credentials>,
    ) -> Arc<Credentials> {
        let before = std::mem::replace(&mut *self.credentials.lock(), credentials);
        *self.connection.lock() = Arc::new(connection);
        *self.loss.lock() = None;
        before
    }

    /// Returns what the current connection, or the last one, was made with.
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        self.credentials.lock().clone()
    }

    pub(crate) fn lost(&self, reason: ConnectError) {
        *self.loss.lock() = Some(reason);
    }

    pub(crate) fn ended(&self, reason: ConnectError) {
        *self.end.lock() = Some(reason);
    }

    pub(crate) fn take_acks(&self) -> Vec<AckItem> {
        std::mem::take(&mut self.acks.lock().items)
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Acquire)
    }

    /// Closes the ack queue and returns the acks that were in it.
    pub(crate) fn close(&self) -> Vec<AckItem> {
        let mut acks = self.acks.lock();
        acks.is_closed = true;
        std::mem::take(&mut acks.items)
    }
}

/// A handle that does not keep the connection open.
#[derive(Debug)]
pub(crate) struct WeakHandle {
    ops: mpsc::WeakSender<Op>,
    requests: Arc<Semaphore>,
    retry: Retry,
    shared: Arc<DriverState>,
}

impl WeakHandle {
    /// Returns a handle, unless the last other one is gone.
    pub(crate) fn upgrade(&self) -> Option<Handle> {
        Some(Handle {
            ops: self.ops.upgrade()?,
            requests: self.requests.clone(),
            retry: self.retry,
            shared: self.shared.clone(),
        })
    }
}

impl Handle {
    /// Returns a handle that does not keep the connection open.
    pub(crate) fn downgrade(&self) -> WeakHandle {
        WeakHandle {
            ops: self.ops.downgrade(),
            requests: self.requests.clone(),
            retry: self.retry,
            shared: self.shared.clone(),
        }
    }

    pub(crate) fn new(ops: mpsc::Sender<Op>, retry: Retry, shared: Arc<DriverState>) -> Self {
        Self {
            ops,
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            retry,
            shared,
        }
    }

    pub(crate) fn connection(&self) -> Arc<Connection> {
        self.shared.connection.lock().clone()
    }

    /// Returns what the current connection, or the last one, was made with.
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        self.shared.credentials()
    }

    /// Whether the current connection, or the last one, was made with these.
    pub(crate) fn was_made_with(&self, credentials: &Arc<Credentials>) -> bool {
        Arc::ptr_eq(&self.shared.credentials.lock(), credentials)
    }

    /// Returns the error of an operation on a connection that has ended for good; `closed` is its
    /// text if the owner has closed it.
    pub(crate) fn ended<K: OperationKind>(&self, closed: &str) -> Error<K> {
        ending::error(self.shared.end.lock().as_ref(), closed)
    }

    /// Whether the connection has ended for good, without its owner.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.end.lock().is_some()
    }

    /// Sends an event that does not come from the driver.
    pub(crate) fn emit(&self, event: Event) {
        if let Some(events) = self.shared.event_sender.upgrade() {
            // Fails if there is no listener.
            let _ = events.send(event);
        }
    }

    pub(crate) fn events(&self) -> Events {
        Events(self.shared.events.resubscribe())
    }

    /// Sends an operation; fails if the driver has ended.
    pub(crate) async fn send(&self, op: Op) -> Result<(), ()> {
        self.ops.send(op).await.map_err(|_| ())
    }

    /// Reserves a place for one [`Op`], so that sending it cannot be interrupted; `None` if the
    /// driver has ended.
    pub(crate) async fn reserve(&self) -> Option<mpsc::Permit<'_, Op>> {
        self.ops.reserve().await.ok()
    }

    /// Queues acks; fails if the driver has ended.
    pub(crate) fn push_acks(&self, items: impl IntoIterator<Item = AckItem>) -> Result<(), ()> {
        let mut acks = self.shared.acks.lock();
        if acks.is_closed {
            return Err(());
        }
        acks.items.extend(items);
        drop(acks);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Asks the driver to end once everything is settled, without waiting.
    pub(crate) fn end(&self) {
        self.shared.is_ending.store(true, Ordering::Release);
        self.shared.wake.notify_one();
    }

    /// Asks the driver to end once everything is settled, and waits for it.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.send(Op::Close(done)).await.is_ok() {
            // A driver that drops the sender has ended as well.
            let _ = closed.await;
        }
    }

    pub(crate) async fn ack(
        &self,
        message_ids: &[MessageId],
    ) -> Vec<(MessageId, Result<(), AckError>)> {
        let closed = || self.ended::<AckErrorKind>(CLOSED);
        let (items, waiting): (Vec<_>, Vec<_>) =
            message_ids.iter().cloned().map(AckItem::awaited).unzip();
        // If this fails the items are dropped, and every awaited result becomes `Closed`.
        let _ = self.push_acks(items);
        let mut results = Vec::with_capacity(message_ids.len());
        for (message_id, settled) in message_ids.iter().zip(waiting) {
            results.push((
                message_id.clone(),
                settled.await.unwrap_or_else(|_| Err(closed())),
            ));
        }
        results
    }

    pub(crate) async fn reject(
        &self,
        message_id: &MessageId,
        reason: &str,
    ) -> Result<(), RequestError> {
        let command = Command::Reject {
            message_id: message_id.clone(),
            reason: reason.to_owned(),
        };
        self.confirm(command, |reply| matches!(reply, Reply::Rejected(_)))
            .await
    }

    /// Sends a command whose reply carries nothing; `is_reply` recognises it.
    pub(crate) async fn confirm(
        &self,
        command: Command,
        is_reply: impl FnOnce(&Reply) -> bool,
    ) -> Result<(), RequestError> {
        self.expect(command, |reply| is_reply(&reply).then_some(()))
            .await
    }

    /// Sends a command and reads its reply. `read` returns `None` for a reply that does not belong
    /// to the command.
    pub(crate) async fn expect<T>(
        &self,
        command: Command,
        read: impl FnOnce(Reply) -> Option<T>,
    ) -> Result<T, RequestError> {
        let deadline = Instant::now() + self.retry.total();
        let word = self.check_length(&command)?;
        loop {
            match self.request(command.clone(), deadline).await? {
                Reply::Error(error) => {
                    let error = refused(&word, &error);
                    if !error.is_retryable() || Instant::now() + PAUSE >= deadline {
                        return Err(error);
                    }
                    sleep(PAUSE).await;
                }
                Reply::UnknownCommand => {
                    let what = format!("The server does not know the command `{word}`.");
                    return Err(RequestError::new(RequestErrorKind::Unsupported, what)
                        .advise("Use a newer server."));
                }
                Reply::Missing(missing) => {
                    let what = format!("The server refused `{word}`: {missing}.");
                    return Err(RequestError::new(RequestErrorKind::BadArgument, what));
                }
                reply => {
                    return read(reply).ok_or_else(|| {
                        let what =
                            format!("The server sent the reply of another command to `{word}`.");
                        RequestError::new(RequestErrorKind::Unsupported, what)
                            .advise("Use compatible versions of client and server.")
                    });
                }
            }
        }
    }

    async fn request(&self, command: Command, deadline: Instant) -> Result<Reply, RequestError> {
        let closed = || self.ended::<RequestErrorKind>(CLOSED);
        let exchange = async {
            let _place = self.requests.acquire().await.map_err(|_| closed())?;
            let (answer, reply) = oneshot::channel();
            self.send(Op::Request(Request { command, answer }))
                .await
                .map_err(|()| closed())?;
            reply.await.map_err(|_| closed())
        };
        timeout_at(deadline, exchange)
            .await
            .unwrap_or_else(|_| Err(self.unanswered()))
    }

    fn unanswered(&self) -> RequestError {
        match self.shared.loss.lock().clone() {
            Some(loss) => {
                let what = format!("The server did not answer, for there is no connection: {loss}");
                let advice = loss.advice().map(str::to_owned);
                RequestError::new(RequestErrorKind::DISCONNECTED, what)
                    .advise_if(advice)
                    .caused_by(loss)
            }
            None => {
                let what = format!("The server did not answer within {:?}.", self.retry.total());
                RequestError::new(RequestErrorKind::TIMED_OUT, what).advise("See the server's log.")
            }
        }
    }

    /// Returns the command's name, or refuses a command that is longer than the server accepts.
    fn check_length(&self, command: &Command) -> Result<String, RequestError> {
        let mut line = BytesMut::new();
        command.encode(&mut line);
        let limit = self.connection().server.limits.max_line_bytes;
        if line.len() > limit.saturating_add(1) {
            let what = format!(
                "The command has {} bytes, and the server accepts {limit}.",
                line.len()
            );
            return Err(RequestError::new(RequestErrorKind::TooLarge, what));
        }
        let word: Vec<u8> = line
            .iter()
            .copied()
            .take_while(u8::is_ascii_graphic)
            .collect();
        Ok(String::from_utf8_lossy(&word).into_owned())
    }
}

fn refused(word: &str, error: &ErrorReply) -> RequestError {
    let kind = RequestErrorKind::of_code(error.code);
    let refused = RequestError::new(kind, format!("The server refused `{word}`: {error}."));
    match kind {
        RequestErrorKind::Unavailable => refused.advise("See the server's log; then try again."),
        _ => refused,
    }
}
