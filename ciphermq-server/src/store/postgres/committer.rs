//! One transaction.

use std::time::Duration;

use async_trait::async_trait;
use ciphermq_protocol::MessageId;
use sqlx::{Connection as _, PgConnection, Row as _};

use super::change::change;
use super::connect::Connector;
use super::error::{decode, error, is_definite};
use super::sql::{FORGET, FORGET_INDEX, KNOWN, SET_ASIDE};
use crate::store::batch::accept::{Accepted, NewBatch};
use crate::store::batch::fate::runs;
use crate::store::batch::id::{Range, ranges};
use crate::store::batch::ledger::{Entries, Ledger, lanes};
use crate::store::batch::{BatchRow, queues, queues_text};
use crate::store::model::{CommitNumber, Outcomes, QueueId, Time, Transaction};
use crate::store::{CommitError, Committer, Error};

/// How long PostgreSQL may take to answer. A connection that is silent for longer is given up: the machine
/// at its other end may have gone without a word.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Batches that are forgotten in one step.
const FORGET_STEP: i64 = 100;

pub(super) struct PostgresCommitter {
    connector: Connector,
    /// Holds the lock. `None` when it is lost; [`Committer::reopen`] gets another.
    session: Option<PgConnection>,
    /// Whether the index that finds old metadata is known to be there.
    forget_index: bool,
}

impl PostgresCommitter {
    pub(super) fn new(connector: Connector, session: PgConnection) -> Self {
        Self {
            connector,
            session: Some(session),
            forget_index: false,
        }
    }

    fn session(&mut self) -> Result<PgConnection, Error> {
        self.session
            .take()
            .ok_or_else(|| Error::Unavailable("the connection to PostgreSQL is lost".into()))
    }

    /// Keeps a session after an error if it is still good.
    async fn recover(&mut self, mut session: PgConnection) {
        let rolled_back = sqlx::raw_sql("ROLLBACK").execute(&mut session);
        if let Ok(Ok(_)) = tokio::time::timeout(ANSWER_TIMEOUT, rolled_back).await {
            self.session = Some(session);
        }
    }
}

#[async_trait]
impl Committer for PostgresCommitter {
    async fn commit(&mut self, transaction: &Transaction) -> Result<Outcomes, CommitError> {
        // Dropped half-way, the session is closed, and PostgreSQL rolls back.
        let mut session = self.session()?;
        let outcomes = match tokio::time::timeout(ANSWER_TIMEOUT, write(&mut session, transaction)).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(failure)) => {
                if is_definite(&failure) {
                    self.recover(session).await;
                }
                return Err(error(failure).into());
            }
            Err(silent) => return Err(Error::Unavailable(silent.into()).into()),
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, sqlx::raw_sql("COMMIT").execute(&mut session)).await {
            Ok(Ok(_)) => {
                self.session = Some(session);
                Ok(outcomes)
            }
            Ok(Err(failure)) if is_definite(&failure) => {
                self.recover(session).await;
                Err(error(failure).into())
            }
            Ok(Err(failure)) => Err(CommitError::Unknown {
                outcomes,
                source: failure.into(),
            }),
            Err(silent) => Err(CommitError::Unknown {
                outcomes,
                source: silent.into(),
            }),
        }
    }

    async fn reopen(&mut self) -> Result<CommitNumber, Error> {
        self.session = None;
        let mut session = self.connector.reconnect().await?;
        let commit = sqlx::query_scalar("SELECT commit_number FROM server_state")
            .fetch_one(&mut session)
            .await
            .map_err(error)?;
        self.session = Some(session);
        Ok(CommitNumber(commit))
    }

    /// The disk is PostgreSQL's own affair; it says when it is full.
    fn has_room(&self) -> bool {
        true
    }

    async fn maintain(&mut self, forget_before: Option<Time>) -> Result<bool, Error> {
        let Some(before) = forget_before else {
            return Ok(false);
        };
        let mut session = self.session()?;
        if !self.forget_index {
            sqlx::query(FORGET_INDEX)
                .execute(&mut session)
                .await
                .map_err(error)?;
            self.forget_index = true;
        }
        let done = sqlx::query(FORGET)
            .bind(before.to_string())
            .bind(FORGET_STEP)
            .execute(&mut session)
            .await
            .map_err(error)?;
        self.session = Some(session);
        Ok(i64::try_from(done.rows_affected()).is_ok_and(|rows| rows >= FORGET_STEP))
    }

    async fn close(self: Box<Self>) {
        if let Some(session) = self.session {
            // The lock goes with the session, however that ends.
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, session.close()).await;
        }
    }
}

