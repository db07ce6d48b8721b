//! Queries on the server's database, over a separate connection.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, ValueRef as _};

use crate::PATIENCE;

/// A connection to a server's database.
pub enum Database {
    /// A SQLite file.
    Sqlite(SqlitePool),
    /// A PostgreSQL database.
    Postgres(PgPool),
}

/// A row, with every value as text, and `None` for NULL.
pub type Row = Vec<Option<String>>;

impl Database {
    /// The query for the number of acknowledged messages.
    pub const ACKNOWLEDGED: &'static str =
        "SELECT count(*) FROM message_metadata WHERE acknowledged_time IS NOT NULL";

    /// Connects to `sqlite://<path>`, which must exist, or to `postgres://...`.
    ///
    /// # Panics
    ///
    /// If the connection fails.
    pub async fn connect(url: &str) -> Self {
        if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url)
                .unwrap_or_else(|error| panic!("{url}: {error}"))
                .busy_timeout(PATIENCE);
            let pool = SqlitePoolOptions::new()
                .max_connections(1)
                .connect_with(options)
                .await;
            return Self::Sqlite(pool.unwrap_or_else(|error| panic!("{url}: {error}")));
        }
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(PATIENCE)
            .connect(url)
            .await;
        Self::Postgres(pool.unwrap_or_else(|error| panic!("{url}: {error}")))
    }

    /// Runs a query and returns its rows.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub async fn rows(&self, sql: &str) -> Vec<Row> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let rows = match self {
            Self::Sqlite(pool) => query
                .fetch_all(pool)
                .await
                .map(|rows| rows.iter().map(sqlite_row).collect()),
            Self::Postgres(pool) => query
                .fetch_all(pool)
                .await
                .map(|rows| rows.iter().map(postgres_row).collect()),
        };
        rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Runs a query that returns a single number, such as `SELECT count(*) FROM message_metadata`.
    ///
    /// # Panics
    ///
    /// If it fails, or returns anything else.
    pub async fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(sql).await;
        match rows.as_slice() {
            [row] => row.first().and_then(|value| value.as_deref()?.parse().ok()),
            _ => None,
        }
        .unwrap_or_else(|| panic!("{sql} returned {rows:?} instead of one number"))
    }

    /// Executes statements, and returns the number of rows that they changed.
    ///
    /// # Panics
    ///
    /// If they fail.
    pub async fn execute(&self, sql: &str) -> u64 {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        let changed = match self {
            Self::Sqlite(pool) => query.execute(pool).await.map(|done| done.rows_affected()),
            Self::Postgres(pool) => query.execute(pool).await.map(|done| done.rows_affected()),
        };
        changed.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Repeats a query until it returns the number `expected`. For what the server writes
    /// asynchronously.
    ///
    /// # Panics
    ///
    /// If the number is another one after [`PATIENCE`].
    pub async fn eventually(&self, sql: &str, expected: i64) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let number = self.number(sql).await;
            if number == expected {
                return;
            }
            assert!(
                tokio::time::Instant::now() < end,
                "{sql} still returns {number} instead of {expected}"
            );
            // The database does not notify us of changes.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Reads every column as text: SQLite converts any value to text on request.
fn sqlite_row(row: &SqliteRow) -> Row {
    (0..row.len())
        .map(|column| {
            row.try_get_unchecked(column)
                .unwrap_or_else(|error| panic!("column {column}: {error}"))
        })
        .collect()
}

/// Reads every column as text: PostgreSQL answers a simple query, such as `raw_sql`, in text
/// format.
fn postgres_row(row: &PgRow) -> Row {
    (0..row.len())
        .map(|column| {
            let value = row
                .try_get_raw(column)
                .unwrap_or_else(|error| panic!("column {column}: {error}"));
            let text = || {
                value
                    .as_str()
                    .unwrap_or_else(|error| panic!("column {column}: {error}"))
            };
            (!value.is_null()).then(|| text().to_owned())
        })
        .collect()
}
