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
