//! Queries on what the server stored, past the server.

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

/// One row, every value as text, `None` for NULL.
pub type Row = Vec<Option<String>>;

impl Database {
    /// Connects to `sqlite://<path>` or `postgres://...`; a SQLite file must exist.
    ///
    /// # Panics
    ///
    /// If it cannot be connected to.
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

    /// The rows of a query.
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

    /// The single number that a query gives: `SELECT count(*) FROM message_metadata`.
    ///
    /// # Panics
    ///
    /// If it fails, or gives something else.
    pub async fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(sql).await;
        match rows.as_slice() {
            [row] => row.first().and_then(|value| value.as_deref()?.parse().ok()),
            _ => None,
        }
        .unwrap_or_else(|| panic!("{sql} gives {rows:?}, and not one number"))
    }

    /// Executes statements, and returns how many rows they changed.
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

    /// Asks again and again until a query gives this number: for what the server writes in its own
    /// time.
    ///
    /// # Panics
    ///
    /// If it does not within [`PATIENCE`].
    pub async fn eventually(&self, sql: &str, expected: i64) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let number = self.number(sql).await;
            if number == expected {
                return;
            }
            assert!(
                tokio::time::Instant::now() < end,
                "{sql} still gives {number}, and not {expected}"
            );
            // A database tells nobody when a row changes.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// SQLite turns any value into text on being asked.
fn sqlite_row(row: &SqliteRow) -> Row {
    (0..row.len())
        .map(|column| {
            row.try_get_unchecked(column)
                .unwrap_or_else(|error| panic!("column {column}: {error}"))
        })
        .collect()
}

/// PostgreSQL answers a simple query, which `raw_sql` is, with every value as text.
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
