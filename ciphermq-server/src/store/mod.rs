//! The durable truth: exchanges, queues, bindings, messages not yet acknowledged, message metadata,
//! keys.
//!
//! ```text
//!    broker ── WriterHandle ──► writer task ── Transaction ──► Committer ─┐
//!                                                                         ├─ SQLite or PostgreSQL
//!    broker ◄───────────────── Page ────────────────────────── Reader ────┘
//! ```
//!
//! Memory is a cache of what stands here. All writes go through one task, the [`writer`], which
//! commits whatever is waiting in one transaction. Reads go past it. SQL stands in this folder and
//! nowhere else.
//!
//! - [`model`]: the rows and the transactions, without SQL
//! - [`writer`]: group commit, splitting off what the store refuses, resolving unknown outcomes
//! - `batch`: how messages are stored, without SQL
//! - `sqlite`, `postgres`: the two databases, file by file alike

mod batch;
pub mod model;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;
pub mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use ciphermq_protocol::rejected::{RejectedCursor, RejectedMessage};
use ciphermq_protocol::{CertificateChain, ClientId, Fingerprint, MessageId};

pub use model::*;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Out of reach, locked, restarting: try again later.
    #[error("the database is not available")]
    Unavailable(#[source] BoxError),
    /// No room on the disk.
    #[error("the database's disk is full")]
    Full(#[source] BoxError),
    /// The database refuses this very data.
    #[error("the database refuses the data")]
    Refused(#[source] BoxError),
    /// The database is in use by another server, was made by a newer version, or is set up so that
    /// it cannot keep what was promised. The text says what to do.
    #[error("{0}")]
    Unusable(String),
    /// The database holds what this server cannot have written.
    #[error("the database holds what does not belong there: {0}")]
    Corrupt(String),
}

/// Any error of a database driver.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a transaction was not committed, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing was committed.
    #[error(transparent)]
    Failed(#[from] Error),
    /// The outcome is not known. After [`Committer::reopen`], the last commit's number tells: if it
    /// is `outcomes.commit`, everything was committed, else nothing.
    #[error("the outcome of a commit is not known")]
    Unknown {
        /// What will have happened if it was committed.
        outcomes: Outcomes,
        /// What stood in the way of knowing.
        #[source]
        source: BoxError,
    },
}

/// The writing half of a store. Only one exists on a database: it holds the lock that keeps a
/// second server out.
#[async_trait]
pub trait Committer: Send {
    /// Commits everything in one transaction, durably: it is synced when this returns.
    ///
    /// Within the transaction, changes come first, then publishes, acks, rejections and deliveries,
    /// each in their order. Growing sequence numbers are given to publishes in their order.
    ///
    /// # Errors
    ///
    /// [`CommitError`]. After [`CommitError::Unknown`] and [`Error::Unavailable`] call
    /// [`Committer::reopen`].
    async fn commit(&mut self, transaction: &Transaction) -> Result<Outcomes, CommitError>;

    /// Connects anew, takes the lock, makes durable whatever is found, and tells the last commit.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if the database is still out of reach; [`Error::Unusable`] if another
    /// server has taken it over meanwhile.
    async fn reopen(&mut self) -> Result<CommitNumber, Error>;

    /// Whether there is room for more messages. While there is none, acks still work.
    fn has_room(&self) -> bool;

    /// Gives back disk space and forgets metadata of acknowledged messages accepted before
    /// `forget_before`, a little at a time. Called when nothing waits; returns whether there is
    /// more to do.
    ///
    /// # Errors
    ///
    /// [`Error`]; nothing was lost.
    async fn maintain(&mut self, forget_before: Option<Time>) -> Result<bool, Error>;

    /// Closes the database cleanly and releases the lock.
    async fn close(self: Box<Self>);
}

/// The reading half of a store. It sees what is committed.
#[async_trait]
pub trait Reader: Send + Sync {
    /// All exchanges, queues and bindings.
    async fn topology(&self) -> Result<StoredTopology, Error>;

    /// The messages of a lane, a queue's messages for one receiver, after a sequence number, in
    /// order: at most `limit.messages`, and no more once `limit.bytes` of envelopes are reached
    /// (but one at least).
    async fn lane(&self, lane: &LaneKey, after: Seq, limit: PageLimit) -> Result<Page, Error>;

    /// The messages with these sequence numbers that still wait, in order, up to `bytes` (but one
    /// at least).
    async fn messages(&self, seqs: &[Seq], bytes: usize) -> Result<Page, Error>;

    /// The queues from `from` on in which something waits for the receiver; at most `limit` queues
    /// are looked at.
    async fn lanes(&self, receiver: &ClientId, from: QueueId, limit: u32) -> Result<Lanes, Error>;

    /// The envelopes that stand in a lane after a sequence number, in order, with the limits of
    /// [`Reader::lane`]; those that stand in another lane of their message are counted only.
    async fn envelopes(
        &self,
        lane: &LaneKey,
        after: Seq,
        limit: PageLimit,
    ) -> Result<Envelopes, Error>;

    /// What is known of an accepted message; `None` if it never was.
    async fn message_state(&self, message_id: &MessageId) -> Result<Option<MessageState>, Error>;

    /// The client's public key, sealed.
    async fn public_key(&self, client_id: &ClientId) -> Result<Option<SealedRow>, Error>;

    /// The client's signed key, sealed.
    async fn signed_key(&self, client_id: &ClientId) -> Result<Option<SealedRow>, Error>;

    /// All sealed keys, and whether older servers' were taken over.
    async fn sealed_keys(&self) -> Result<SealedKeys, Error>;

    /// A certificate chain that the client has connected with: the last one, or the one with this
    /// fingerprint.
    async fn certificate(
        &self,
        client_id: &ClientId,
        fingerprint: Option<&Fingerprint>,
    ) -> Result<Option<CertificateChain>, Error>;

    /// Messages that were rejected, sent by the client or for it, in the order of their rejection:
    /// at most `limit`, those after `after`.
    async fn rejected(
        &self,
        client_id: &ClientId,
        after: Option<&RejectedCursor>,
        limit: u32,
    ) -> Result<Vec<RejectedMessage>, Error>;

    /// Closes the connections.
    async fn close(&self);
}

/// An opened database.
pub struct Store {
    /// For the writer.
    pub committer: Box<dyn Committer>,
    /// For everybody.
    pub reader: Arc<dyn Reader>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Which database.
#[derive(Debug, Clone)]
pub enum DatabaseSettings {
    /// A file, made with its folder if it is not there.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// While fewer bytes than this are free on its disk, there is no room for more messages.
        disk_reserve: u64,
    },
    /// A database on a PostgreSQL server.
    Postgres(crate::config::Postgres),
}

/// Opens a database, brings its schema up to date, and locks it against other servers. What is
/// found in it is durable when this returns.
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

/// Puts into words what a driver's error means, and keeps the error.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Explained {
    what: String,
    #[source]
    source: BoxError,
}

fn explained(what: impl Into<String>, source: impl Into<BoxError>) -> BoxError {
    Box::new(Explained {
        what: what.into(),
        source: source.into(),
    })
}

fn corrupt(error: impl std::fmt::Display) -> Error {
    Error::Corrupt(error.to_string())
}
