//! The durable store: exchanges, queues, bindings, messages not yet acknowledged, message metadata,
//! keys.
//!
//! ```text
//!    broker ── WriterHandle ──► writer task ── Transaction ──► Committer ─┐
//!                                                                         ├─ SQLite or PostgreSQL
//!    broker ◄───────────────── Page ────────────────────────── Reader ────┘
//! ```
//!
//! The store is the source of truth; what the broker holds in memory is a cache of it. All writes
//! go through one task, the [`writer`], which commits everything that waits in one transaction.
//! Reads bypass it. SQL is written in this folder and nowhere else.
//!
//! - [`writer`]: group commit, isolating what the database refuses, resolving unknown outcomes
//! - `batch`: the storage layout of messages, without SQL
//! - [`offline`]: copies and checks, for commands beside the server; `invariants`, what they check
//! - `sqlite`, `postgres`: the two databases, with the same files in each

mod batch;
mod invariants;
pub mod offline;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;
pub mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use ciphermq_protocol::rejected::{RejectedCursor, RejectedMessage};
use ciphermq_protocol::topology::BindingCursor;
use ciphermq_protocol::{
    CertificateChain, ClientId, ExchangeName, Fingerprint, MessageId, QueueName,
};

use crate::model::{
    Block, CommitNumber, Envelopes, HeldBySender, LaneKey, Lanes, ListScope, Listed, ListedBinding,
    ListedExchange, ListedQueue, MadeBy, MessageState, Outcomes, Page, PageLimit, QueueId,
    SealedKeys, SealedRow, Seq, StoredTopology, Time, Transaction,
};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database is out of reach, locked or restarting: try again later.
    #[error("the database is not available")]
    Unavailable(#[source] BoxError),
    /// The disk is full.
    #[error("the database's disk is full")]
    Full(#[source] BoxError),
    /// The database refuses these data.
    #[error("the database refuses the data")]
    Refused(#[source] BoxError),
    /// The database is in use by another server, was made by a newer version, or is configured so
    /// that it cannot keep a commit's promise. The text says what to do.
    #[error("{0}")]
    Unusable(String),
    /// The database holds data that this server cannot have written.
    #[error("the database holds what does not belong there: {0}")]
    Corrupt(String),
}

/// An error of a database driver.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error of a commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing was committed.
    #[error(transparent)]
    Failed(#[from] Error),
    /// The outcome is not known. The commit number that [`Committer::reopen`] returns decides: if
    /// it is `outcomes.commit`, everything was committed, otherwise nothing.
    #[error("the outcome of a commit is not known")]
    Unknown {
        /// The outcomes if it was committed.
        outcomes: Outcomes,
        /// The error that hides the outcome.
        #[source]
        source: BoxError,
    },
}

/// The writing half of a store. A database has only one: it holds the lock that keeps a second
/// server out.
#[async_trait]
pub trait Committer: Send {
    /// Commits everything in one transaction, which is synced to disk when this returns.
    ///
    /// Within the transaction, changes come first, then publishes, acks, rejections and deliveries,
    /// each in their order, and at last the changes that remove queues and exchanges. Publishes get
    /// ascending sequence numbers in their order.
    ///
    /// # Errors
    ///
    /// [`CommitError`]. After [`CommitError::Unknown`] and [`Error::Unavailable`] call
    /// [`Committer::reopen`].
    async fn commit(&mut self, transaction: &Transaction) -> Result<Outcomes, CommitError>;

    /// Reconnects, takes the lock, makes whatever is found durable, and returns the last commit's
    /// number.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the database is still out of reach; [`Error::Unusable`] if another
    /// server has taken it over meanwhile.
    async fn reopen(&mut self) -> Result<CommitNumber, Error>;

    /// Returns whether there is space for more messages. While there is none, acks still work.
    fn space(&self) -> Space;

    /// Sets aside the messages of deleted and purged queues, gives back disk space, and removes
    /// what is not kept any more, a little at a time. Called when nothing waits.
    ///
    /// # Errors
    ///
    /// [`Error`]; no data are lost.
    async fn maintain(&mut self, retention: &Retention) -> Result<Maintained, Error>;

    /// Closes the database cleanly and releases the lock.
    async fn close(self: Box<Self>);
}

/// The space for messages on the database's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// There is enough, or nobody knows.
    Enough,
    /// There is less than twice the reserve.
    Short,
    /// There is less than the reserve.
    None,
}

impl Space {
    /// Judges a number of free bytes.
    #[must_use]
    pub fn of(free: u64, reserve: u64) -> Self {
        if free < reserve {
            Self::None
        } else if free < reserve.saturating_mul(2) {
            Self::Short
        } else {
            Self::Enough
        }
    }
}

/// What maintenance removes.
#[derive(Debug, Clone, Default)]
pub struct Retention {
    /// Metadata of acknowledged messages that were accepted before this time.
    pub metadata_before: Option<Time>,
    /// Messages of these senders that were rejected before these times.
    pub rejected_before: Vec<(ClientId, Time)>,
}

/// What a step of maintenance has done.
#[derive(Debug, Default)]
pub struct Maintained {
    /// Whether there is more to do.
    pub more: bool,
    /// What senders hold more or less than before.
    pub held: HeldBySender,
    /// The senders of rejected messages that were removed, and their number.
    pub removed: Vec<(ClientId, u64)>,
}

/// The reading half of a store. It sees what is committed.
#[async_trait]
pub trait Reader: Send + Sync {
    /// Returns all exchanges, queues and bindings.
    async fn topology(&self) -> Result<StoredTopology, Error>;

    /// Counts what the messages of each sender take.
    async fn held(&self) -> Result<HeldBySender, Error>;

    /// Returns the messages of a lane after a sequence number, in order.
    ///
    /// At most `limit.messages`, and no more once `limit.bytes` of envelopes are reached, but at
    /// least one.
    async fn lane(&self, lane: &LaneKey, after: Seq, limit: PageLimit) -> Result<Page, Error>;

    /// Returns those of the given messages that still wait, in order, up to `bytes`, but at least
    /// one.
    async fn messages(&self, seqs: &[Seq], bytes: usize) -> Result<Page, Error>;

    /// Returns the queues from `from` on that hold messages for the receiver; examines at most
    /// `limit` queues.
    async fn lanes(&self, receiver: &ClientId, from: QueueId, limit: u32) -> Result<Lanes, Error>;

    /// Returns the envelopes stored in a lane after a sequence number, in order, with the limits of
    /// [`Reader::lane`].
    ///
    /// A message whose envelope is stored in another lane is only counted.
    async fn envelopes(
        &self,
        lane: &LaneKey,
        after: Seq,
        limit: PageLimit,
    ) -> Result<Envelopes, Error>;

    /// Returns the state of an accepted message; `None` if it was never accepted.
    async fn message_state(&self, message_id: &MessageId) -> Result<Option<MessageState>, Error>;

    /// Returns the client's public key, sealed.
    async fn public_key(&self, client_id: &ClientId) -> Result<Option<SealedRow>, Error>;

    /// Returns the client's signed key, sealed.
    async fn signed_key(&self, client_id: &ClientId) -> Result<Option<SealedRow>, Error>;

    /// Returns all sealed keys, and whether those of older servers were adopted.
    async fn sealed_keys(&self) -> Result<SealedKeys, Error>;

    /// Returns a certificate chain that the client has connected with: the latest one, or the one
    /// with this fingerprint.
    async fn certificate(
        &self,
        client_id: &ClientId,
        fingerprint: Option<&Fingerprint>,
    ) -> Result<Option<CertificateChain>, Error>;

    /// Returns rejected messages that the client sent or received, in the order of their rejection:
    /// at most `limit`, after `after`.
    async fn rejected(
        &self,
        client_id: &ClientId,
        after: Option<&RejectedCursor>,
        limit: u32,
    ) -> Result<Vec<RejectedMessage>, Error>;

    /// Returns queues in the order of their names, after one of them: those that the client may
    /// see, and those that it may only see if it consumes from them, marked as not visible.
    async fn list_queues(
        &self,
        scope: &ListScope,
        after: Option<&QueueName>,
        only: Option<&QueueName>,
    ) -> Result<Listed<ListedQueue, QueueName>, Error>;

    /// Returns exchanges in the order of their names, after one of them.
    async fn list_exchanges(
        &self,
        scope: &ListScope,
        after: Option<&ExchangeName>,
        only: Option<&ExchangeName>,
    ) -> Result<Listed<ListedExchange, ExchangeName>, Error>;

    /// Returns bindings in the order of their exchanges, routing keys and queues' numbers, after
    /// one of them.
    async fn list_bindings(
        &self,
        scope: &ListScope,
        after: Option<&BindingCursor>,
        exchange: Option<&ExchangeName>,
        queue: Option<&QueueName>,
    ) -> Result<Listed<ListedBinding, BindingCursor>, Error>;

    /// Returns the clients that an administrator keeps out.
    async fn blocked_clients(&self) -> Result<Vec<Block>, Error>;

    /// Closes the connections.
    async fn close(&self);
}

/// An opened database.
pub struct Store {
    /// The writing half, for the writer.
    pub committer: Box<dyn Committer>,
    /// The reading half, for everybody.
    pub reader: Arc<dyn Reader>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// The database to open.
#[derive(Debug, Clone)]
pub enum DatabaseSettings {
    /// A file. It is created with its folder if it does not exist.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The number of free bytes on its disk below which there is no room for more messages.
        disk_reserve: u64,
    },
    /// A database on a PostgreSQL server.
    Postgres(crate::config::Postgres),
}

/// Opens a database, brings its schema up to date, and locks it against other servers.
///
/// What is found in it is durable when this returns.
///
/// # Errors
///
/// [`Error::Unavailable`] if it is out of reach, [`Error::Unusable`] if it is in use by another
/// server or cannot be used as it is, [`Error::Full`] and [`Error::Corrupt`] as they say.
pub async fn open(settings: &DatabaseSettings) -> Result<Store, Error> {
    match settings {
        DatabaseSettings::Sqlite { path, disk_reserve } => sqlite::open(path, *disk_reserve).await,
        DatabaseSettings::Postgres(settings) => postgres::open(settings).await,
    }
}

/// A driver's error with a text that says what it means.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct DescribedError {
    what: String,
    #[source]
    source: BoxError,
}

