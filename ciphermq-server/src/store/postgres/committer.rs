//! Commits transactions in the session that holds the lock.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use ciphermq_protocol::ClientId;
use sqlx::{Connection as _, PgConnection};

use super::change::change;
use super::connect::SessionFactory;
use super::error::{decode, error, is_definite};
use super::removal;
use super::session::answer;
use super::sql::{FORGET, FORGET_REJECTED};
use super::unresolved::{Before, UnresolvedStep};
use super::write::{Advance, Position, existing, look_up, set_aside, write};
use crate::model::{
    Change, ChangeOutcome, CommitNumber, HeldBySender, Outcomes, Publish, Time, Transaction,
};
use crate::quota::Rooms;
use crate::store::batch::accept::Accepted;
use crate::store::batch::forget::{ForgetCursor, ForgetStep, RejectedStep, STEP};
use crate::store::batch::live::{Narrowed, narrow, queues_of};
use crate::store::batch::removal::LastDeletion;
use crate::store::batch::settlement::SettlementRows;
use crate::store::batch::tail_cache::TailCache;
use crate::store::{CommitError, Committer, Error, Maintained, Retention, Space, described};

/// The publishes to store, and those of them that go to fewer queues than they were meant for.
type Live<'a> = (Cow<'a, [Arc<Publish>]>, Narrowed);

pub(super) struct PostgresCommitter {
    connector: SessionFactory,
    /// The session that holds the lock. `None` when it is lost; [`Committer::reopen`] gets another.
    session: Option<PgConnection>,
    /// Nobody else moves it while the lock is held.
    position: Position,
    tail_cache: TailCache,
    forget_cursor: ForgetCursor,
    last_deletion: LastDeletion,
    /// What maintenance has changed and not reported yet.
    held: HeldBySender,
    /// A step of maintenance in whose commit the session was lost.
    unresolved: Option<UnresolvedStep>,
}

impl PostgresCommitter {
    pub(super) async fn new(
        connector: SessionFactory,
        mut session: PgConnection,
    ) -> Result<Self, Error> {
        let position = current_position(&mut session).await?;
        Ok(Self {
            connector,
            session: Some(session),
            position,
            tail_cache: TailCache::default(),
            forget_cursor: ForgetCursor::default(),
            last_deletion: LastDeletion::default(),
            held: HeldBySender::default(),
            unresolved: None,
        })
    }

    fn session(&mut self) -> Result<PgConnection, Error> {
        self.session
            .take()
            .ok_or_else(|| Error::Unavailable("the connection to PostgreSQL is lost".into()))
    }

    /// Leaves out queues that were deleted while messages waited for this commit.
    async fn live<'a>(
        &self,
        session: &mut PgConnection,
        publishes: &'a [Arc<Publish>],
    ) -> Result<Live<'a>, sqlx::Error> {
        let wanted = match self.last_deletion.is_recent() {
            true => queues_of(publishes),
            false => HashSet::new(),
        };
        if wanted.is_empty() {
            return Ok((Cow::Borrowed(publishes), Vec::new()));
        }
        let exist = answer(existing(session, &wanted)).await?;
        if exist.len() == wanted.len() {
            return Ok((Cow::Borrowed(publishes), Vec::new()));
        }
        let (publishes, narrowed) = narrow(publishes, &exist);
        Ok((Cow::Owned(publishes), narrowed))
    }

    /// Returns the error of a transaction of which nothing was committed. Keeps the session if it
    /// is still good.
    fn failed(&mut self, session: PgConnection, failure: sqlx::Error) -> CommitError {
        if did_nothing(&failure) {
            self.session = Some(session);
        }
        error(failure).into()
    }
}

