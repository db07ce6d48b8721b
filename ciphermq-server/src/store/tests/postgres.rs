//! Behaviour that only a remote server needs.

mod advice;
mod maintenance;
mod opening;
mod outages;

use std::time::Duration;

use ciphermq_tests::Postgres;
use ciphermq_tests::faults::proxy::Proxy;
use ciphermq_tests::postgres::{Options, Stop};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::fixture::*;
use crate::config::{self, Secret, SslMode, Target};
use crate::model::{
    AckOutcome, CommitNumber, PageLimit, PublishOutcome, SealedRow, Seq, Transaction,
};
use crate::store::{CommitError, DatabaseSettings, Error, Retention, Store, open};

async fn refused(settings: config::Postgres) -> String {
    match open(&DatabaseSettings::Postgres(settings))
        .await
        .unwrap_err()
    {
        Error::Unusable(text) => text,
        other => panic!("{other:?}"),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(|error| format!("{error}; "))
        .collect()
}

async fn connect(database: &Database) -> PgConnection {
    let Database::Postgres(postgres, name) = database else {
        unreachable!()
    };
    PgConnection::connect(&postgres.url(name)).await.unwrap()
}

/// Waits until a query returns a row.
async fn until(connection: &mut PgConnection, sql: &str) {
    let found = async {
        while sqlx::query(AssertSqlSafe(sql))
            .fetch_optional(&mut *connection)
            .await
            .unwrap()
            .is_none()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(ciphermq_tests::PATIENCE, found)
        .await
        .expect(sql);
}

/// Makes commits wait, when they are durable on this server, for a standby that does not exist.
async fn require_a_standby(observer: &mut PgConnection) {
    for sql in [
        "SET synchronous_commit = local",
        "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::raw_sql(sql).execute(&mut *observer).await.unwrap();
    }
    until(
        observer,
        "SELECT 1 WHERE current_setting('synchronous_standby_names') = 'nobody'",
    )
    .await;
}

/// Undoes [`require_a_standby`].
async fn require_no_standby(observer: &mut PgConnection) {
    for sql in [
        "ALTER SYSTEM RESET synchronous_standby_names",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::raw_sql(sql).execute(&mut *observer).await.unwrap();
    }
}

/// Waits until a session of the server waits in its commit, and ends it.
async fn end_stuck_sessions(observer: &mut PgConnection) {
    let stuck = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'ciphermq-server%' \
                 AND wait_event IN ('SyncRep', 'PgSleep')";
    until(observer, stuck).await;
    sqlx::query(AssertSqlSafe(format!(
        "SELECT pg_terminate_backend(pid) FROM ({stuck}) AS stuck"
    )))
    .execute(observer)
    .await
    .unwrap();
}
