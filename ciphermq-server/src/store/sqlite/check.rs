//! Checks of the database file and of what is in it, made beside a running server.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Row};

use super::error::write_error;
use super::offline::Snapshot;
use crate::store::Error;
use crate::store::batch::check::{
    BatchCheck, StoredBatch, StoredEnvelopes, StoredLane, check_lane,
};
use crate::store::batch::removal::ALL;
use crate::store::invariants::Dialect;
use crate::store::offline::{Checked, Contents, Fault, Report};

const DIALECT: Dialect = Dialect {
    dispositions: "(SELECT json_group_array(json_array(from_index, messages, delivered_time, \
                   acknowledged_time, rejected_time)) FROM fates f WHERE f.first_seq = b.first_seq)",
    all: ALL,
};

/// Checks the file, then the invariants of its rows.
pub(in crate::store) fn check(database: &Path, report: Report<'_>) -> Result<Checked, Error> {
    let snapshot = Snapshot::open(database)?;
    let mut faults = 0;
    let mut damage = |what: String| {
        faults += 1;
        report(Fault {
            table: "the database file",
            key: String::new(),
            what,
            advice: "the disk or another program has damaged it: restore the database from a \
                     backup",
        });
    };
    let read = each(
        &snapshot.connection,
        "PRAGMA integrity_check(1000000)",
        |row| row.get::<_, String>(0),
        |found| {
            if found != "ok" {
                damage(found);
            }
        },
    );
    match read.map_err(write_error) {
        Err(Error::Corrupt(what)) => damage(what),
        other => other?,
    }
    match rows(&snapshot, report).map_err(write_error) {
        // How far the rows of a damaged file can be read does not matter.
        Err(Error::Corrupt(what)) if faults > 0 => {
            report(Fault {
                table: "the database file",
                key: String::new(),
                what: format!("its rows cannot be read to their end: {what}"),
                advice: "restore the database from a backup",
            });
            Ok(Checked {
                contents: Contents {
                    schema: snapshot.schema,
                    commit: snapshot.commit,
                    waiting: 0,
                },
                batches: 0,
            })
        }
        checked => checked,
    }
}

fn rows(snapshot: &Snapshot, report: Report<'_>) -> rusqlite::Result<Checked> {
    let Snapshot {
        connection,
        schema,
        commit,
    } = snapshot;
    for rule in DIALECT.rules(*schema) {
        each(
            connection,
            &rule.statement,
            |row| row.get(0),
            |key| report(rule.fault(key)),
        )?;
    }
    numbers(connection, report)?;
    let last_seq: Option<i64> = connection
        .query_row("SELECT last_seq FROM server_state", [], |row| row.get(0))
        .optional()?;
    // Without it, which is reported, there is nothing to compare with.
    let mut check = BatchCheck::new(last_seq.unwrap_or(i64::MAX));
    each(connection, &DIALECT.batches(*schema), batch, |batch| {
        check.batch(&batch, report);
    })?;
    each(connection, &Dialect::lanes(*schema), lane, |lane| {
        check_lane(&lane, report);
    })?;
    Ok(Checked {
        contents: Contents {
            schema: *schema,
            commit: *commit,
            waiting: check.waiting,
        },
        batches: check.batches,
    })
}

/// Checks that no queue's number can be given again.
fn numbers(connection: &Connection, report: Report<'_>) -> rusqlite::Result<()> {
    let has_sequences = connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'")?
        .exists([])?;
    if !has_sequences {
        return Ok(());
    }
    each(
        connection,
        "SELECT queue_id FROM queues WHERE queue_id > (SELECT COALESCE(MAX(seq), 0) FROM \
         sqlite_sequence WHERE name = 'queues')",
        |row| row.get::<_, i64>(0),
        |queue| {
            report(Fault {
                table: "queues",
                key: format!("queue_id {queue}"),
                what: "its number can be given to another queue".into(),
                advice: "restore the database from a backup",
            });
        },
    )
}

/// Passes each row of a statement on, one at a time.
fn each<T>(
    connection: &Connection,
    statement: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    mut take: impl FnMut(T),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(statement)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(read(row)?);
    }
    Ok(())
}

fn batch(row: &Row<'_>) -> rusqlite::Result<StoredBatch> {
    let ends: Option<String> = row.get(10)?;
    Ok(StoredBatch {
        first_seq: row.get(0)?,
        messages: row.get(1)?,
        queues: row.get(2)?,
        stream: row.get(3)?,
        position: row.get(4)?,
        receiver: row.get(5)?,
        sent_time: row.get(6)?,
        digests: row.get(7)?,
        bytes: row.get(8)?,
        dispositions: row.get(9)?,
        envelopes: match ends {
            None => None,
            Some(ends) => Some(StoredEnvelopes {
                ends,
                own: row.get(11)?,
                shared: row.get(12)?,
            }),
        },
        lanes: row.get(13)?,
    })
}

fn lane(row: &Row<'_>) -> rusqlite::Result<StoredLane> {
    Ok(StoredLane {
        queue: row.get(0)?,
        receiver: row.get(1)?,
        first_seq: row.get(2)?,
        copy: row.get(3)?,
        queues: row.get(4)?,
        batch_receiver: row.get(5)?,
        has_envelopes: row.get(6)?,
        has_queue: row.get(7)?,
    })
}