#[async_trait]
impl Committer for PostgresCommitter {
    /// Runs one statement in most commits, and two if something has to be looked up: each is a
    /// round trip to PostgreSQL.
    async fn commit(&mut self, transaction: &Transaction) -> Result<Outcomes, CommitError> {
        // If this future is dropped half-way, the session is closed, and PostgreSQL rolls back.
        let mut session = self.session()?;
        let (mut settlement, unknown) = self.tail_cache.recall(transaction.message_ids());
        let ends = match answer(look_up(&mut session, unknown, &mut settlement)).await {
            Ok(ends) => ends,
            Err(failure) => return Err(self.failed(session, failure)),
        };
        if transaction.changes.iter().any(Change::comes_last) {
            self.last_deletion.note();
        }
        let (publishes, narrowed) = match self.live(&mut session, &transaction.publishes).await {
            Ok(live) => live,
            Err(failure) => return Err(self.failed(session, failure)),
        };
        let mut rooms = transaction.rooms.clone();
        let mut accepted = Accepted::new(&publishes, &settlement, &mut rooms);
        accepted.assign_seqs(self.position.next_seq());
        let position = self.position.after(accepted.copies);
        for batch in &accepted.batches {
            if let Err(failure) = settlement.add(batch.row()) {
                return Err(self.failed(session, decode(failure)));
            }
        }
        let mut outcomes = Outcomes {
            commit: position.commit(),
            narrowed,
            ..Outcomes::default()
        };
        settlement.apply(transaction, &mut outcomes);
        let advance = Advance {
            from: self.position,
            to: position,
        };
        let entries = settlement.rows();
        accepted.add_held(&mut outcomes.held);
        entries.add_held(&mut outcomes.held);

        let committed = if needs_steps(transaction, &entries, self.position) {
            commit_in_steps(
                &mut session,
                transaction,
                advance,
                &accepted,
                &entries,
                (&mut outcomes, &mut rooms),
            )
            .await
        } else {
            answer(write(&mut session, advance, &accepted.batches, &entries))
                .await
                .map_err(Failure::Commit)
        };
        outcomes.publishes = accepted.outcomes;
        match committed {
            Ok(()) => {
                self.session = Some(session);
                self.position = position;
                self.tail_cache.keep(settlement, ends);
                Ok(outcomes)
            }
            Err(Failure::Commit(failure)) if !did_nothing(&failure) => Err(CommitError::Unknown {
                outcomes,
                source: failure.into(),
            }),
            Err(Failure::Step(failure) | Failure::Commit(failure)) => {
                Err(self.failed(session, failure))
            }
        }
    }

    async fn reopen(&mut self) -> Result<CommitNumber, Error> {
        self.session = None;
        self.tail_cache.clear();
        self.last_deletion.prolong();
        let mut session = self.connector.reconnect().await?;
        self.position = current_position(&mut session).await?;
        if let Some(step) = &self.unresolved
            && answer(step.is_committed(&mut session))
                .await
                .map_err(error)?
        {
            self.held.extend(step.changes.clone());
        }
        self.unresolved = None;
        self.session = Some(session);
        Ok(self.position.commit())
    }

    /// The disk is PostgreSQL's own affair; it reports when it is full.
    fn space(&self) -> Space {
        Space::Enough
    }

    async fn maintain(&mut self, retention: &Retention) -> Result<Maintained, Error> {
        // If this future is dropped half-way, the session is closed, and PostgreSQL rolls back.
        let mut session = self.session()?;
        let removal = removal::step(&mut session, self.position, &mut self.unresolved);
        let removed = answer(removal).await.map_err(error)?;
        let mut more = removed.is_some();
        if let Some(changes) = removed {
            self.held.extend(changes);
            self.tail_cache.clear();
        }
        let mut rejected = RejectedStep::default();
        for (sender, before) in &retention.rejected_before {
            let Some(limit) = rejected.limit() else { break };
            let forget = forget_rejected(
                &mut session,
                (sender, *before, limit),
                &mut rejected,
                &mut self.unresolved,
            );
            self.held.extend(answer(forget).await.map_err(error)?);
        }
        more |= rejected.limit().is_none();
        if let Some(before) = retention.metadata_before {
            more |= self.forget(&mut session, before).await?;
        }
        if !more {
            self.tail_cache.shrink();
        }
        self.session = Some(session);
        Ok(Maintained {
            more,
            held: std::mem::take(&mut self.held),
            removed: rejected.into_removed(),
        })
    }

    async fn close(self: Box<Self>) {
        if let Some(session) = self.session {
            // The lock is released with the session, however that ends.
            let _ = answer(session.close()).await;
        }
    }
}

impl PostgresCommitter {
    /// Forgets old batches. Returns whether there is more to do.
    async fn forget(&mut self, session: &mut PgConnection, before: Time) -> Result<bool, Error> {
        let forget = sqlx::query_as(FORGET)
            .bind(before.to_string())
            .bind(self.forget_cursor.after())
            .bind(STEP)
            .fetch_one(session);
        let (last, batches, old, forgotten): (Option<i64>, i64, i64, i64) =
            answer(forget).await.map_err(error)?;
        if forgotten > 0 {
            self.tail_cache.clear();
        }
        let looked = ForgetStep { last, batches, old };
        Ok(self.forget_cursor.advance(looked))
    }
}

