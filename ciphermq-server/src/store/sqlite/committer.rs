//! One transaction.

use std::collections::HashMap;
use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::change::{change, reject};
use super::error::{error, is_full};
use super::file::{DatabaseFile, checkpoint};
use super::statement::MultiRow;
use crate::store::model::{
    Ack, AckOutcome, CommitNumber, Outcomes, PublishOutcome, QueueId, Seq, Time, Transaction,
};
use crate::store::plan::{AckPlan, Candidate, CopyRow, Fate, PublishPlan, Taken, seqs};
use crate::store::{CommitError, Committer, Error};

static INSERT_METADATA: LazyLock<MultiRow> = LazyLock::new(|| {
    MultiRow::new(
        "INSERT INTO message_metadata (message_id, client_id, exchange_name, routing_key, sent_time, \
         receiver_client_id, envelope_sha256, has_suite, first_seq, copies)",
        10,
        "ON CONFLICT (message_id) DO NOTHING",
    )
});

static INSERT_MESSAGES: LazyLock<MultiRow> = LazyLock::new(|| {
    MultiRow::new(
        "INSERT INTO messages (seq, first_seq, queue_id, receiver_client_id, message_id, envelope_bytes, envelope)",
        7,
        "",
    )
});

static ACKNOWLEDGE: LazyLock<MultiRow> = LazyLock::new(|| {
    // The server's clock may be set back between two of these times; none is ever before the one it follows.
    MultiRow::new(
        "WITH given (id, client, delivered, acknowledged) AS (",
        4,
        ") UPDATE message_metadata SET \
         delivered_time = COALESCE(delivered_time, MAX(sent_time, given.delivered)), \
         acknowledged_time = MAX(COALESCE(delivered_time, MAX(sent_time, given.delivered)), given.acknowledged) \
         FROM given WHERE message_id = given.id AND receiver_client_id = given.client \
         AND acknowledged_time IS NULL AND rejected_time IS NULL \
         RETURNING message_id, first_seq, copies",
    )
});

static DELIVERED: LazyLock<MultiRow> = LazyLock::new(|| {
    MultiRow::new(
        "WITH given (id, delivered) AS (",
        2,
        ") UPDATE message_metadata SET delivered_time = MAX(sent_time, given.delivered) \
         FROM given WHERE message_id = given.id AND delivered_time IS NULL",
    )
});

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
        Self { file, connection: Some(connection), log_used: false, forget_index: false }
    }

    async fn connection(&mut self) -> Result<SqliteConnection, Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.file.connect().await.map_err(error),
        }
    }

    #[cfg(test)]
    pub(super) fn test_connection(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().unwrap()
    }

    async fn forget(&mut self, connection: &mut SqliteConnection, before: Time) -> Result<bool, sqlx::Error> {
        if !self.forget_index {
            // Only servers that forget pay for it.
            sqlx::query(
                "CREATE INDEX IF NOT EXISTS message_metadata_finished ON message_metadata (sent_time) \
                 WHERE acknowledged_time IS NOT NULL OR rejected_time IS NOT NULL",
            )
            .execute(&mut *connection)
            .await?;
            self.forget_index = true;
        }
        let done = sqlx::query(FORGET).bind(before.to_string()).bind(FORGET_ROWS).execute(connection).await?;
        self.log_used |= done.rows_affected() > 0;
        Ok(i64::try_from(done.rows_affected()).is_ok_and(|rows| rows >= FORGET_ROWS))
    }

    /// Gives some free pages back; whether there are more.
    async fn shrink(&mut self, connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
        let spare = if self.file.has_room() { SPARE_PAGES } else { 0 };
        let free: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(&mut *connection).await?;
        if free <= spare {
            return Ok(false);
        }
        sqlx::query("PRAGMA incremental_vacuum(512)").execute(connection).await?;
        self.log_used = true;
        Ok(free - VACUUM_PAGES > spare)
    }
}

