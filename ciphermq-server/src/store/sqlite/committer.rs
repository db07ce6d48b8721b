//! One transaction.

use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::change::{change, reject};
use super::error::{error, is_full};
use super::file::{DatabaseFile, checkpoint};
use super::sql::{
    ACKNOWLEDGE, DELIVERED, FATES, FIND_UNACKNOWLEDGED, FORGET, FORGET_INDEX, INSERT_MESSAGES,
    INSERT_METADATA, PLACES, REMOVE, TAKEN,
};
use super::statement::TimeText;
use crate::store::model::{
    Ack, AckOutcome, CommitNumber, Outcomes, PublishOutcome, QueueId, Seq, Time, Transaction,
};
use crate::store::plan::{AckPlan, Candidate, CopyRow, Fate, PublishPlan, Taken, count, seqs};
use crate::store::{CommitError, Committer, Error};

/// What is given back to the disk in one step, in pages.
const VACUUM_PAGES: i64 = 512;
/// Free pages that are kept for the messages to come: giving them back and taking them anew costs twice.
const SPARE_PAGES: i64 = 4096;
/// Rows that are forgotten in one step.
const FORGET_ROWS: i64 = 1000;

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
        let done = sqlx::query(FORGET)
            .bind(before.to_string())
            .bind(FORGET_ROWS)
            .execute(connection)
            .await?;
        self.log_used |= done.rows_affected() > 0;
        Ok(i64::try_from(done.rows_affected()).is_ok_and(|rows| rows >= FORGET_ROWS))
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
    let plan = PublishPlan::new(&transaction.publishes);
    let (commit, last): (i64, i64) = sqlx::query_as(
        "UPDATE server_state SET commit_number = commit_number + 1, last_seq = last_seq + ? \
         RETURNING commit_number, last_seq",
    )
    .bind(plan.copies)
    .fetch_one(&mut *connection)
    .await?;
    let mut outcomes = Outcomes {
        commit: CommitNumber(commit),
        ..Outcomes::default()
    };
    for given in &transaction.changes {
        outcomes
            .changes
            .push(change(connection, outcomes.commit, given).await?);
    }
    outcomes.publishes = publish(connection, &plan, last - plan.copies + 1).await?;
    outcomes.acks = acknowledge(connection, &transaction.acks).await?;
    for rejection in &transaction.rejections {
        outcomes.rejections.push(reject(connection, rejection).await?);
    }
    for (text, piece) in DELIVERED.pieces(&transaction.deliveries) {
        let mut query = sqlx::query(text);
        for (id, time) in piece {
            query = query.bind(id.as_str()).bind(time.to_string());
        }
        query.execute(&mut *connection).await?;
    }
    Ok(outcomes)
}

