//! What clients ask of the store. Each client has one query at a time, so that many connections of
//! one client do not hold up the others' look-ups.

use std::time::Instant;

use ciphermq_protocol::ErrorReply;
use tokio::sync::Mutex;

use super::{ClientSession, write_error_reply};
use crate::repeated::Event;
use crate::store::writer::WriteError;

/// A client's turn to read from the store.
pub(super) type QueryTurn = Mutex<()>;

impl ClientSession {
    /// Reads from the store within `limits.storage_wait`, after the client's earlier queries.
    ///
    /// # Errors
    ///
    /// The reply that says that the store did not answer.
    pub(super) async fn query<T, E: std::fmt::Display>(
        &self,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<T, ErrorReply> {
        match self.in_turn(read).await {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => {
                let (repeated, reason) = (&self.broker.repeated, error.to_string());
                if repeated.is_first(Event::DatabaseRead, "clients", &reason) {
                    tracing::error!(%error, "Cannot read from the database");
                }
                Err(write_error_reply(&WriteError::Unavailable))
            }
            None => Err(write_error_reply(&WriteError::Unavailable)),
        }
    }

    /// Awaits `work` after the client's earlier queries; `None` if it did not end within
    /// `limits.storage_wait`.
    pub(super) async fn in_turn<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let deadline = Instant::now() + self.broker.limits.storage_wait;
        let in_turn = async {
            let _turn = self.query_turn.lock().await;
            work.await
        };
        tokio::time::timeout_at(deadline.into(), in_turn).await.ok()
    }
}
