//! One transaction.

use async_trait::async_trait;
use ciphermq_protocol::MessageId;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::change::change;
use super::error::{decode, error, is_full};
use super::file::{DatabaseFile, checkpoint};
use super::sql::{
    FORGET_BATCHES, FORGET_FATES, FORGET_INDEX, FORGETTABLE, INSERT_BATCHES, INSERT_ENVELOPES,
    INSERT_WAITING, KNOWN, REMOVE_ENVELOPES, REMOVE_FATES, REMOVE_WAITING, SET_ASIDE, WRITE_FATES,
};
use crate::store::batch::accept::{Accepted, NewBatch};
use crate::store::batch::fate::runs;
use crate::store::batch::id::ranges;
use crate::store::batch::ledger::{Entries, Ledger, lanes};
use crate::store::batch::{BatchRow, queues, queues_text};
use crate::store::model::{CommitNumber, Outcomes, QueueId, Time, Transaction};
use crate::store::{CommitError, Committer, Error};

/// What is given back to the disk in one step, in pages.
const VACUUM_PAGES: i64 = 512;
/// Free pages that are kept for the messages to come: giving them back and taking them anew costs twice.
const SPARE_PAGES: i64 = 4096;
/// Batches that are forgotten in one step.
const FORGET_STEP: i64 = 100;

pub(super) struct SqliteCommitter {
    file: DatabaseFile,
    /// `None` after an error that may have left it in an unknown state: the next commit opens another.
    connection: Option<SqliteConnection>,
    /// Whether something was committed since the log was last emptied.
    log_used: bool,
    /// Whether the index that finds old metadata is known to be there.
    forget_index: bool,
}

impl SqliteCommitter {
    pub(super) fn new(file: DatabaseFile, connection: SqliteConnection) -> Self {
        Self {
            file,
            connection: Some(connection),
            log_used: false,
            forget_index: false,
        }
    }

    async fn connection(&mut self) -> Result<SqliteConnection, Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.file.connect().await.map_err(error),
        }
    }

    async fn forget(&mut self, connection: &mut SqliteConnection, before: Time) -> Result<bool, sqlx::Error> {
        if !self.forget_index {
            sqlx::query(FORGET_INDEX).execute(&mut *connection).await?;
            self.forget_index = true;
        }
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let batches: String = sqlx::query_scalar(FORGETTABLE)
            .bind(before.to_string())
            .bind(FORGET_STEP)
            .fetch_one(&mut *transaction)
            .await?;
        sqlx::query(FORGET_FATES)
            .bind(&batches)
            .execute(&mut *transaction)
            .await?;
        let done = sqlx::query(FORGET_BATCHES)
            .bind(&batches)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        self.log_used |= done.rows_affected() > 0;
        Ok(i64::try_from(done.rows_affected()).is_ok_and(|rows| rows >= FORGET_STEP))
    }

    /// Gives some free pages back; whether there are more.
    async fn shrink(&mut self, connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
        let spare = if self.file.has_room() { SPARE_PAGES } else { 0 };
        let free: i64 = sqlx::query_scalar("PRAGMA freelist_count")
            .fetch_one(&mut *connection)
            .await?;
        if free <= spare {
            return Ok(false);
        }
        sqlx::query("PRAGMA incremental_vacuum(512)")
            .execute(connection)
            .await?;
        self.log_used = true;
        Ok(free - VACUUM_PAGES > spare)
    }
}

#[async_trait]
impl Committer for SqliteCommitter {
    async fn commit(&mut self, transaction: &Transaction) -> Result<Outcomes, CommitError> {
        // Dropped half-way, the connection rolls back by itself.
        let mut connection = self.connection().await?;
        self.log_used = true;
        let outcomes = match write(&mut connection, transaction).await {
            Ok(outcomes) => outcomes,
            Err(failure) => {
                if sqlx::query("ROLLBACK").execute(&mut connection).await.is_ok() {
                    self.connection = Some(connection);
                }
                return Err(error(failure).into());
            }
        };
        match sqlx::query("COMMIT").execute(&mut connection).await {
            Ok(_) => {
                self.connection = Some(connection);
                Ok(outcomes)
            }
            // There was no room for the log's last page, the one that makes a commit of it.
            Err(failure) if is_full(&failure) => Err(error(failure).into()),
            // The sync failed: what is in the log may be found there after a crash, or not.
            Err(failure) => Err(CommitError::Unknown {
                outcomes,
                source: failure.into(),
            }),
        }
    }

