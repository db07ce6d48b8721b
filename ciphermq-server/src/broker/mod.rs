//! The broker: executes commands, and delivers messages.
//!
//! ```text
//!    connection ── Command ──► ClientSession::execute ──► handler ──► Topology (routes)
//!        ▲                                                   │
//!        │                                                   ├──► KeyDirectory
//!        │                                                   ▼
//!    Dispatcher ◄── CommitDispatcher ◄── store ◄── WriterHandle
//! ```
//!
//! Every command passes through `command`. Its handlers are grouped as in `docs/protocol.md`:
//!
//! - [`topology`]: queues, exchanges and bindings
//! - `administration`: connections and clients, for administrators
//! - `publish`: from envelopes to rows
//! - `consume`: subscriptions, acks and rejections
//! - `keys`: keys and certificates
//! - `session`: the connection itself
//!
//! The rest serves them:
//!
//! - `queries`: whose turn it is to read from the store
//! - `answer`: replies, ready or waiting for the store
//! - `dispatcher`: inboxes and connections; `observer`: the effects of a commit on them
//! - `authorization`: the gate in `command`, which asks the rules
//! - `quotas`: what clients hold of their quotas, and how fast they publish
//! - this file: the state that all connections share

mod administration;
mod answer;
mod authorization;
mod command;
mod consume;
mod dispatcher;
mod keys;
mod observer;
mod outcomes;
mod publish;
mod queries;
mod quotas;
mod refusals;
mod session;
pub mod topology;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ciphermq_protocol::{ClientId, Delivery, ErrorCode, ErrorReply, Fingerprint};
use dashmap::{DashMap, DashSet};
use tokio::sync::mpsc;

pub use administration::Blocks;
pub(crate) use answer::{AfterWrite, Answer};
pub use consume::{OutputObserver, Subscription};
pub use dispatcher::{Activity, Closing, Dispatcher, Origin};
pub use observer::CommitDispatcher;
use queries::QueryTurn;
use quotas::{ConsumerCount, PublishRates};
pub use session::ClientSession;
pub use topology::Topology;

use crate::authorization::{CurrentPolicy, Policy};
use crate::by_client::ByClient;
use crate::config::Limits;
use crate::inbox::ConnectionId;
use crate::keys::KeyDirectory;
use crate::model::{Change, ChangeOutcome};
use crate::quota::Ledger;
use crate::reload::Reloads;
use crate::repeated::Repeated;
use crate::store::Reader;
use crate::store::writer::{ClientWriter, WriteError, WriterHandle};
use crate::tls::current::CurrentTls;

/// A delivery's time is written on its own only if the message is not acked within this time.
const RECORD_AFTER: Duration = Duration::from_secs(2);

/// What a broker is made of.
pub struct Parts {
    /// The limits of clients and connections.
    pub limits: Limits,
    /// Which client may do what.
    pub authorization: Policy,
    /// What clients hold of their quotas.
    pub ledger: Arc<Ledger>,
    /// The inboxes and connections.
    pub dispatcher: Arc<Dispatcher>,
    /// What writes to the store.
    pub writer: WriterHandle,
    /// What reads from the store.
    pub reader: Arc<dyn Reader>,
    /// The clients' public keys.
    pub keys: KeyDirectory,
    /// The certificates in force.
    pub tls: Arc<CurrentTls>,
    /// What reads the configuration again.
    pub reloads: Reloads,
}

/// The state that all connections share.
pub struct Broker {
    limits: Limits,
    authorization: CurrentPolicy,
    ledger: Arc<Ledger>,
    topology: Arc<Topology>,
    dispatcher: Arc<Dispatcher>,
    writer: WriterHandle,
    reader: Arc<dyn Reader>,
    keys: KeyDirectory,
    tls: Arc<CurrentTls>,
    reloads: Reloads,
    repeated: Repeated,
    /// The connection of each named consumer.
    consumers: DashMap<(ClientId, String), ConnectionId>,
    /// Chains that the store is known to hold, by client and fingerprint.
    known_certificates: DashSet<(ClientId, Fingerprint)>,
    /// Whose turn it is to read from the store, by client.
    query_turns: ByClient<QueryTurn>,
    /// Held by the client that counts waiting messages.
    counting: tokio::sync::Mutex<()>,
    /// The number of each client's consumers.
    consumer_counts: ByClient<ConsumerCount>,
    /// How fast the clients publish.
    rates: PublishRates,
}

/// The deliveries for a connection's consumers.
pub type Mailbox = mpsc::UnboundedReceiver<Vec<Delivery>>;

impl Broker {
    /// Creates a broker from its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            limits,
            authorization,
            ledger,
            dispatcher,
            writer,
            reader,
            keys,
            tls,
            reloads,
        } = parts;
        let (consumers, known_certificates) = (DashMap::new(), DashSet::new());
        Arc::new(Self {
            limits,
            authorization: CurrentPolicy::new(authorization),
            ledger,
            topology: Arc::clone(&dispatcher.topology),
            dispatcher,
            writer,
            reader,
            keys,
            tls,
            reloads,
            repeated: Repeated::default(),
            consumers,
            known_certificates,
            query_turns: ByClient::default(),
            counting: tokio::sync::Mutex::new(()),
            consumer_counts: ByClient::default(),
            rates: PublishRates::default(),
        })
    }

    /// Returns the configured limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the counts of events that clients can cause without limit.
    #[must_use]
    pub fn repeated(&self) -> &Repeated {
        &self.repeated
    }

    /// Returns which client may do what.
    #[must_use]
    pub fn authorization(&self) -> &CurrentPolicy {
        &self.authorization
    }

    /// Opens a session for a client that has connected.
    #[must_use]
    pub fn connect(
        self: &Arc<Self>,
        client_id: ClientId,
        origin: Origin,
    ) -> (ClientSession, Mailbox) {
        let (id, connected) = self.dispatcher.connect(client_id.clone(), origin);
        // After it is registered: whoever is blocked meanwhile is found here or there.
        if let Some(error) = self.refusal(&client_id) {
            self.dispatcher.dismiss(id, error);
        }
        let (session, deliveries) = ClientSession::new(Arc::clone(self), id, client_id, connected);
        (session, deliveries)
    }

    /// Runs the periodic work, forever: spawn it as a task.
    pub async fn sweep(self: Arc<Self>) {
        let period = (self.limits.redelivery_timeout / 10)
            .clamp(Duration::from_millis(20), Duration::from_secs(1));
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.rates.forget_full();
            let Some(before) = Instant::now().checked_sub(RECORD_AFTER) else {
                continue;
            };
            let deliveries = self.dispatcher.sweep(before);
            if !deliveries.is_empty() {
                self.writer.delivered(deliveries);
            }
        }
    }

    /// Writes a client's change within `limits.storage_wait`.
    async fn change(
        &self,
        writer: &ClientWriter,
        change: Change,
    ) -> Result<ChangeOutcome, ErrorReply> {
        match tokio::time::timeout(self.limits.storage_wait, writer.change(change)).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) => Err(write_error_reply(&error)),
            Err(_) => Err(write_error_reply(&WriteError::Unavailable)),
        }
    }
}

/// Refuses a new name that a person could not distinguish from another one.
pub(crate) fn check_new(what: &str, name: &str) -> Result<(), ErrorReply> {
    ciphermq_protocol::name::check_new(name)
        .map_err(|error| ErrorReply::new(ErrorCode::BadName, format!("{what}: {error}")))
}

/// Returns the reply that reports a failed write.
#[must_use]
pub(crate) fn write_error_reply(error: &WriteError) -> ErrorReply {
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
