//! One transaction.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;

use super::error::{is_full, write_error};
use super::file::{DatabaseFile, checkpoint};
use super::sql::{FORGET_BATCHES, FORGET_FATES, FORGET_INDEX, FORGETTABLE};
use super::thread::WriterThread;
use super::write::write;
use crate::store::model::{CommitNumber, Outcomes, Time, Transaction};
use crate::store::{CommitError, Committer, Error};

/// What is given back to the disk in one step, in pages.
const VACUUM_PAGES: i64 = 256;
/// Free pages that are kept for the messages to come: giving them back and taking them anew costs twice.
const SPARE_PAGES: i64 = 2048;
/// Batches that are forgotten in one step.
const FORGET_STEP: i64 = 100;

pub(super) struct SqliteCommitter {
    file: Arc<DatabaseFile>,
    thread: WriterThread,
    /// `None` after an error that may have left it in an unknown state: the next commit opens another.
    connection: Option<Connection>,
    /// Whether something was committed since the log was last emptied.
    log_used: bool,
    /// Whether the index that finds old metadata is known to be there.
    forget_index: bool,
}

impl SqliteCommitter {
    /// Opens the connection; what is found in the database is durable from now on.
    pub(super) async fn open(file: Arc<DatabaseFile>) -> Result<Self, Error> {
        let thread = WriterThread::start()?;
        let opened = Arc::clone(&file);
        let connection = thread.run(move || open(&opened)).await??;
        Ok(Self {
            file,
            thread,
            connection: Some(connection),
            log_used: false,
            forget_index: false,
        })
    }

    async fn connection(&mut self) -> Result<Connection, Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => {
                let file = Arc::clone(&self.file);
                self.thread
                    .run(move || file.writing().map_err(write_error))
                    .await?
            }
        }
    }
}

#[async_trait]
impl Committer for SqliteCommitter {
    async fn commit(&mut self, transaction: &Transaction) -> Result<Outcomes, CommitError> {
        let connection = self.connection().await?;
        self.log_used = true;
        // Its messages are not copied.
        let transaction = transaction.clone();
        let work = move || commit(connection, &transaction);
        let (connection, outcomes) = self.thread.run(work).await?;
        self.connection = connection;
        outcomes
    }

    async fn reopen(&mut self) -> Result<CommitNumber, Error> {
        let (old, file) = (self.connection.take(), Arc::clone(&self.file));
        let work = move || {
            // It is given up for its errors.
            drop(old);
            let connection = open(&file)?;
            let number = connection
                .query_row("SELECT commit_number FROM server_state", [], |row| row.get(0))
                .map_err(write_error)?;
            Ok::<_, Error>((connection, number))
        };
        let (connection, number) = self.thread.run(work).await??;
        self.connection = Some(connection);
        Ok(CommitNumber(number))
    }

    fn has_room(&self) -> bool {
        self.file.has_room()
    }

    async fn maintain(&mut self, forget_before: Option<Time>) -> Result<bool, Error> {
        let connection = self.connection().await?;
        let mut step = Maintenance {
            spare_pages: if self.file.has_room() { SPARE_PAGES } else { 0 },
            log_used: self.log_used,
            forget_index: self.forget_index,
        };
        let work = move || {
            let more = step.run(&connection, forget_before);
            (connection, step, more)
        };
        let (connection, step, more) = self.thread.run(work).await?;
        self.log_used = step.log_used;
        self.forget_index = step.forget_index;
        let more = more?;
        self.connection = Some(connection);
        Ok(more)
    }

    async fn close(self: Box<Self>) {
        if let Some(connection) = self.connection {
            // The log is emptied by the next start if not now.
            let _ = self.thread.run(move || checkpoint(&connection)).await;
        }
    }
}

fn open(file: &DatabaseFile) -> Result<Connection, Error> {
    let connection = file.writing().map_err(write_error)?;
    checkpoint(&connection)?;
    Ok(connection)
}

/// Returns the connection if it is still good.
fn commit(
    connection: Connection,
    transaction: &Transaction,
) -> (Option<Connection>, Result<Outcomes, CommitError>) {
    let outcomes = match write(&connection, transaction) {
        Ok(outcomes) => outcomes,
        Err(failure) => {
            let is_good = connection.execute_batch("ROLLBACK").is_ok();
            return (is_good.then_some(connection), Err(write_error(failure).into()));
        }
    };
    match connection.execute_batch("COMMIT") {
        Ok(()) => (Some(connection), Ok(outcomes)),
        // There was no room for the log's last page, the one that makes a commit of it.
        Err(failure) if is_full(&failure) => (None, Err(write_error(failure).into())),
        // The sync failed: what is in the log may be found there after a crash, or not.
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
    forget_index: bool,
}

impl Maintenance {
    /// Whether there is more to do.
    fn run(&mut self, connection: &Connection, forget_before: Option<Time>) -> Result<bool, Error> {
        let mut more = false;
        if let Some(before) = forget_before {
            more |= self.forget(connection, before).map_err(write_error)?;
        }
        more |= self.shrink(connection).map_err(write_error)?;
        if !more && self.log_used {
            checkpoint(connection)?;
            self.log_used = false;
            // Nothing waits: the memory of the pages read and written is for others.
            connection
                .execute_batch("PRAGMA shrink_memory")
                .map_err(write_error)?;
        }
        Ok(more)
    }

    fn forget(&mut self, connection: &Connection, before: Time) -> rusqlite::Result<bool> {
        if !self.forget_index {
            connection.execute_batch(FORGET_INDEX)?;
            self.forget_index = true;
        }
        let transaction = connection.unchecked_transaction()?;
        let batches: String =
            transaction.query_row(FORGETTABLE, (before.to_string(), FORGET_STEP), |row| row.get(0))?;
        transaction.execute(FORGET_FATES, [&batches])?;
        let forgotten = transaction.execute(FORGET_BATCHES, [&batches])?;
        transaction.commit()?;
        self.log_used |= forgotten > 0;
        Ok(i64::try_from(forgotten).is_ok_and(|forgotten| forgotten >= FORGET_STEP))
    }

    /// Gives some free pages back; whether there are more.
    fn shrink(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let free: i64 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if free <= self.spare_pages {
            return Ok(false);
        }
        // It gives a page back for each row that is asked for.
        let mut statement = connection.prepare_cached("PRAGMA incremental_vacuum(256)")?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        self.log_used = true;
        Ok(free - VACUUM_PAGES > self.spare_pages)
    }
}

#[cfg(test)]
mod tests;
