//! Writes the messages of a transaction.

use std::collections::HashSet;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::error::decode;
use super::sql::{LOOK_UP, SET_ASIDE, WRITE};
use crate::model::{Amount, CommitNumber, HeldBySender, QueueId};
use crate::store::batch::accept::NewBatch;
use crate::store::batch::disposition::disposition_ranges;
use crate::store::batch::id::Range;
use crate::store::batch::settlement::{Rejected, Settlement, SettlementRows, lanes};
use crate::store::batch::tail_cache::stream_ends;
use crate::store::batch::{BatchRow, queues, queues_text};

/// The position of the database: its last commit and sequence number.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(super) struct Position {
    commit_number: i64,
    last_seq: i64,
}

impl Position {
    /// Reads the position, for certain.
    ///
    /// It writes, and waits for that as for any commit: then what was committed before is durable,
    /// too. A mere read could see a commit that still waits, or no longer waits, for a synchronous
    /// standby.
    pub(super) async fn read_durable(session: &mut PgConnection) -> Result<Self, sqlx::Error> {
        sqlx::query_as(
            "UPDATE server_state SET commit_number = commit_number RETURNING commit_number, \
             last_seq",
        )
        .fetch_one(session)
        .await
    }

    pub(super) fn commit(self) -> CommitNumber {
        CommitNumber(self.commit_number)
    }

    /// Returns the first free sequence number.
    pub(super) fn next_seq(self) -> i64 {
        self.last_seq + 1
    }

    /// Returns the position after a commit that takes `copies` sequence numbers.
    pub(super) fn after(self, copies: i64) -> Self {
        Self {
            commit_number: self.commit_number + 1,
            last_seq: self.last_seq + copies,
        }
    }
}

/// A move of the database's position by a commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Advance {
    pub(super) from: Position,
    pub(super) to: Position,
}

/// Adds the batches that hold ids of these ranges. Returns the ranges above which no batch of their
/// stream begins.
pub(super) async fn look_up(
    session: &mut PgConnection,
    ranges: Vec<Range>,
    settlement: &mut Settlement,
) -> Result<Vec<Range>, sqlx::Error> {
    if ranges.is_empty() {
        return Ok(ranges);
    }
    let rows = sqlx::query(LOOK_UP)
        .bind(column(&ranges, |range| range.stream.to_string()))
        .bind(column(&ranges, Range::begins_after))
        .bind(column(&ranges, |range| range.first))
        .bind(column(&ranges, |range| range.last))
        .fetch_all(session)
        .await?;
    let mut goes_on = HashSet::new();
    for row in rows {
        if row.try_get(1)? {
            goes_on.insert(row.try_get(0)?);
        }
        if let Some(batch) = batch_row(&row)? {
            settlement.add(batch).map_err(decode)?;
        }
    }
    Ok(stream_ends(ranges, &goes_on))
}

/// Reads the batch of a row of [`LOOK_UP`], if there is one.
pub(super) fn batch_row(row: &PgRow) -> Result<Option<BatchRow>, sqlx::Error> {
    let Some(first_seq) = row.try_get(2)? else {
        return Ok(None);
    };
    let queue_ids: &str = row.try_get(4)?;
    let dispositions: &str = row.try_get(12)?;
    Ok(Some(BatchRow {
        first_seq,
        messages: row.try_get(3)?,
        queues: queues(queue_ids).map_err(decode)?,
        stream: row.try_get(5)?,
        position: row.try_get(6)?,
        sender: row.try_get(7)?,
        receiver: row.try_get(8)?,
        sent_time: row.try_get(9)?,
        route: row.try_get::<Option<_>, _>(13)?.zip(row.try_get(14)?),
        has_suite: row.try_get(10)?,
        digests: row.try_get(11)?,
        bytes: row.try_get(15)?,
        dispositions: disposition_ranges(dispositions).map_err(decode)?,
    }))
}

/// Returns those of the queues that exist.
pub(super) async fn existing(
    session: &mut PgConnection,
    queues: &HashSet<QueueId>,
) -> Result<HashSet<QueueId>, sqlx::Error> {
    let numbers: Vec<i64> = queues.iter().map(|queue| queue.0).collect();
    let found: Vec<i64> =
        sqlx::query_scalar("SELECT queue_id FROM queues WHERE queue_id = ANY($1)")
            .bind(numbers)
            .fetch_all(session)
            .await?;
    Ok(found.into_iter().map(QueueId).collect())
}

