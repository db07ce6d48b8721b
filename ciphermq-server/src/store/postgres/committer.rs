//! One transaction.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection as _, PgConnection, Row as _};

use super::change::{change, reject};
use super::connect::Connector;
use super::error::{error, is_definite};
use crate::store::model::{
    Ack, AckOutcome, CommitNumber, Outcomes, PublishOutcome, QueueId, Seq, Time, Transaction,
};
use crate::store::plan::{AckPlan, Candidate, CopyRow, Fate, PublishPlan, Taken, seqs};
use crate::store::{CommitError, Committer, Error};

/// How long PostgreSQL may take to answer. A connection that is silent for longer is given up: the machine
/// at its other end may have gone without a word.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Rows that are forgotten in one step.
const FORGET_ROWS: i64 = 1000;

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
            // Only servers that forget pay for it.
            sqlx::query(
                "CREATE INDEX IF NOT EXISTS message_metadata_finished ON message_metadata (sent_time) \
                 WHERE acknowledged_time IS NOT NULL OR rejected_time IS NOT NULL",
            )
            .execute(&mut session)
            .await
            .map_err(error)?;
            self.forget_index = true;
        }
        let done = sqlx::query(FORGET)
            .bind(before.to_string())
            .bind(FORGET_ROWS)
            .execute(&mut session)
            .await
            .map_err(error)?;
        self.session = Some(session);
        Ok(i64::try_from(done.rows_affected()).is_ok_and(|rows| rows >= FORGET_ROWS))
    }

    async fn close(self: Box<Self>) {
        if let Some(session) = self.session {
            // The lock goes with the session, however that ends.
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, session.close()).await;
        }
    }
}

const FORGET: &str = "DELETE FROM message_metadata WHERE message_id = ANY(ARRAY(SELECT message_id \
                      FROM message_metadata \
                      WHERE (acknowledged_time IS NOT NULL OR rejected_time IS NOT NULL) AND sent_time < $1 \
                      ORDER BY sent_time LIMIT $2))";

/// Everything up to the commit itself.
async fn write(session: &mut PgConnection, transaction: &Transaction) -> Result<Outcomes, sqlx::Error> {
    sqlx::raw_sql("BEGIN").execute(&mut *session).await?;
    let plan = PublishPlan::new(&transaction.publishes);
    let (commit, last): (i64, i64) = sqlx::query_as(
        "UPDATE server_state SET commit_number = commit_number + 1, last_seq = last_seq + $1 \
         RETURNING commit_number, last_seq",
    )
    .bind(plan.copies)
    .fetch_one(&mut *session)
    .await?;
    let mut outcomes = Outcomes {
        commit: CommitNumber(commit),
        ..Outcomes::default()
    };
    for given in &transaction.changes {
        outcomes
            .changes
            .push(change(session, outcomes.commit, given).await?);
    }
    if !transaction.publishes.is_empty() {
        outcomes.publishes = publish(session, &plan, last - plan.copies + 1).await?;
    }
    if !transaction.acks.is_empty() {
        outcomes.acks = acknowledge(session, &transaction.acks).await?;
    }
    for rejection in &transaction.rejections {
        outcomes.rejections.push(reject(session, rejection).await?);
    }
    if !transaction.deliveries.is_empty() {
        sqlx::query(
            "UPDATE message_metadata m SET delivered_time = GREATEST(m.sent_time, given.delivered) \
             FROM unnest($1::text[], $2::text[]) AS given (id, delivered) \
             WHERE m.message_id = given.id AND m.delivered_time IS NULL",
        )
        .bind(
            transaction
                .deliveries
                .iter()
                .map(|(id, _)| id.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            transaction
                .deliveries
                .iter()
                .map(|(_, time)| time.to_string())
                .collect::<Vec<_>>(),
        )
        .execute(session)
        .await?;
    }
    Ok(outcomes)
}

async fn publish(
    session: &mut PgConnection,
    plan: &PublishPlan<'_>,
    next: i64,
) -> Result<Vec<PublishOutcome>, sqlx::Error> {
    let mut candidates = plan.candidates(next);
    let inserted = insert_metadata(session, &candidates).await?;
    let mut taken = HashMap::new();
    if usize::try_from(inserted).is_ok_and(|inserted| inserted < candidates.len()) {
        taken = lookup_taken(session, &candidates).await?;
        candidates.retain(|candidate| !taken.contains_key(candidate.publish.envelope.message_id.as_str()));
    }
    let rows: Vec<CopyRow<'_>> = candidates.iter().flat_map(Candidate::rows).collect();
    sqlx::query(
        "INSERT INTO messages \
         (seq, first_seq, queue_id, receiver_client_id, message_id, envelope_bytes, envelope) \
         SELECT * FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::text[], $5::text[], $6::int8[], $7::bytea[])",
    )
    .bind(rows.iter().map(|row| row.seq).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.first).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.queue.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.publish.envelope.receiver_client_id.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.publish.envelope.message_id.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.bytes).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.envelope).collect::<Vec<_>>())
    .execute(session)
    .await?;
    Ok(plan.outcomes(next, &taken))
}