const FORGET: &str = "DELETE FROM message_metadata WHERE message_id IN (SELECT message_id FROM message_metadata \
                      WHERE (acknowledged_time IS NOT NULL OR rejected_time IS NOT NULL) AND sent_time < ? \
                      ORDER BY sent_time LIMIT ?)";

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
            Err(failure) => Err(CommitError::Unknown { outcomes, source: failure.into() }),
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
async fn write(connection: &mut SqliteConnection, transaction: &Transaction) -> Result<Outcomes, sqlx::Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let plan = PublishPlan::new(&transaction.publishes);
    let (commit, last): (i64, i64) = sqlx::query_as(
        "UPDATE server_state SET commit_number = commit_number + 1, last_seq = last_seq + ? \
         RETURNING commit_number, last_seq",
    )
    .bind(plan.copies)
    .fetch_one(&mut *connection)
    .await?;
    let mut outcomes = Outcomes { commit: CommitNumber(commit), ..Outcomes::default() };
    for given in &transaction.changes {
        outcomes.changes.push(change(connection, outcomes.commit, given).await?);
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
    for (text, piece) in INSERT_METADATA.pieces(&candidates) {
        let mut query = sqlx::query(text);
        for Candidate { publish, first, copies } in piece {
            query = query
                .bind(publish.envelope.message_id.as_str())
                .bind(publish.sender.as_str())
                .bind(publish.exchange.as_str())
                .bind(publish.routing_key.as_str())
                .bind(publish.sent_time.to_string())
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
    let ours: HashMap<&str, i64> =
        candidates.iter().map(|c| (c.publish.envelope.message_id.as_str(), c.first)).collect();
    let rows = sqlx::query(
        "SELECT message_id, first_seq, client_id, envelope_sha256, has_suite FROM message_metadata \
         WHERE message_id IN (SELECT value FROM json_each(?))",
    )
    .bind(json(ours.keys())?)
    .fetch_all(connection)
    .await?;
    let mut taken = HashMap::new();
    for row in rows {
        let id: String = row.try_get(0)?;
        if ours.get(id.as_str()) != Some(&row.try_get(1)?) {
            let holder =
                Taken { sender: row.try_get(2)?, digest: row.try_get(3)?, has_suite: row.try_get(4)? };
            taken.insert(id, holder);
        }
    }
    Ok(taken)
}

async fn acknowledge(connection: &mut SqliteConnection, acks: &[Ack]) -> Result<Vec<AckOutcome>, sqlx::Error> {
    let plan = AckPlan::new(acks);
    let mut outcomes = HashMap::with_capacity(acks.len());
    for round in &plan.rounds {
        let round: Vec<(usize, &Ack)> = round.iter().filter_map(|&at| Some((at, acks.get(at)?))).collect();
        acknowledge_round(connection, &round, &mut outcomes).await?;
    }
    Ok(plan.outcomes(outcomes, acks.len()))
}

/// Acks of which no two name the same message.
async fn acknowledge_round(
    connection: &mut SqliteConnection,
    round: &[(usize, &Ack)],
    outcomes: &mut HashMap<usize, AckOutcome>,
) -> Result<(), sqlx::Error> {
    let mut open: HashMap<&str, (usize, &Ack)> =
        round.iter().map(|&(at, ack)| (ack.message_id.as_str(), (at, ack))).collect();
    let mut owners = HashMap::with_capacity(round.len());
    for (text, piece) in ACKNOWLEDGE.pieces(round) {
        let mut query = sqlx::query(text);
        for (_, ack) in piece {
            query = query
                .bind(ack.message_id.as_str())
                .bind(ack.client_id.as_str())
                .bind(ack.delivered_time.unwrap_or(ack.time).to_string())
                .bind(ack.time.to_string());
        }
        for row in query.fetch_all(&mut *connection).await? {
            let (id, first, copies): (&str, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if let Some((at, _)) = open.remove(id) {
                outcomes.insert(at, AckOutcome::Done(Vec::new()));
                owners.extend(seqs(first, copies).map(|seq| (seq, at)));
            }
        }
    }
    if !owners.is_empty() {
        let removed = sqlx::query(
            "DELETE FROM messages WHERE seq IN (SELECT value FROM json_each(?)) RETURNING seq, queue_id",
        )
        .bind(json(owners.keys())?)
        .fetch_all(&mut *connection)
        .await?;
        for row in removed {
            let (seq, queue): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            if let Some(AckOutcome::Done(places)) = owners.get(&seq).and_then(|at| outcomes.get_mut(at)) {
                places.push((QueueId(queue), Seq(seq)));
            }
        }
    }
    if !open.is_empty() {
        let rows = sqlx::query(
            "SELECT message_id, receiver_client_id, acknowledged_time IS NOT NULL FROM message_metadata \
             WHERE message_id IN (SELECT value FROM json_each(?))",
        )
        .bind(json(open.keys())?)
        .fetch_all(connection)
        .await?;
        let mut fates = HashMap::new();
        for row in rows {
            let fate = Fate { receiver: row.try_get(1)?, acknowledged: row.try_get(2)? };
            fates.insert(row.try_get::<String, _>(0)?, fate);
        }
        outcomes.extend(open.into_iter().map(|(id, (at, ack))| (at, Fate::ack(fates.get(id), ack))));
    }
    Ok(())
}

/// A list as one parameter, for `json_each`.
fn json<T: serde::Serialize>(items: impl Iterator<Item = T>) -> Result<String, sqlx::Error> {
    serde_json::to_string(&items.collect::<Vec<_>>()).map_err(|error| sqlx::Error::Encode(error.into()))
}
