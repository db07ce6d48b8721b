//! Copies, restored copies and checks of a database, for commands beside the server.
//!
//! Copies and checks read one snapshot: they see one commit, and neither wait for the server's
//! commits nor hold them up. Only restoring needs the database for itself, and takes the lock that
//! keeps a second server out.

use std::fmt;
use std::io::Read;
use std::path::Path;

use super::{Error, postgres, sqlite};
use crate::config;

/// A state of a database, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// The version of the schema: its last migration.
    pub schema: i64,
    /// The number of the last commit.
    pub commit: i64,
    /// The number of messages that wait.
    pub waiting: i64,
}

/// A table as it was copied: its name, and the columns in the order of the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The name.
    pub name: String,
    /// The columns.
    pub columns: Vec<String>,
}

/// The position of the sequence that numbers a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// The last number.
    pub last: i64,
    /// Whether that number was given to a row; otherwise it is the next one.
    pub is_given: bool,
}

/// What was copied of a PostgreSQL database.
#[derive(Debug)]
pub struct Copied {
    /// Its state.
    pub contents: Contents,
    /// The tables, in the order in which they were copied.
    pub tables: Vec<Table>,
    /// The sequences.
    pub sequences: Vec<Sequence>,
}

/// What takes the tables of a PostgreSQL database, one after the other.
pub trait TableSink: Send {
    /// The error of writing, or of the database.
    type Error: From<Error>;

    /// Begins a table.
    ///
    /// # Errors
    ///
    /// The sink's error.
    fn begin(&mut self, table: &str) -> Result<(), Self::Error>;

    /// Takes the next piece of the table.
    ///
    /// # Errors
    ///
    /// The sink's error.
    fn write(&mut self, piece: &[u8]) -> Result<(), Self::Error>;

    /// Ends the table.
    ///
    /// # Errors
    ///
    /// The sink's error.
    fn end(&mut self) -> Result<(), Self::Error>;
}

/// What gives the tables of a PostgreSQL database back.
pub trait TableSource: Send {
    /// The error of reading, or of the database.
    type Error: From<Error> + From<std::io::Error>;

    /// Opens the copy of a table.
    ///
    /// # Errors
    ///
    /// The source's error.
    fn open(&mut self, table: &str) -> Result<Box<dyn Read + Send>, Self::Error>;
}

/// A violated invariant of what is stored, as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The table.
    pub table: &'static str,
    /// The row.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub advice: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.table)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.what, self.advice)
    }
}

/// Takes the faults that a check finds, one at a time.
pub type Report<'a> = &'a mut (dyn FnMut(Fault) + Send);

/// What a check has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// The database's state. The waiting messages are those that were counted.
    pub contents: Contents,
    /// The number of batches.
    pub batches: u64,
}

/// The end of the name of an SQLite database that is being restored, until it is complete.
pub const RESTORED_PART: &str = ".restore";

/// Returns the last version of the schema that this program knows.
#[must_use]
pub fn schema(is_postgres: bool) -> i64 {
    if is_postgres {
        postgres::offline::last_schema()
    } else {
        sqlite::offline::last_schema()
    }
}

/// Copies an SQLite database, of a running server or a stopped one, into a new file.
///
/// The copy is complete, and not yet synced, when this returns.
///
/// # Errors
///
/// [`Error::Unusable`] if there is no database of this server, or it was made by a newer one.
pub fn copy_sqlite(database: &Path, to: &Path, disk_reserve: u64) -> Result<Contents, Error> {
    sqlite::offline::copy(database, to, disk_reserve)
}

/// Keeps servers out of the place of an SQLite database that is about to be restored, as long as
/// the value lives.
///
/// # Errors
///
/// [`Error::Unusable`] if a server uses the database, or the lock's file cannot be made.
pub fn lock_sqlite(database: &Path) -> Result<impl Drop + use<>, Error> {
    sqlite::offline::lock(database)
}

/// Checks an SQLite database, of a running server or a stopped one.
///
/// # Errors
///
/// [`Error`] if it cannot be read. Damage that was found is reported instead.
pub fn check_sqlite(database: &Path, report: Report<'_>) -> Result<Checked, Error> {
    sqlite::check::check(database, report)
}

/// Copies the server's tables in a PostgreSQL database, in PostgreSQL's binary format.
///
/// # Errors
///
/// [`Error`], or the sink's.
pub async fn copy_postgres<S: TableSink>(
    settings: &config::Postgres,
    sink: &mut S,
) -> Result<Copied, S::Error> {
    postgres::offline::copy(settings, sink).await
}

/// Makes the server's tables in a PostgreSQL database that has none, and fills them, in one
/// transaction.
///
/// # Errors
///
/// [`Error::Unusable`] if it has tables of a server, or a server uses it; or the source's error.
pub async fn restore_postgres<S: TableSource>(
    settings: &config::Postgres,
    copied: &Copied,
    source: &mut S,
) -> Result<(), S::Error> {
    postgres::offline::restore(settings, copied, source).await
}

/// Checks a PostgreSQL database, of a running server or a stopped one.
///
/// # Errors
///
/// [`Error`] if it cannot be read. Damage that was found is reported instead.
pub async fn check_postgres(
    settings: &config::Postgres,
    report: Report<'_>,
) -> Result<Checked, Error> {
    postgres::check::check(settings, report).await
}

/// Counts the messages that wait: those of batches with envelopes that are not settled.
pub(super) const WAITING: &str = "SELECT CAST(COALESCE(SUM(b.messages - (SELECT \
     COALESCE(SUM(f.messages), 0) FROM fates f WHERE f.first_seq = b.first_seq AND \
     (f.acknowledged_time IS NOT NULL OR f.rejected_time IS NOT NULL))), 0) AS BIGINT) \
     FROM (SELECT DISTINCT first_seq FROM waiting) w JOIN batches b ON b.first_seq = w.first_seq";

/// Refuses a database of a newer server, of which this program knows too little.
pub(super) fn refuse_newer(place: impl fmt::Display, schema: i64, last: i64) -> Result<(), Error> {
    if schema <= last {
        return Ok(());
    }
    Err(Error::Unusable(format!(
        "{place} was made by a newer version of the server (schema {schema}, and this one knows \
         {last})\nUse the ciphermq-server of that version."
    )))
}