    async fn reopen(&mut self) -> Result<CommitNumber, Error> {
        if let Some(connection) = self.connection.take() {
            // It is given up for its errors.
            let _ = connection.close().await;
        }
        let mut connection = self.file.connect().await.map_err(error)?;
        checkpoint(&mut connection).await?;
        let commit = sqlx::query_scalar("SELECT commit_number FROM server_state")
            .fetch_one(&mut connection)
            .await
            .map_err(error)?;
        self.connection = Some(connection);
        Ok(CommitNumber(commit))
    }

    fn has_room(&self) -> bool {
        self.file.has_room()
    }

    async fn maintain(&mut self, forget_before: Option<Time>) -> Result<bool, Error> {
        let mut connection = self.connection().await?;
        let mut more = false;
        if let Some(before) = forget_before {
            more |= self.forget(&mut connection, before).await.map_err(error)?;
        }
        more |= self.shrink(&mut connection).await.map_err(error)?;
        if !more && self.log_used {
            checkpoint(&mut connection).await?;
            self.log_used = false;
            // Nothing waits: the memory of the pages read and written is for others.
            sqlx::query("PRAGMA shrink_memory")
                .execute(&mut connection)
                .await
                .map_err(error)?;
        }
        self.connection = Some(connection);
        Ok(more)
    }

    async fn close(self: Box<Self>) {
        if let Some(mut connection) = self.connection {
            // The log is emptied by the next start if not now.
            let _ = checkpoint(&mut connection).await;
            let _ = connection.close().await;
        }
    }
}

/// Everything up to the commit itself.
async fn write(
    connection: &mut SqliteConnection,
    transaction: &Transaction,
) -> Result<Outcomes, sqlx::Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let mut ledger = known(connection, transaction.message_ids()).await?;
    let mut accepted = Accepted::new(&transaction.publishes, &ledger);
    let (commit, last): (i64, i64) = sqlx::query_as(
        "UPDATE server_state SET commit_number = commit_number + 1, last_seq = last_seq + ? \
         RETURNING commit_number, last_seq",
    )
    .bind(accepted.copies)
    .fetch_one(&mut *connection)
    .await?;
    accepted.number(last - accepted.copies + 1);
    let mut outcomes = Outcomes {
        commit: CommitNumber(commit),
        ..Outcomes::default()
    };
    for given in &transaction.changes {
        let made = change(connection, outcomes.commit, given).await?;
        outcomes.changes.push(made);
    }
    insert(connection, &accepted.batches).await?;
    if transaction.settles() {
        for batch in &accepted.batches {
            ledger.add(batch.row()).map_err(decode)?;
        }
    }
    outcomes.publishes = accepted.outcomes;
    outcomes.acks = transaction.acks.iter().map(|ack| ledger.ack(ack)).collect();
    outcomes.rejections = transaction
        .rejections
        .iter()
        .map(|rejection| ledger.reject(rejection))
        .collect();
    for (id, time) in &transaction.deliveries {
        ledger.deliver(id, *time);
    }
    record(connection, &ledger.entries()).await?;
    Ok(outcomes)
}

/// The batches of messages, by the messages' ids.
pub(super) async fn known<'a>(
    connection: &mut SqliteConnection,
    ids: impl Iterator<Item = &'a MessageId>,
) -> Result<Ledger, sqlx::Error> {
    let mut ledger = Ledger::default();
    let ranges = ranges(ids);
    if ranges.is_empty() {
        return Ok(ledger);
    }
    let ranges = ranges.iter().map(|range| {
        (
            range.stream.to_string(),
            range.begins_after(),
            range.first,
            range.last,
        )
    });
    let rows = sqlx::query(KNOWN)
        .bind(json(ranges)?)
        .fetch_all(connection)
        .await?;
    for row in rows {
        let fates: &str = row.try_get(10)?;
        let queue_ids: &str = row.try_get(2)?;
        let batch = BatchRow {
            first_seq: row.try_get(0)?,
            messages: row.try_get(1)?,
            queues: queues(queue_ids).map_err(decode)?,
            stream: row.try_get(3)?,
            position: row.try_get(4)?,
            sender: row.try_get(5)?,
            receiver: row.try_get(6)?,
            sent_time: row.try_get(7)?,
            has_suite: row.try_get(8)?,
            digests: row.try_get(9)?,
            fates: runs(fates).map_err(decode)?,
        };
        ledger.add(batch).map_err(decode)?;
    }
    Ok(ledger)
}

