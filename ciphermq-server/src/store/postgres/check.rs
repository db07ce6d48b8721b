//! Checks of what is in the database, made beside a running server.

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::error::error;
use super::offline::Snapshot;
use crate::config;
use crate::store::Error;
use crate::store::batch::check::{
    BatchCheck, StoredBatch, StoredEnvelopes, StoredLane, check_lane,
};
use crate::store::batch::removal::ALL;
use crate::store::invariants::Dialect;
use crate::store::offline::{Checked, Contents, Fault, Report};

const DIALECT: Dialect = Dialect {
    dispositions: "(SELECT COALESCE(json_agg(json_build_array(from_index, messages, \
                   delivered_time, acknowledged_time, rejected_time))::text, '[]') FROM fates f \
                   WHERE f.first_seq = b.first_seq)",
    all: ALL,
};

/// Checks the invariants of the rows. That all of them can be read is a check of PostgreSQL's, too,
/// if the cluster has checksums.
pub(in crate::store) async fn check(
    settings: &config::Postgres,
    report: Report<'_>,
) -> Result<Checked, Error> {
    let mut snapshot = Snapshot::open(settings).await?;
    let schema = snapshot.schema;
    let session = &mut snapshot.session;
    for rule in DIALECT.rules(schema) {
        let key = |row: &PgRow| row.try_get(0);
        let take = |key| report(rule.fault(key));
        each(session, &rule.statement, key, take).await?;
    }
    let last_seq: Option<i64> = sqlx::query_scalar("SELECT last_seq FROM server_state")
        .fetch_optional(&mut *session)
        .await
        .map_err(error)?;
    // Without it, which is reported, there is nothing to compare with.
    let mut check = BatchCheck::new(last_seq.unwrap_or(i64::MAX));
    let take = |stored| check.batch(&stored, report);
    each(session, &DIALECT.batches(schema), batch, take).await?;
    let take = |stored| check_lane(&stored, report);
    each(session, &Dialect::lanes(schema), lane, take).await?;
    numbers(&mut snapshot, report).await?;
    let contents = Contents {
        schema,
        commit: snapshot.commit,
        waiting: check.waiting,
    };
    snapshot.close().await;
    Ok(Checked {
        contents,
        batches: check.batches,
    })
}

/// Checks that no queue's number can be given again.
async fn numbers(snapshot: &mut Snapshot, report: Report<'_>) -> Result<(), Error> {
    // A sequence is read last: it may be further than the snapshot, and is never behind it.
    for sequence in snapshot.sequences().await? {
        if sequence.table != "queues" {
            continue;
        }
        let given = if sequence.is_given {
            sequence.last
        } else {
            sequence.last - 1
        };
        let statement = format!("SELECT queue_id FROM queues WHERE queue_id > {given}");
        let take = |queue: i64| {
            report(Fault {
                table: "queues",
                key: format!("queue_id {queue}"),
                what: "its number can be given to another queue".into(),
                advice: "restore the database from a backup",
            });
        };
        each(
            &mut snapshot.session,
            &statement,
            |row| row.try_get(0),
            take,
        )
        .await?;
    }
    Ok(())
}

/// Passes each row of a statement on, one at a time.
async fn each<T>(
    session: &mut PgConnection,
    statement: &str,
    read: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
    mut take: impl FnMut(T),
) -> Result<(), Error> {
    let mut rows = sqlx::query(AssertSqlSafe(statement.to_owned())).fetch(session);
    while let Some(row) = rows.try_next().await.map_err(error)? {
        take(read(&row).map_err(error)?);
    }
    Ok(())
}

fn batch(row: &PgRow) -> Result<StoredBatch, sqlx::Error> {
    let ends: Option<String> = row.try_get(10)?;
    Ok(StoredBatch {
        first_seq: row.try_get(0)?,
        messages: row.try_get(1)?,
        queues: row.try_get(2)?,
        stream: row.try_get(3)?,
        position: row.try_get(4)?,
        receiver: row.try_get(5)?,
        sent_time: row.try_get(6)?,
        digests: row.try_get(7)?,
        bytes: row.try_get(8)?,
        dispositions: row.try_get(9)?,
        envelopes: match ends {
            None => None,
            Some(ends) => Some(StoredEnvelopes {
                ends,
                own: row.try_get(11)?,
                shared: row.try_get(12)?,
            }),
        },
        lanes: row.try_get(13)?,
    })
}

fn lane(row: &PgRow) -> Result<StoredLane, sqlx::Error> {
    Ok(StoredLane {
        queue: row.try_get(0)?,
        receiver: row.try_get(1)?,
        first_seq: row.try_get(2)?,
        copy: row.try_get(3)?,
        queues: row.try_get(4)?,
        batch_receiver: row.try_get(5)?,
        has_envelopes: row.try_get(6)?,
        has_queue: row.try_get(7)?,
    })
}