/// Everything up to the commit itself.
async fn write(session: &mut PgConnection, transaction: &Transaction) -> Result<Outcomes, sqlx::Error> {
    sqlx::raw_sql("BEGIN").execute(&mut *session).await?;
    let mut ledger = known(session, transaction.message_ids()).await?;
    let mut accepted = Accepted::new(&transaction.publishes, &ledger);
    let (commit, last): (i64, i64) = sqlx::query_as(
        "UPDATE server_state SET commit_number = commit_number + 1, last_seq = last_seq + $1 \
         RETURNING commit_number, last_seq",
    )
    .bind(accepted.copies)
    .fetch_one(&mut *session)
    .await?;
    accepted.number(last - accepted.copies + 1);
    let mut outcomes = Outcomes {
        commit: CommitNumber(commit),
        ..Outcomes::default()
    };
    for given in &transaction.changes {
        outcomes
            .changes
            .push(change(session, outcomes.commit, given).await?);
    }
    insert(session, &accepted.batches).await?;
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
    record(session, &ledger.entries()).await?;
    Ok(outcomes)
}

/// The batches of messages, by the messages' ids.
pub(super) async fn known<'a>(
    session: &mut PgConnection,
    ids: impl Iterator<Item = &'a MessageId>,
) -> Result<Ledger, sqlx::Error> {
    let mut ledger = Ledger::default();
    let ranges = ranges(ids);
    if ranges.is_empty() {
        return Ok(ledger);
    }
    let rows = sqlx::query(KNOWN)
        .bind(
            ranges
                .iter()
                .map(|range| range.stream.to_string())
                .collect::<Vec<_>>(),
        )
        .bind(ranges.iter().map(Range::begins_after).collect::<Vec<_>>())
        .bind(ranges.iter().map(|range| range.first).collect::<Vec<_>>())
        .bind(ranges.iter().map(|range| range.last).collect::<Vec<_>>())
        .fetch_all(session)
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

async fn insert(session: &mut PgConnection, batches: &[NewBatch<'_>]) -> Result<(), sqlx::Error> {
    if batches.is_empty() {
        return Ok(());
    }
    let rows: Vec<BatchRow> = batches.iter().map(NewBatch::row).collect();
    sqlx::query(
        "INSERT INTO batches (first_seq, messages, queues, id_stream, id_position, client_id, exchange_name, \
         routing_key, receiver_client_id, sent_time, has_suite, digests) \
         SELECT * FROM unnest($1::int8[], $2::int8[], $3::text[], $4::text[], $5::int8[], $6::text[], $7::text[], \
         $8::text[], $9::text[], $10::text[], $11::bool[], $12::bytea[])",
    )
    .bind(rows.iter().map(|row| row.first_seq).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.messages).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| queues_text(&row.queues)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.stream.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.position).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.sender.as_deref()).collect::<Vec<_>>())
    .bind(batches.iter().map(|batch| batch.first.exchange.as_str()).collect::<Vec<_>>())
    .bind(batches.iter().map(|batch| batch.first.routing_key.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.receiver.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.sent_time.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.has_suite).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.digests.as_deref()).collect::<Vec<_>>())
    .execute(&mut *session)
    .await?;
    sqlx::query(
        "INSERT INTO envelopes (first_seq, ends, envelopes, shared) \
         SELECT * FROM unnest($1::int8[], $2::text[], $3::bytea[], $4::bytea[])",
    )
    .bind(batches.iter().map(|batch| batch.first_seq).collect::<Vec<_>>())
    .bind(batches.iter().map(NewBatch::ends).collect::<Vec<_>>())
    .bind(batches.iter().map(NewBatch::envelopes).collect::<Vec<_>>())
    .bind(batches.iter().map(NewBatch::shared).collect::<Vec<_>>())
    .execute(&mut *session)
    .await?;
    let mut places = Places::default();
    for row in &rows {
        for (copy, (queue, receiver)) in (0..).zip(lanes(row)) {
            places.push(queue, receiver, row.first_seq);
            places.copies.push(copy);
        }
    }
    sqlx::query(
        "INSERT INTO waiting (queue_id, receiver_client_id, first_seq, copy) \
         SELECT * FROM unnest($1::int8[], $2::text[], $3::int8[], $4::int8[])",
    )
    .bind(places.queues)
    .bind(places.receivers)
    .bind(places.batches)
    .bind(places.copies)
    .execute(session)
    .await?;
    Ok(())
}

