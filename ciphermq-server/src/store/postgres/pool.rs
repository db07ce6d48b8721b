//! A pool of connections, each lent for one read.

use scopeguard::{ScopeGuard, guard};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};
use std::time::Duration;

use super::connect::SessionFactory;
use super::error::error;
use super::session::{ANSWER_TIMEOUT, answer, prepare};
use crate::store::Error;

/// The connections of each pool. More would not make the reads faster.
const CONNECTIONS: u32 = 2;

/// The time limit for getting a connection, connecting included.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The time after which an unused connection is closed: each is a process of the server.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit of closing the connections.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct ReadPool(PgPool);

/// A connection until it is [given back](give_back).
///
/// If it is dropped before, because its answer did not arrive or nobody waits for it any more, it
/// is closed: in the pool it would occupy a place until that answer arrives.
pub(super) type Lent = ScopeGuard<PoolConnection<Postgres>, fn(PoolConnection<Postgres>)>;

impl ReadPool {
    /// Creates the pool, which connects at the first read.
    pub(super) fn open(connector: &SessionFactory) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(IDLE_TIMEOUT)
            // Finds a connection that PostgreSQL has dropped before it is used.
            .test_before_acquire(true)
            .after_connect(|connection, _| Box::pin(prepare_to_read(connection)))
            .connect_lazy_with(connector.endpoint().options().clone());
        Self(pool)
    }

    /// Lends a connection.
    pub(super) async fn lend(&self) -> Result<Lent, Error> {
        let connection = self.0.acquire().await.map_err(error)?;
        Ok(guard(connection, |connection| drop(connection.detach())))
    }

    /// Reads rows with one statement.
    pub(super) async fn rows(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, Error> {
        let mut connection = self.lend().await?;
        let rows = rows(&mut connection, query).await?;
        give_back(connection);
        Ok(rows)
    }

    /// Reads a row, if there is one.
    pub(super) async fn row(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Option<PgRow>, Error> {
        Ok(self.rows(query).await?.pop())
    }

    /// Closes the connections, orderly if the server cooperates.
    pub(super) async fn close(&self) {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.0.close()).await;
    }
}

/// Makes PostgreSQL cancel statements that nobody waits for any more: it does not notice that the
/// connection is closed while a statement waits, and would keep a process for each.
async fn prepare_to_read(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    prepare(connection).await?;
    sqlx::query("SELECT set_config('statement_timeout', $1, false)")
        .bind(format!("{}ms", ANSWER_TIMEOUT.as_millis()))
        .execute(connection)
        .await?;
    Ok(())
}

/// Reads rows with a statement, within the time limit of an answer.
pub(super) async fn rows(
    connection: &mut PgConnection,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<Vec<PgRow>, Error> {
    answer(query.fetch_all(connection)).await.map_err(error)
}

/// Returns a connection to the pool, once all its answers have arrived.
pub(super) fn give_back(connection: Lent) {
    drop(ScopeGuard::into_inner(connection));
}