async fn insert(connection: &mut SqliteConnection, batches: &[NewBatch<'_>]) -> Result<(), sqlx::Error> {
    let rows: Vec<BatchRow> = batches.iter().map(NewBatch::row).collect();
    let rows: Vec<(&BatchRow, &NewBatch<'_>)> = rows.iter().zip(batches).collect();
    for (text, piece) in INSERT_BATCHES.pieces(&rows) {
        let mut query = sqlx::query(text);
        for (row, batch) in piece {
            query = query
                .bind(row.first_seq)
                .bind(row.messages)
                .bind(queues_text(&row.queues))
                .bind(row.stream.as_str())
                .bind(row.position)
                .bind(row.sender.as_deref())
                .bind(batch.first.exchange.as_str())
                .bind(batch.first.routing_key.as_str())
                .bind(row.receiver.as_deref())
                .bind(row.sent_time.as_deref())
                .bind(row.has_suite)
                .bind(row.digests.as_deref());
        }
        query.execute(&mut *connection).await?;
    }
    for (text, piece) in INSERT_ENVELOPES.pieces(batches) {
        let mut query = sqlx::query(text);
        for batch in piece {
            query = query
                .bind(batch.first_seq)
                .bind(batch.ends())
                .bind(batch.envelopes());
        }
        query.execute(&mut *connection).await?;
    }
    let places: Vec<(QueueId, &str, i64, i64)> = rows
        .iter()
        .flat_map(|(row, _)| {
            (0..)
                .zip(lanes(row))
                .map(|(copy, (queue, receiver))| (queue, receiver, row.first_seq, copy))
        })
        .collect();
    for (text, piece) in INSERT_WAITING.pieces(&places) {
        let mut query = sqlx::query(text);
        for &(queue, receiver, first_seq, copy) in piece {
            query = query.bind(queue.0).bind(receiver).bind(first_seq).bind(copy);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Writes what became of messages.
async fn record(connection: &mut SqliteConnection, entries: &Entries<'_>) -> Result<(), sqlx::Error> {
    for rejected in entries.rejected {
        sqlx::query(SET_ASIDE)
            .bind(rejected.message_id.as_str())
            .bind(rejected.reason.as_str())
            .bind(&*rejected.time)
            .bind(rejected.batch)
            .bind(rejected.index)
            .execute(&mut *connection)
            .await?;
    }
    if !entries.removed.is_empty() {
        sqlx::query(REMOVE_FATES)
            .bind(json(entries.removed.iter())?)
            .execute(&mut *connection)
            .await?;
    }
    for (text, piece) in WRITE_FATES.pieces(&entries.written) {
        let mut query = sqlx::query(text);
        for (batch, run) in piece {
            query = query
                .bind(*batch)
                .bind(run.from)
                .bind(run.messages)
                .bind(&*run.fate.delivered)
                .bind(run.fate.acknowledged.as_deref())
                .bind(run.fate.rejected.as_deref());
        }
        query.execute(&mut *connection).await?;
    }
    if !entries.finished.is_empty() {
        sqlx::query(REMOVE_ENVELOPES)
            .bind(json(entries.finished.iter().map(|batch| batch.first_seq))?)
            .execute(&mut *connection)
            .await?;
        let places = entries
            .finished
            .iter()
            .flat_map(|batch| lanes(batch).map(|(queue, receiver)| (queue.0, receiver, batch.first_seq)));
        sqlx::query(REMOVE_WAITING)
            .bind(json(places)?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// A list as one parameter, for `json_each`.
pub(super) fn json<T: serde::Serialize>(items: impl Iterator<Item = T>) -> Result<String, sqlx::Error> {
    serde_json::to_string(&items.collect::<Vec<_>>()).map_err(|error| sqlx::Error::Encode(error.into()))
}

#[cfg(test)]
mod tests;
