//! Commits transactions on the one connection that writes.

use std::sync::Arc;

use async_trait::async_trait;
use ciphermq_protocol::ClientId;
use rusqlite::{Connection, params};

use super::error::{is_full, write_error};
use super::file::DatabaseFile;
use super::removal;
use super::sql::{FORGET_BATCHES, FORGET_DISPOSITIONS, FORGET_REJECTED, FORGETTABLE};
use super::thread::DatabaseThread;
use super::write::{SessionCache, WrittenTransaction, write};
use crate::model::{Change, CommitNumber, HeldBySender, Outcomes, Time, Transaction};
use crate::store::batch::forget::{ForgetCursor, ForgetStep, RejectedStep, STEP};
use crate::store::batch::removal::LastDeletion;
use crate::store::{CommitError, Committer, Error, Maintained, Retention, Space};

/// The number of pages that one step gives back to the disk.
const VACUUM_PAGES: i64 = 256;
/// The number of free pages that are kept for messages to come: giving them back and taking them
/// anew costs twice.
const SPARE_PAGES: i64 = 2048;

pub(super) struct SqliteCommitter {
    file: Arc<DatabaseFile>,
    thread: DatabaseThread,
    /// `None` after an error that may have left it in an unknown state: the next commit opens
    /// another.
    session: Option<WriteSession>,
    /// Whether something was committed since the log was last emptied.
    log_used: bool,
    forget_cursor: ForgetCursor,
    last_deletion: LastDeletion,
    /// What maintenance has changed and not reported yet.
    held: HeldBySender,
}

/// A connection, and its cache of the database.
struct WriteSession {
    connection: Connection,
    cache: SessionCache,
}

impl WriteSession {
    fn open(file: &DatabaseFile) -> rusqlite::Result<Self> {
        let connection = file.writing()?;
        Ok(Self {
            cache: SessionCache::new(&connection)?,
            connection,
        })
    }
}

impl SqliteCommitter {
    /// Opens the connection. What is found in the database is durable when this returns.
    pub(super) async fn open(file: Arc<DatabaseFile>) -> Result<Self, Error> {
        let thread = DatabaseThread::start()?;
        let opened = Arc::clone(&file);
        let session = thread.run(move || open(&opened)).await??;
        Ok(Self {
            file,
            thread,
            session: Some(session),
            log_used: false,
            forget_cursor: ForgetCursor::default(),
            last_deletion: LastDeletion::default(),
            held: HeldBySender::default(),
        })
    }

    async fn session(&mut self) -> Result<WriteSession, Error> {
        match self.session.take() {
            Some(session) => Ok(session),
            None => {
                let file = Arc::clone(&self.file);
                self.thread
                    .run(move || WriteSession::open(&file).map_err(write_error))
                    .await?
            }
        }
    }
}

#[async_trait]
impl Committer for SqliteCommitter {
    async fn commit(&mut self, transaction: &Transaction) -> Result<Outcomes, CommitError> {
        let session = self.session().await?;
        self.log_used = true;
        // Cheap: the messages are shared.
        let transaction = transaction.clone();
        if transaction.changes.iter().any(Change::comes_last) {
            self.last_deletion.note();
        }
        let checks_queues = self.last_deletion.is_recent();
        let file = Arc::clone(&self.file);
        let work = move || commit(&file, session, &transaction, checks_queues);
        let (session, outcomes) = self.thread.run(work).await?;
        self.session = session;
        outcomes
    }

    async fn reopen(&mut self) -> Result<CommitNumber, Error> {
        self.last_deletion.prolong();
        let (old, file) = (self.session.take(), Arc::clone(&self.file));
        let work = move || {
            // Errors of closing it do not matter: it is given up because of its errors.
            drop(old);
            let session = open(&file)?;
            let number = session
                .connection
                .query_row("SELECT commit_number FROM server_state", [], |row| {
                    row.get(0)
                })
                .map_err(write_error)?;
            Ok::<_, Error>((session, number))
        };
        let (session, number) = self.thread.run(work).await??;
        self.session = Some(session);
        Ok(CommitNumber(number))
    }

    fn space(&self) -> Space {
        self.file.space()
    }

    async fn maintain(&mut self, retention: &Retention) -> Result<Maintained, Error> {
        let mut session = self.session().await?;
        let mut step = Maintenance {
            spare_pages: match self.file.space() {
                Space::None => 0,
                Space::Short | Space::Enough => SPARE_PAGES,
            },
            log_used: self.log_used,
            forget_cursor: self.forget_cursor,
            held: HeldBySender::default(),
            removed: Vec::new(),
        };
        let retention = retention.clone();
        let file = Arc::clone(&self.file);
        let work = move || {
            let more = step.run(&file, &mut session, &retention);
            (session, step, more)
        };
        let (session, step, more) = self.thread.run(work).await?;
        self.log_used = step.log_used;
        self.forget_cursor = step.forget_cursor;
        // Also after an error: a part of it may be committed.
        self.held.extend(step.held);
        let more = more?;
        self.session = Some(session);
        Ok(Maintained {
            more,
            held: std::mem::take(&mut self.held),
            removed: step.removed,
        })
    }