/// Forgets rejected messages of a sender that are older than a time, at most so many. Returns what
/// the sender holds less then.
///
/// While that is committed, it is in `unresolved`.
async fn forget_rejected(
    session: &mut PgConnection,
    (sender, before, limit): (&ClientId, Time, i64),
    rejected: &mut RejectedStep,
    unresolved: &mut Option<UnresolvedStep>,
) -> Result<HeldBySender, sqlx::Error> {
    // Rolled back when it is dropped.
    let mut transaction = session.begin().await?;
    let gone: Vec<(String, i64, String, String)> = sqlx::query_as(FORGET_REJECTED)
        .bind(sender.as_str())
        .bind(before.to_string())
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await?;
    let mut changes = HeldBySender::default();
    let Some((_, _, message_id, time)) = gone.first().cloned() else {
        return Ok(changes);
    };
    let sizes = gone
        .into_iter()
        .map(|(receiver, bytes, ..)| (receiver, bytes));
    rejected.removed(sender, sizes.collect(), &mut changes);
    let step = unresolved.insert(UnresolvedStep {
        changes,
        row: Before::Rejected { message_id, time },
    });
    transaction.commit().await?;
    let changes = std::mem::take(&mut step.changes);
    *unresolved = None;
    Ok(changes)
}

/// Returns the database's position, for certain.
async fn current_position(session: &mut PgConnection) -> Result<Position, Error> {
    match answer(Position::read_durable(session)).await {
        Err(sqlx::Error::Io(silent)) if silent.kind() == std::io::ErrorKind::TimedOut => {
            let what = "PostgreSQL does not finish a commit; if a synchronous standby is away, \
                        bring it back, or take it \
                        out of synchronous_standby_names";
            Err(Error::Unavailable(described(what, silent)))
        }
        position => position.map_err(error),
    }
}

/// Whether it is certain that a statement did nothing, and the session is as it was.
fn did_nothing(failure: &sqlx::Error) -> bool {
    is_definite(failure) || matches!(failure, sqlx::Error::Encode(_))
}

/// Whether a transaction needs more than the one statement: for rare changes, or because it
/// finishes a batch of its own.
fn needs_steps(transaction: &Transaction, entries: &SettlementRows<'_>, before: Position) -> bool {
    let finishes_its_own = || {
        entries
            .finished
            .iter()
            .any(|batch| batch.first_seq >= before.next_seq())
    };
    !transaction.changes.is_empty() || !entries.rejected.is_empty() || finishes_its_own()
}

/// The step of a commit that failed.
enum Failure {
    /// A step before the commit: nothing is committed.
    Step(sqlx::Error),
    /// The commit itself.
    Commit(sqlx::Error),
}

/// Commits step by step, so that each step sees what the ones before have written.
async fn commit_in_steps(
    session: &mut PgConnection,
    transaction: &Transaction,
    advance: Advance,
    accepted: &Accepted<'_>,
    entries: &SettlementRows<'_>,
    (outcomes, rooms): (&mut Outcomes, &mut Rooms),
) -> Result<(), Failure> {
    let steps = async {
        // Rolled back when it is dropped.
        let mut steps = session.begin().await?;
        for given in &transaction.changes {
            let changed = match given.comes_last() {
                true => ChangeOutcome::Done,
                false => change(&mut steps, advance.to.commit(), given, rooms).await?,
            };
            outcomes.changes.push(changed);
        }
        write(
            &mut steps,
            advance,
            &accepted.batches,
            &SettlementRows::default(),
        )
        .await?;
        set_aside(&mut steps, entries.rejected, &mut outcomes.held).await?;
        let stay = Advance {
            from: advance.to,
            ..advance
        };
        write(&mut steps, stay, &[], entries).await?;
        for (outcome, given) in outcomes.changes.iter_mut().zip(&transaction.changes) {
            if given.comes_last() {
                *outcome = change(&mut steps, advance.to.commit(), given, rooms).await?;
            }
        }
        Ok(steps)
    };
    let steps = answer(steps).await.map_err(Failure::Step)?;
    answer(steps.commit()).await.map_err(Failure::Commit)
}