/// Where batches wait, column by column.
#[derive(Default)]
struct Places<'a> {
    queues: Vec<i64>,
    receivers: Vec<&'a str>,
    batches: Vec<i64>,
    copies: Vec<i64>,
}

impl<'a> Places<'a> {
    fn push(&mut self, queue: QueueId, receiver: &'a str, batch: i64) {
        self.queues.push(queue.0);
        self.receivers.push(receiver);
        self.batches.push(batch);
    }
}

/// Writes what became of messages.
async fn record(session: &mut PgConnection, entries: &Entries<'_>) -> Result<(), sqlx::Error> {
    for rejected in entries.rejected {
        sqlx::query(SET_ASIDE)
            .bind(rejected.message_id.as_str())
            // PostgreSQL has no zero byte in its texts.
            .bind(rejected.reason.replace('\0', "\u{fffd}"))
            .bind(&*rejected.time)
            .bind(rejected.batch)
            .bind(rejected.index)
            .execute(&mut *session)
            .await?;
    }
    if !entries.removed.is_empty() {
        sqlx::query(
            "DELETE FROM fates f USING unnest($1::int8[], $2::int8[]) AS g (batch, from_index) \
             WHERE f.first_seq = g.batch AND f.from_index = g.from_index",
        )
        .bind(
            entries
                .removed
                .iter()
                .map(|removed| removed.0)
                .collect::<Vec<_>>(),
        )
        .bind(
            entries
                .removed
                .iter()
                .map(|removed| removed.1)
                .collect::<Vec<_>>(),
        )
        .execute(&mut *session)
        .await?;
    }
    let written = &entries.written;
    if !written.is_empty() {
        sqlx::query(
            "INSERT INTO fates (first_seq, from_index, messages, delivered_time, acknowledged_time, rejected_time) \
             SELECT * FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::text[], $5::text[], $6::text[]) \
             ON CONFLICT (first_seq, from_index) DO UPDATE SET messages = excluded.messages, \
             delivered_time = excluded.delivered_time, acknowledged_time = excluded.acknowledged_time, \
             rejected_time = excluded.rejected_time",
        )
        .bind(written.iter().map(|(batch, _)| *batch).collect::<Vec<_>>())
        .bind(written.iter().map(|(_, run)| run.from).collect::<Vec<_>>())
        .bind(written.iter().map(|(_, run)| run.messages).collect::<Vec<_>>())
        .bind(written.iter().map(|(_, run)| &*run.fate.delivered).collect::<Vec<_>>())
        .bind(written.iter().map(|(_, run)| run.fate.acknowledged.as_deref()).collect::<Vec<_>>())
        .bind(written.iter().map(|(_, run)| run.fate.rejected.as_deref()).collect::<Vec<_>>())
        .execute(&mut *session)
        .await?;
    }
    if !entries.finished.is_empty() {
        sqlx::query("DELETE FROM envelopes WHERE first_seq = ANY($1)")
            .bind(
                entries
                    .finished
                    .iter()
                    .map(|batch| batch.first_seq)
                    .collect::<Vec<_>>(),
            )
            .execute(&mut *session)
            .await?;
        let mut places = Places::default();
        for &batch in &entries.finished {
            for (queue, receiver) in lanes(batch) {
                places.push(queue, receiver, batch.first_seq);
            }
        }
        sqlx::query(
            "DELETE FROM waiting w USING unnest($1::int8[], $2::text[], $3::int8[]) AS g (queue, receiver, batch) \
             WHERE w.queue_id = g.queue AND w.receiver_client_id = g.receiver AND w.first_seq = g.batch",
        )
        .bind(places.queues)
        .bind(places.receivers)
        .bind(places.batches)
        .execute(session)
        .await?;
    }
    Ok(())
}