async fn insert_metadata(
    session: &mut PgConnection,
    candidates: &[Candidate<'_>],
) -> Result<u64, sqlx::Error> {
    let texts = |text: fn(&Candidate<'_>) -> String| candidates.iter().map(text).collect::<Vec<_>>();
    let done = sqlx::query(
        "INSERT INTO message_metadata (message_id, client_id, exchange_name, routing_key, sent_time, \
         receiver_client_id, envelope_sha256, has_suite, first_seq, copies) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], \
         $8::bool[], $9::int8[], $10::int8[]) ON CONFLICT (message_id) DO NOTHING",
    )
    .bind(candidates.iter().map(|c| c.publish.envelope.message_id.as_str()).collect::<Vec<_>>())
    .bind(candidates.iter().map(|c| c.publish.sender.as_str()).collect::<Vec<_>>())
    .bind(candidates.iter().map(|c| c.publish.exchange.as_str()).collect::<Vec<_>>())
    .bind(candidates.iter().map(|c| c.publish.routing_key.as_str()).collect::<Vec<_>>())
    .bind(texts(|c| c.publish.sent_time.to_string()))
    .bind(candidates.iter().map(|c| c.publish.envelope.receiver_client_id.as_str()).collect::<Vec<_>>())
    .bind(candidates.iter().map(|c| c.publish.digest.as_slice()).collect::<Vec<_>>())
    .bind(candidates.iter().map(|c| c.publish.envelope.has_suite).collect::<Vec<_>>())
    .bind(candidates.iter().map(|c| c.first).collect::<Vec<_>>())
    .bind(candidates.iter().map(|c| c.copies).collect::<Vec<_>>())
    .execute(session)
    .await?;
    Ok(done.rows_affected())
}

/// Those of the candidates whose ids were taken before this transaction.
async fn lookup_taken(
    session: &mut PgConnection,
    candidates: &[Candidate<'_>],
) -> Result<HashMap<String, Taken>, sqlx::Error> {
    let ours: HashMap<&str, i64> = candidates
        .iter()
        .map(|c| (c.publish.envelope.message_id.as_str(), c.first))
        .collect();
    let rows = sqlx::query(
        "SELECT message_id, first_seq, client_id, envelope_sha256, has_suite FROM message_metadata \
         WHERE message_id = ANY($1)",
    )
    .bind(ours.keys().copied().collect::<Vec<_>>())
    .fetch_all(session)
    .await?;
    let mut taken = HashMap::new();
    for row in rows {
        let id: String = row.try_get(0)?;
        // Rows of older servers have no sequence number.
        let first: Option<i64> = row.try_get(1)?;
        if ours.get(id.as_str()).copied() != first {
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

async fn acknowledge(session: &mut PgConnection, acks: &[Ack]) -> Result<Vec<AckOutcome>, sqlx::Error> {
    let plan = AckPlan::new(acks);
    let mut outcomes = HashMap::with_capacity(acks.len());
    for round in &plan.rounds {
        let round: Vec<(usize, &Ack)> = round.iter().filter_map(|&at| Some((at, acks.get(at)?))).collect();
        acknowledge_round(session, &round, &mut outcomes).await?;
    }
    Ok(plan.outcomes(outcomes, acks.len()))
}

/// Acks of which no two name the same message.
async fn acknowledge_round(
    session: &mut PgConnection,
    round: &[(usize, &Ack)],
    outcomes: &mut HashMap<usize, AckOutcome>,
) -> Result<(), sqlx::Error> {
    let mut open: HashMap<&str, (usize, &Ack)> = round
        .iter()
        .map(|&(at, ack)| (ack.message_id.as_str(), (at, ack)))
        .collect();
    // The server's clock may be set back between two of these times; none is ever before the one it follows.
    let done = sqlx::query(
        "UPDATE message_metadata m SET \
         delivered_time = COALESCE(m.delivered_time, GREATEST(m.sent_time, given.delivered)), \
         acknowledged_time = \
         GREATEST(COALESCE(m.delivered_time, GREATEST(m.sent_time, given.delivered)), given.acknowledged) \
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS given (id, client, delivered, acknowledged) \
         WHERE m.message_id = given.id AND m.receiver_client_id = given.client \
         AND m.acknowledged_time IS NULL AND m.rejected_time IS NULL \
         RETURNING m.message_id, m.first_seq, m.copies",
    )
    .bind(round.iter().map(|(_, ack)| ack.message_id.as_str()).collect::<Vec<_>>())
    .bind(round.iter().map(|(_, ack)| ack.client_id.as_str()).collect::<Vec<_>>())
    .bind(round.iter().map(|(_, ack)| ack.delivered_time.unwrap_or(ack.time).to_string()).collect::<Vec<_>>())
    .bind(round.iter().map(|(_, ack)| ack.time.to_string()).collect::<Vec<_>>())
    .fetch_all(&mut *session)
    .await?;
    let mut owners = HashMap::with_capacity(round.len());
    for row in done {
        let (id, first, copies): (&str, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if let Some((at, _)) = open.remove(id) {
            outcomes.insert(at, AckOutcome::Done(Vec::new()));
            owners.extend(seqs(first, copies).map(|seq| (seq, at)));
        }
    }
    if !owners.is_empty() {
        let removed = sqlx::query("DELETE FROM messages WHERE seq = ANY($1) RETURNING seq, queue_id")
            .bind(owners.keys().copied().collect::<Vec<_>>())
            .fetch_all(&mut *session)
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
             WHERE message_id = ANY($1)",
        )
        .bind(open.keys().copied().collect::<Vec<_>>())
        .fetch_all(session)
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
                .map(|(id, (at, ack))| (at, Fate::ack(fates.get(id), ack))),
        );
    }
    Ok(())
}
