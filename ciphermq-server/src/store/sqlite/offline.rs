//! Copies of the database file, made beside a running server.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ciphermq_files::{Access, create_folder, create_new, parent};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::error::write_error;
use super::file::{APPLICATION_ID, BUSY_TIMEOUT, MIGRATIONS, lock as lock_file};
use crate::store::offline::{Contents, WAITING, refuse_newer};
use crate::store::{Error, described};

/// The number of pages that are copied at a time, 8 MiB of the server's pages.
const STEP_PAGES: i32 = 1024;

/// Returns the last version of the schema.
pub(in crate::store) fn last_schema() -> i64 {
    MIGRATIONS.iter().map(|one| one.version).max().unwrap_or(0)
}

/// A read transaction on a database file.
///
/// In WAL mode it sees the commit at which it began, whatever is written meanwhile, and holds up
/// nobody: but the log cannot be emptied before it ends.
pub(super) struct Snapshot {
    pub(super) connection: Connection,
    pub(super) schema: i64,
    pub(super) commit: i64,
}

impl Snapshot {
    /// Begins the transaction. The file is not written to, and the server's lock not taken.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let place = path.display();
        if let Err(error) = fs::metadata(path) {
            return Err(Error::Unusable(format!(
                "cannot read the database {place}: {error}\nCheck [database] url, the working \
                 directory that a relative path begins at, and the permissions of the file."
            )));
        }
        let connection = open(path).map_err(|source| unreadable(path, source))?;
        let read = |text: &str| -> Result<Option<i64>, Error> {
            connection
                .query_row(text, [], |row| row.get(0))
                .optional()
                .map_err(|source| unreadable(path, source))
        };
        if read("PRAGMA application_id")? != Some(APPLICATION_ID) {
            return Err(Error::Unusable(format!(
                "{place} is no database of this server\nCheck [database] url."
            )));
        }
        let schema = read("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations WHERE success")?
            .unwrap_or(0);
        refuse_newer(place, schema, last_schema())?;
        // Without the row, which a check reports, there is no number.
        let commit = read("SELECT commit_number FROM server_state")?.unwrap_or(-1);
        Ok(Self {
            connection,
            schema,
            commit,
        })
    }

    /// Returns the state in numbers.
    fn contents(&self) -> Result<Contents, Error> {
        let waiting = self
            .connection
            .query_row(WAITING, [], |row| row.get(0))
            .map_err(write_error)?;
        Ok(Contents {
            schema: self.schema,
            commit: self.commit,
            waiting,
        })
    }
}

/// Explains why a file cannot be read.
fn unreadable(path: &Path, source: rusqlite::Error) -> Error {
    let place = path.display();
    match write_error(source) {
        Error::Corrupt(what) => Error::Unusable(format!(
            "{place} is no SQLite database, or it is damaged: {what}\nCheck [database] url, or \
             restore the database from a backup."
        )),
        Error::Unavailable(source) => Error::Unavailable(described(
            format!(
                "cannot open {place}; check that the file can be read, and its folder written, \
                 for SQLite keeps the index of its log there"
            ),
            source,
        )),
        other => other,
    }
}

/// Opens the file for reading, and takes its present state as the snapshot.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // The transaction begins with the first read.
    connection.execute_batch("PRAGMA query_only = on; BEGIN")?;
    connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

/// Copies the database into a new file, by SQLite's own backup from one snapshot: commits that
/// come meanwhile do not make it begin again.
///
/// It is given up when less than half of `disk_reserve`, in bytes, is free on the database's disk:
/// the server cannot empty its log meanwhile, and needs the rest for acknowledgements.
pub(in crate::store) fn copy(
    database: &Path,
    to: &Path,
    disk_reserve: u64,
) -> Result<Contents, Error> {
    let snapshot = Snapshot::open(database)?;
    let contents = snapshot.contents()?;
    create_new(to, Access::Private).map_err(|source| {
        let what = format!("cannot create {}", to.display());
        Error::Unavailable(described(what, source))
    })?;
    let is_short = || {
        rustix::fs::statvfs(database)
            .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < disk_reserve / 2)
    };
    let is_complete =
        copy_pages(&snapshot.connection, to, is_short).map_err(|source| unwritten(to, source))?;
    if is_complete {
        return Ok(contents);
    }
    Err(Error::Unusable(format!(
        "the disk of {} is nearly full, and a running server needs the rest\nFree space there, or \
         make the backup on another disk while little is sent.",
        database.display()
    )))
}

/// Explains why a copy was not written.
fn unwritten(to: &Path, source: rusqlite::Error) -> Error {
    match write_error(source) {
        Error::Full(_) => Error::Unusable(format!(
            "the disk of {} is full\nMake the backup on a disk with as much free space as the \
             database takes.",
            to.display()
        )),
        other => other,
    }
}

/// Copies everything, unless the disk becomes short of space. Returns whether it is complete.
fn copy_pages(from: &Connection, to: &Path, is_short: impl Fn() -> bool) -> rusqlite::Result<bool> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(to, flags)?;
    // Nobody reads it before it is complete, and the caller syncs it then.
    copy.execute_batch("PRAGMA synchronous = off")?;
    {
        let backup = Backup::new(from, &mut copy)?;
        loop {
            if is_short() {
                return Ok(false);
            }
            match backup.step(STEP_PAGES)? {
                StepResult::Done => break,
                StepResult::More => {}
                // Somebody reads the copy, which is not complete.
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
    // One file, without a log beside it, that can be read on a disk that cannot be written. The
    // server sets the mode again when it opens it.
    copy.execute_batch("PRAGMA journal_mode = delete")?;
    copy.close().map_err(|(_, error)| error)?;
    Ok(true)
}

/// Takes the lock that keeps servers out, of a database that is not there yet.
pub(in crate::store) fn lock(database: &Path) -> Result<impl Drop + use<>, Error> {
    create_folder(parent(database), Access::Private).map_err(|error| {
        Error::Unusable(format!(
            "cannot create the folder of {}: {error}\nCheck [database] url.",
            database.display()
        ))
    })?;
    lock_file(database).map(Lock)
}

/// A lock until it is dropped.
struct Lock(fs::File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it would do the same; this says when.
        let _ = self.0.unlock();
    }
}