async fn publish(
    connection: &mut SqliteConnection,
    plan: &PublishPlan<'_>,
    next: i64,
) -> Result<Vec<PublishOutcome>, sqlx::Error> {
    let mut candidates = plan.candidates(next);
    let mut inserted = 0;
    let mut times = TimeText::default();
    for (text, piece) in INSERT_METADATA.pieces(&candidates) {
        let mut query = sqlx::query(text);
        for Candidate {
            publish,
            first,
            copies,
        } in piece
        {
            query = query
                .bind(publish.envelope.message_id.as_str())
                .bind(publish.sender.as_str())
                .bind(publish.exchange.as_str())
                .bind(publish.routing_key.as_str())
                .bind(times.text(publish.sent_time))
                .bind(publish.envelope.receiver_client_id.as_str())
                .bind(publish.digest.as_slice())
                .bind(publish.envelope.has_suite)
                .bind(*first)
                .bind(*copies);
        }
        inserted += query.execute(&mut *connection).await?.rows_affected();
    }
    let mut taken = HashMap::new();
    if usize::try_from(inserted).is_ok_and(|inserted| inserted < candidates.len()) {
        taken = lookup_taken(connection, &candidates).await?;
        candidates.retain(|candidate| !taken.contains_key(candidate.publish.envelope.message_id.as_str()));
    }
    let rows: Vec<CopyRow<'_>> = candidates.iter().flat_map(Candidate::rows).collect();
    for (text, piece) in INSERT_MESSAGES.pieces(&rows) {
        let mut query = sqlx::query(text);
        for row in piece {
            query = query
                .bind(row.seq)
                .bind(row.first)
                .bind(row.queue.0)
                .bind(row.publish.envelope.receiver_client_id.as_str())
                .bind(row.publish.envelope.message_id.as_str())
                .bind(row.bytes)
                .bind(row.envelope);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(plan.outcomes(next, &taken))
}

/// Those of the candidates whose ids were taken before this transaction.
async fn lookup_taken(
    connection: &mut SqliteConnection,
    candidates: &[Candidate<'_>],
) -> Result<HashMap<String, Taken>, sqlx::Error> {
    let ours: HashMap<&str, i64> = candidates
        .iter()
        .map(|c| (c.publish.envelope.message_id.as_str(), c.first))
        .collect();
    let rows = sqlx::query(TAKEN)
        .bind(json(ours.keys())?)
        .fetch_all(connection)
        .await?;
    let mut taken = HashMap::new();
    for row in rows {
        let id: String = row.try_get(0)?;
        if ours.get(id.as_str()) != Some(&row.try_get(1)?) {
            let holder = Taken {
                sender: row.try_get(2)?,
                digest: row.try_get(3)?,
                has_suite: row.try_get(4)?,
            };
            taken.insert(id, holder);
        }
    }
    Ok(taken)
}

async fn acknowledge(
    connection: &mut SqliteConnection,
    acks: &[Ack],
) -> Result<Vec<AckOutcome>, sqlx::Error> {
    let plan = AckPlan::new(acks);
    let mut outcomes = HashMap::with_capacity(acks.len());
    for round in &plan.rounds {
        let round: Vec<(usize, &Ack)> = round.iter().filter_map(|&at| Some((at, acks.get(at)?))).collect();
        acknowledge_round(connection, &round, &mut outcomes).await?;
    }
    Ok(plan.outcomes(outcomes, acks.len()))
}

/// A message that waits to be acknowledged.
struct Found {
    /// The metadata's row id.
    row: i64,
    first: i64,
    copies: i64,
}

/// Acks of which no two name the same message.
async fn acknowledge_round(
    connection: &mut SqliteConnection,
    round: &[(usize, &Ack)],
    outcomes: &mut HashMap<usize, AckOutcome>,
) -> Result<(), sqlx::Error> {
    let mut found: HashMap<usize, Found> = HashMap::with_capacity(round.len());
    for (text, piece) in FIND_UNACKNOWLEDGED.pieces(round) {
        let mut query = sqlx::query_scalar(text);
        for (at, ack) in piece {
            query = query
                .bind(count(*at))
                .bind(ack.message_id.as_str())
                .bind(ack.client_id.as_str());
        }
        let rows: String = query.fetch_one(&mut *connection).await?;
        let rows: Vec<(usize, i64, i64, i64)> = parse(&rows)?;
        found.extend(
            rows.into_iter()
                .map(|(at, row, first, copies)| (at, Found { row, first, copies })),
        );
    }
    let done: Vec<(&Found, &Ack)> = round
        .iter()
        .filter_map(|(at, ack)| Some((found.get(at)?, *ack)))
        .collect();
    let open: Vec<(usize, &Ack)> = round
        .iter()
        .filter(|(at, _)| !found.contains_key(at))
        .copied()
        .collect();
    let mut times = TimeText::default();
    for (text, piece) in ACKNOWLEDGE.pieces(&done) {
        let mut query = sqlx::query(text);
        for (found, ack) in piece {
            query = query
                .bind(found.row)
                .bind(times.text(ack.delivered_time.unwrap_or(ack.time)))
                .bind(times.text(ack.time));
        }
        query.execute(&mut *connection).await?;
    }
    if !done.is_empty() {
        let owners: HashMap<i64, usize> = found
            .iter()
            .flat_map(|(&at, found)| seqs(found.first, found.copies).map(move |seq| (seq, at)))
            .collect();
        outcomes.extend(found.keys().map(|&at| (at, AckOutcome::Done(Vec::new()))));
        let seqs = json(owners.keys())?;
        let places: String = sqlx::query_scalar(PLACES)
            .bind(&seqs)
            .fetch_one(&mut *connection)
            .await?;
        for (seq, queue) in parse::<Vec<(i64, i64)>>(&places)? {
            if let Some(AckOutcome::Done(places)) = owners.get(&seq).and_then(|at| outcomes.get_mut(at)) {
                places.push((QueueId(queue), Seq(seq)));
            }
        }
        sqlx::query(REMOVE).bind(&seqs).execute(&mut *connection).await?;
    }
    if !open.is_empty() {
        let rows = sqlx::query(FATES)
            .bind(json(open.iter().map(|(_, ack)| ack.message_id.as_str()))?)
            .fetch_all(connection)
            .await?;
        let mut fates = HashMap::new();
        for row in rows {
            let fate = Fate {
                receiver: row.try_get(1)?,
                acknowledged: row.try_get(2)?,
            };
            fates.insert(row.try_get::<String, _>(0)?, fate);
        }
        outcomes.extend(
            open.into_iter()
                .map(|(at, ack)| (at, Fate::ack(fates.get(ack.message_id.as_str()), ack))),
        );
    }
    Ok(())
}

/// A list as one parameter, for `json_each`.
fn json<T: serde::Serialize>(items: impl Iterator<Item = T>) -> Result<String, sqlx::Error> {
    serde_json::to_string(&items.collect::<Vec<_>>()).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(error.into()))
}

#[cfg(test)]
mod tests;