/// Writes new batches, dispositions and the database's new position in one statement, if its
/// position is the expected one.
///
/// What it writes about a batch may not depend on what it writes elsewhere: it does not see its own
/// rows.
pub(super) async fn write(
    session: &mut PgConnection,
    Advance { from, to }: Advance,
    batches: &[NewBatch<'_>],
    entries: &SettlementRows<'_>,
) -> Result<(), sqlx::Error> {
    let rows: Vec<BatchRow> = batches.iter().map(NewBatch::row).collect();
    let lanes_joined = LaneColumns::of(&rows);
    let lanes_left = LaneColumns::of(entries.finished.iter().copied());
    let (removed, written) = (&entries.removed, &entries.written);
    sqlx::query(WRITE)
        .bind(to.commit_number)
        .bind(to.last_seq)
        // Batches.
        .bind(column(&rows, |row| row.first_seq))
        .bind(column(&rows, |row| row.messages))
        .bind(column(&rows, |row| queues_text(&row.queues)))
        .bind(column(&rows, |row| row.stream.as_str()))
        .bind(column(&rows, |row| row.position))
        .bind(column(&rows, |row| row.sender.as_deref()))
        .bind(column(batches, |batch| batch.first.exchange.as_str()))
        .bind(column(batches, |batch| batch.first.routing_key.as_str()))
        .bind(column(&rows, |row| row.receiver.as_deref()))
        .bind(column(&rows, |row| row.sent_time.as_deref()))
        .bind(column(&rows, |row| row.has_suite))
        .bind(column(&rows, |row| row.digests.as_deref()))
        // Their envelopes.
        .bind(column(batches, NewBatch::ends))
        .bind(column(batches, NewBatch::envelopes))
        .bind(column(batches, NewBatch::shared))
        // The lanes where they wait.
        .bind(lanes_joined.queues)
        .bind(lanes_joined.receivers)
        .bind(lanes_joined.batches)
        .bind(lanes_joined.copies)
        // Dispositions that others replace.
        .bind(column(removed, |(batch, _)| *batch))
        .bind(column(removed, |(_, from)| *from))
        // Dispositions.
        .bind(column(written, |(batch, _)| *batch))
        .bind(column(written, |(_, run)| run.from))
        .bind(column(written, |(_, run)| run.messages))
        .bind(column(written, |(_, run)| &*run.disposition.delivered))
        .bind(column(written, |(_, run)| {
            run.disposition.acknowledged.as_deref()
        }))
        .bind(column(written, |(_, run)| {
            run.disposition.rejected.as_deref()
        }))
        // Batches of which nothing waits any more.
        .bind(column(&entries.finished, |batch| batch.first_seq))
        .bind(lanes_left.queues)
        .bind(lanes_left.receivers)
        .bind(lanes_left.batches)
        .bind(from.commit_number)
        .bind(column(&rows, |row| row.bytes))
        .execute(session)
        .await?;
    Ok(())
}

/// Stores messages that their receivers cannot use, and adds what their senders hold more then.
/// Their batches exist, and so do the envelopes.
pub(super) async fn set_aside(
    session: &mut PgConnection,
    rejected: &[Rejected],
    held: &mut HeldBySender,
) -> Result<(), sqlx::Error> {
    for rejected in rejected {
        let written: Option<(String, String, i64)> = sqlx::query_as(SET_ASIDE)
            .bind(rejected.message_id.as_str())
            // PostgreSQL allows no zero byte in texts.
            .bind(rejected.reason.replace('\0', "\u{fffd}"))
            .bind(&*rejected.time)
            .bind(rejected.batch)
            .bind(rejected.index)
            .fetch_optional(&mut *session)
            .await?;
        if let Some((sender, receiver, bytes)) = written {
            held.add_rejected(&sender, &receiver, Amount { messages: 1, bytes });
        }
    }
    Ok(())
}

/// Returns a column of rows.
fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// The lanes that batches wait in, column by column.
#[derive(Default)]
struct LaneColumns<'a> {
    queues: Vec<i64>,
    receivers: Vec<&'a str>,
    batches: Vec<i64>,
    copies: Vec<i64>,
}

impl<'a> LaneColumns<'a> {
    fn of(rows: impl IntoIterator<Item = &'a BatchRow>) -> Self {
        let mut lanes_joined = Self::default();
        for row in rows {
            for (copy, (queue, receiver)) in (0..).zip(lanes(row)) {
                lanes_joined.queues.push(queue.0);
                lanes_joined.receivers.push(receiver);
                lanes_joined.batches.push(row.first_seq);
                lanes_joined.copies.push(copy);
            }
        }
        lanes_joined
    }
}
