//! The broker: what each command does.
//!
//! ```text
//!    connection ── operation ──► Broker ──► Topology (routes)
//!                                  │
//!                                  ├──► WriterHandle ──► store ──► Observer ──► Deliveries ──► outlets
//!                                  └──► KeyDirectory
//! ```
//!
//! - [`topology`]: exchanges, queues and bindings
//! - [`dispatcher`]: inboxes and outlets; `observer`: what a commit means to them, and its log
//!   lines
//! - [`session`]: a connection and its operations
//! - [`publish`]: from envelopes to rows, and what is refused before it reaches the store
//! - [`waiting`]: by which keys waiting messages are sealed
//! - this file: what the connections share

pub mod dispatcher;
mod observer;
pub mod publish;
pub mod session;
pub mod topology;
pub mod waiting_keys;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ciphermq_protocol::{ClientId, Delivery, ErrorCode, ErrorReply, Fingerprint, QueueName};
use dashmap::{DashMap, DashSet};
use tokio::sync::mpsc;

pub use dispatcher::{Activity, Dispatcher};
pub use session::{AckOutcomes, ClientSession, Receipts, Subscription};
pub use topology::Topology;

use crate::config::Limits;
use crate::inbox::ConnectionId;
use crate::keys::KeyDirectory;
use crate::store::writer::{WriteError, WriterHandle};
use crate::store::{Change, QueueId, Reader, Time};
use crate::tls::Peer;

/// A delivery's time is written on its own only if the message is not acked within this time.
const RECORD_AFTER: Duration = Duration::from_secs(2);

/// See the module.
pub struct Broker {
    limits: Limits,
    topology: Arc<Topology>,
    dispatcher: Arc<Dispatcher>,
    writer: WriterHandle,
    reader: Arc<dyn Reader>,
    keys: KeyDirectory,
    /// Which connection a named consumer has.
    consumers: DashMap<(ClientId, String), ConnectionId>,
    /// Chains that the store is known to hold, by client and fingerprint.
    known_certificates: DashSet<(ClientId, Fingerprint)>,
    /// Whose turn it is to count waiting messages.
    counting: tokio::sync::Mutex<()>,
}

/// The deliveries of a connection's consumers.
pub type Mailbox = mpsc::UnboundedReceiver<Vec<Delivery>>;

impl Broker {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        limits: Limits,
        topology: Arc<Topology>,
        dispatcher: Arc<Dispatcher>,
        writer: WriterHandle,
        reader: Arc<dyn Reader>,
        keys: KeyDirectory,
    ) -> Arc<Self> {
        let (consumers, known_certificates) = (DashMap::new(), DashSet::new());
        Arc::new(Self {
            limits,
            topology,
            dispatcher,
            writer,
            reader,
            keys,
            consumers,
            known_certificates,
            counting: tokio::sync::Mutex::new(()),
        })
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A client has connected.
    #[must_use]
    pub fn connect(self: &Arc<Self>, client_id: ClientId) -> (ClientSession, Mailbox) {
        let (id, connected) = self.dispatcher.connect(client_id.clone());
        let deliveries = connected.deliveries;
        let session = ClientSession::new(
            Arc::clone(self),
            id,
            client_id,
            connected.activity,
            connected.close,
        );
        (session, deliveries)
    }

    /// Keeps the chain that a client has connected with, for receivers that want to verify its
    /// messages later.
    pub async fn remember_certificate(&self, peer: &Peer) {
        let key = (peer.client_id.clone(), peer.fingerprint);
        if self.known_certificates.contains(&key) {
            return;
        }
        let (client_id, fingerprint) = key.clone();
        let change = Change::Certificate {
            client_id,
            fingerprint,
            chain: peer.chain.clone(),
            seen: Time::now(),
        };
        match self.change(change).await {
            Ok(_) => {
                // The last one counts: an older certificate that comes back is to be noted again.
                self.known_certificates
                    .retain(|(client_id, _)| *client_id != peer.client_id);
                self.known_certificates.insert(key);
            }
            Err(error) => {
                tracing::error!(client_id = %peer.client_id, %error, "Cannot keep a client's \
                    certificate");
            }
        }
    }

    /// Does what is to be done from time to time, for ever: call it in a task.
    pub async fn sweep(self: Arc<Self>) {
        let period = (self.limits.redelivery_timeout / 10)
            .clamp(Duration::from_millis(20), Duration::from_secs(1));
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(before) = Instant::now().checked_sub(RECORD_AFTER) else {
                continue;
            };
            let deliveries = self.dispatcher.sweep(before);
            if !deliveries.is_empty() {
                self.writer.delivered(deliveries);
            }
        }
    }

    /// Writes a change, within the time that a publish may take.
    async fn change(&self, change: Change) -> Result<Option<QueueId>, ErrorReply> {
        match tokio::time::timeout(self.limits.storage_wait, self.writer.change(change)).await {
            Ok(Ok(queue)) => Ok(queue),
            Ok(Err(error)) => Err(write_error(&error)),
            Err(_) => Err(write_error(&WriteError::Unavailable)),
        }
    }

    /// Reads from the store, within the time that a publish may take.
    async fn read<T, E: std::fmt::Display>(
        &self,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ErrorReply> {
        match tokio::time::timeout(self.limits.storage_wait, read).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                tracing::error!(%error, "Cannot read from the database");
                Err(write_error(&WriteError::Unavailable))
            }
            Err(_) => Err(write_error(&WriteError::Unavailable)),
        }
    }

    async fn queue_id(&self, queue: &QueueName) -> Result<QueueId, ErrorReply> {
        if let Some(id) = self.topology.queue(queue) {
            return Ok(id);
        }
        let id = self.change(Change::DeclareQueue(queue.clone())).await?;
        let id = id.ok_or_else(|| write_error(&WriteError::Unavailable))?;
        self.topology.add_queue(queue.clone(), id);
        Ok(id)
    }
}

/// How a client is told that the store did not do it.
#[must_use]
pub(crate) fn write_error(error: &WriteError) -> ErrorReply {
    let (code, text) = match error {
        WriteError::Unavailable => (
            ErrorCode::StorageUnavailable,
            "the database does not answer; send the same again",
        ),
        WriteError::Full => (
            ErrorCode::StorageFull,
            "the server's disk is full; try again when messages were consumed",
        ),
        WriteError::Refused(_) => (
            ErrorCode::StorageRefused,
            "the database refuses this message",
        ),
        WriteError::Closed => (
            ErrorCode::ShuttingDown,
            "the server is stopping; send the same again",
        ),
    };
    ErrorReply::new(code, text)
}