    async fn close(self: Box<Self>) {
        if let Some(session) = self.session {
            // If the log is not emptied now, the next start empties it.
            let file = self.file;
            let _ = self
                .thread
                .run(move || file.empty_log_if_unread(&session.connection))
                .await;
        }
    }
}

fn open(file: &DatabaseFile) -> Result<WriteSession, Error> {
    let session = WriteSession::open(file).map_err(write_error)?;
    file.empty_log(&session.connection)?;
    file.sync_names()?;
    file.set_space_aside();
    Ok(session)
}

/// Commits, and returns the session if it is still good.
fn commit(
    file: &DatabaseFile,
    mut session: WriteSession,
    transaction: &Transaction,
    checks_queues: bool,
) -> (Option<WriteSession>, Result<Outcomes, CommitError>) {
    let WriteSession { connection, cache } = &mut session;
    let WrittenTransaction {
        outcomes,
        settlement,
        ends,
    } = match write(connection, cache, transaction, checks_queues) {
        Ok(written) => written,
        Err(failure) => {
            let is_good = connection.execute_batch("ROLLBACK").is_ok();
            if is_good && is_full(&failure) {
                file.make_room(connection);
            }
            return (is_good.then_some(session), Err(write_error(failure).into()));
        }
    };
    match connection.execute_batch("COMMIT") {
        Ok(()) => {
            cache.batches.keep(settlement, ends);
            (Some(session), Ok(outcomes))
        }
        // There was no room for the log's last page, which would complete the commit.
        Err(failure) if is_full(&failure) => {
            file.make_room(connection);
            (None, Err(write_error(failure).into()))
        }
        // The sync failed: after a crash, what is in the log may be found there, or not.
        Err(failure) => {
            let source = failure.into();
            (None, Err(CommitError::Unknown { outcomes, source }))
        }
    }
}

/// A step of maintenance.
struct Maintenance {
    spare_pages: i64,
    log_used: bool,
    forget_cursor: ForgetCursor,
    held: HeldBySender,
    removed: Vec<(ClientId, u64)>,
}

impl Maintenance {
    /// Runs the step. Returns whether there is more to do.
    fn run(
        &mut self,
        file: &DatabaseFile,
        session: &mut WriteSession,
        retention: &Retention,
    ) -> Result<bool, Error> {
        let WriteSession { connection, cache } = session;
        let mut more = removal::step(connection, &mut self.held).map_err(write_error)?;
        if more {
            self.log_used = true;
            cache.batches.clear();
        }
        let mut rejected = RejectedStep::default();
        for (sender, before) in &retention.rejected_before {
            let Some(limit) = rejected.limit() else { break };
            let gone = forget_rejected(connection, sender, *before, limit).map_err(write_error)?;
            rejected.removed(sender, gone, &mut self.held);
        }
        self.log_used |= !rejected.is_empty();
        more |= rejected.limit().is_none();
        self.removed = rejected.into_removed();
        if let Some(before) = retention.metadata_before {
            let (looked, forgotten) = self.forget(connection, before).map_err(write_error)?;
            if forgotten > 0 {
                cache.batches.clear();
            }
            more |= self.forget_cursor.advance(looked);
        }
        more |= self.shrink(connection).map_err(write_error)?;
        if !more && self.log_used {
            // While a backup reads, the log grows. It is emptied a minute later, or after the next
            // commits.
            self.log_used = !file.empty_log_if_unread(connection)?;
            file.set_space_aside();
            // Nothing waits: release the memory of the pages that were read and written.
            cache.batches.shrink();
            connection
                .execute_batch("PRAGMA shrink_memory")
                .map_err(write_error)?;
        }
        Ok(more)
    }

    /// Forgets old batches. Returns what it examined, and how many batches it forgot.
    fn forget(
        &mut self,
        connection: &Connection,
        before: Time,
    ) -> rusqlite::Result<(ForgetStep, usize)> {
        let transaction = connection.unchecked_transaction()?;
        let asked = (before.to_string(), self.forget_cursor.after(), STEP);
        let (batches, looked): (String, _) = transaction.query_row(FORGETTABLE, asked, |row| {
            let looked = ForgetStep {
                last: row.get(1)?,
                batches: row.get(2)?,
                old: row.get(3)?,
            };
            Ok((row.get(0)?, looked))
        })?;
        transaction.execute(FORGET_DISPOSITIONS, [&batches])?;
        let forgotten = transaction.execute(FORGET_BATCHES, [&batches])?;
        transaction.commit()?;
        self.log_used |= forgotten > 0;
        Ok((looked, forgotten))
    }

    /// Gives some free pages back. Returns whether there are more.
    fn shrink(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let free: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if free <= self.spare_pages {
            return Ok(false);
        }
        // The pragma gives back one page for each row that is fetched.
        let mut statement = connection.prepare_cached("PRAGMA incremental_vacuum(256)")?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        self.log_used = true;
        Ok(free - VACUUM_PAGES > self.spare_pages)
    }
}

/// Removes rejected messages of a sender. Returns the receiver and the size of each.
fn forget_rejected(
    connection: &Connection,
    sender: &ClientId,
    before: Time,
    limit: i64,
) -> rusqlite::Result<Vec<(String, i64)>> {
    connection
        .prepare_cached(FORGET_REJECTED)?
        .query_map(params![sender.as_str(), before.to_string(), limit], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect()
}

#[cfg(test)]
mod tests;
