//! One transaction.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection as _, PgConnection};

use super::change::change;
use super::connect::Connector;
use super::error::{decode, error, is_definite};
use super::sql::{FORGET, FORGET_INDEX};
use super::write::{Position, look_up, set_aside, write};
use crate::store::batch::accept::Accepted;
use crate::store::batch::ledger::Entries;
use crate::store::batch::recent::Recent;
use crate::store::model::{CommitNumber, Outcomes, Time, Transaction};
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
    /// Nobody else moves it while the lock is held.
    position: Position,
    recent: Recent,
    /// Whether the index that finds old metadata is known to be there.
    forget_index: bool,
}

impl PostgresCommitter {
    pub(super) async fn new(connector: Connector, mut session: PgConnection) -> Result<Self, Error> {
        let position = Position::read(&mut session).await.map_err(error)?;
        Ok(Self {
            connector,
            session: Some(session),
            position,
            recent: Recent::default(),
            forget_index: false,
        })
    }

    fn session(&mut self) -> Result<PgConnection, Error> {
        self.session
            .take()
            .ok_or_else(|| Error::Unavailable("the connection to PostgreSQL is lost".into()))
    }

    /// Nothing was committed. Keeps the session if it is still good.
    fn failed(&mut self, session: PgConnection, failure: sqlx::Error) -> CommitError {
        if says_no(&failure) {
            self.session = Some(session);
        }
        error(failure).into()
    }
}

#[async_trait]
impl Committer for PostgresCommitter {
    /// One statement is all there is in most commits, and two if something has to be looked up: each is a way to
    /// PostgreSQL and back.
    async fn commit(&mut self, transaction: &Transaction) -> Result<Outcomes, CommitError> {
        // Dropped half-way, the session is closed, and PostgreSQL rolls back.
        let mut session = self.session()?;
        let (mut ledger, unknown) = self.recent.recall(transaction.message_ids());
        let ends = match answer(look_up(&mut session, unknown, &mut ledger)).await {
            Ok(ends) => ends,
            Err(failure) => return Err(self.failed(session, failure)),
        };
        let mut accepted = Accepted::new(&transaction.publishes, &ledger);
        accepted.number(self.position.next_seq());
        let position = self.position.after(accepted.copies);
        for batch in &accepted.batches {
            if let Err(failure) = ledger.add(batch.row()) {
                return Err(self.failed(session, decode(failure)));
            }
        }
        let mut outcomes = Outcomes {
            commit: position.commit(),
            ..Outcomes::default()
        };
        ledger.apply(transaction, &mut outcomes);
        let moves = (self.position, position);
        let entries = ledger.entries();

        let committed = if is_in_steps(transaction, &entries, self.position) {
            commit_in_steps(
                &mut session,
                transaction,
                moves,
                &accepted,
                &entries,
                &mut outcomes,
            )
            .await
        } else {
            answer(write(&mut session, moves, &accepted.batches, &entries))
                .await
                .map_err(Failure::Commit)
        };
        outcomes.publishes = accepted.outcomes;
        match committed {
            Ok(()) => {
                self.session = Some(session);
                self.position = position;
                self.recent.keep(ledger, ends);
                Ok(outcomes)
            }
            Err(Failure::Commit(failure)) if !says_no(&failure) => Err(CommitError::Unknown {
                outcomes,
                source: failure.into(),
            }),
            Err(Failure::Step(failure) | Failure::Commit(failure)) => Err(self.failed(session, failure)),
        }
    }

    async fn reopen(&mut self) -> Result<CommitNumber, Error> {
        self.session = None;
        self.recent.clear();
        let mut session = self.connector.reconnect().await?;
        self.position = Position::read(&mut session).await.map_err(error)?;
        self.session = Some(session);
        Ok(self.position.commit())
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
        if done.rows_affected() > 0 {
            self.recent.clear();
        }
        Ok(i64::try_from(done.rows_affected()).is_ok_and(|rows| rows >= FORGET_STEP))
    }

    async fn close(self: Box<Self>) {
        if let Some(session) = self.session {
            // The lock goes with the session, however that ends.
            let _ = answer(session.close()).await;
        }
    }
}

/// Waits for an answer, but not for ever.
async fn answer<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(ANSWER_TIMEOUT, work).await {
        Ok(answered) => answered,
        Err(silent) => Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, silent))),
    }
}

/// Whether it is certain that a statement did nothing, and the session is as it was.
fn says_no(failure: &sqlx::Error) -> bool {
    is_definite(failure) || matches!(failure, sqlx::Error::Encode(_))
}

/// Whether a transaction needs more than the one statement: for what is rare, or because a batch of its own is
/// finished in it.
fn is_in_steps(transaction: &Transaction, entries: &Entries<'_>, before: Position) -> bool {
    let finishes_its_own = || {
        entries
            .finished
            .iter()
            .any(|batch| batch.first_seq >= before.next_seq())
    };
    !transaction.changes.is_empty() || !entries.rejected.is_empty() || finishes_its_own()
}

/// What failed.
enum Failure {
    /// A step before the commit: nothing is committed.
    Step(sqlx::Error),
    /// The commit itself.
    Commit(sqlx::Error),
}

/// Commits step by step, each where it sees what the ones before have written.
async fn commit_in_steps(
    session: &mut PgConnection,
    transaction: &Transaction,
    (before, after): (Position, Position),
    accepted: &Accepted<'_>,
    entries: &Entries<'_>,
    outcomes: &mut Outcomes,
) -> Result<(), Failure> {
    let steps = async {
        // Dropped, it is rolled back.
        let mut steps = session.begin().await?;
        for given in &transaction.changes {
            let changed = change(&mut steps, after.commit(), given).await?;
            outcomes.changes.push(changed);
        }
        write(
            &mut steps,
            (before, after),
            &accepted.batches,
            &Entries::default(),
        )
        .await?;
        set_aside(&mut steps, entries.rejected).await?;
        write(&mut steps, (after, after), &[], entries).await?;
        Ok(steps)
    };
    let steps = answer(steps).await.map_err(Failure::Step)?;
    answer(steps.commit()).await.map_err(Failure::Commit)
}