fn described(what: impl Into<String>, source: impl Into<BoxError>) -> BoxError {
    Box::new(DescribedError {
        what: what.into(),
        source: source.into(),
    })
}

/// The tables that the migrations of both databases create, all of which the server needs.
const TABLES: &[&str] = &[
    "server_state",
    "exchanges",
    "queues",
    "bindings",
    "removals",
    "batches",
    "fates",
    "envelopes",
    "waiting",
    "rejected_messages",
    "public_keys",
    "signed_keys",
    "certificates",
    "blocked_clients",
    ADOPTION,
];
const ADOPTION: &str = "at_rest_adoption";

/// Returns the error of a database from which somebody has removed a table.
fn lacks_table(place: impl std::fmt::Display, table: &str) -> Error {
    let advice = if table == ADOPTION {
        // It holds one date at most, so an empty table is good enough.
        "Make it again with `CREATE TABLE at_rest_adoption (only_row INTEGER PRIMARY KEY CHECK \
         (only_row = 1), adopted_time TEXT NOT NULL)`, or restore the database from a backup."
    } else {
        "Restore the database from a backup, or choose another one in [database]."
    };
    Error::Unusable(format!(
        "{place} lacks the table {table}, which the server made: it was removed\n{advice}"
    ))
}

/// Parses the client that has made something, if it is known.
fn made_by(text: Option<String>) -> Result<MadeBy, Error> {
    text.map(|name| ClientId::new(&name).map_err(corrupt))
        .transpose()
}

fn corrupt(error: impl std::fmt::Display) -> Error {
    Error::Corrupt(error.to_string())
}
