//! The database file, its lock against a second server, and connections to it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ciphermq_files::{Access, beside, create_folder, create_new, parent, sync_parent};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::error::{error, is_not_a_database, write_error};
use super::set_aside::SpaceSetAside;
use crate::store::offline::RESTORED_PART;
use crate::store::{Error, Space, TABLES, described, lacks_table};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("src/store/sqlite/migrations");

/// The application id that the first migration sets.
pub(super) const APPLICATION_ID: i64 = 0x434d_5131;

/// How long somebody else, such as a person with the `sqlite3` shell, may hold the database.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for readers before the log is emptied some other time: the server's own take a
/// moment, and a backup takes long.
const READERS_PATIENCE: Duration = Duration::from_millis(50);

/// The free disk space that a start needs: for the schema, the log, and the shared memory of the
/// connections; more if a long log was left.
const START_BYTES: u64 = 1 << 20;

/// The size of a page of the database.
const PAGE_BYTES: u32 = 8 * 1024;

/// The settings of the connection that writes.
/// - One fsync of the log for each commit, before the commit returns; on macOS, one that also
///   empties the disk's own cache.
/// - At most 16 MiB of log before it is copied into the database; see [`log_pages`].
/// - 16 MiB of cache. What is written is at the tables' ends, or was a moment ago; more would be
///   wasted memory.
const WRITING: &str = "PRAGMA synchronous = FULL; PRAGMA fullfsync = on; PRAGMA \
                       checkpoint_fullfsync = on; \
                       PRAGMA journal_size_limit = 67108864; \
                       PRAGMA cache_size = -16384; PRAGMA temp_store = memory";

/// More than the committer has.
const STATEMENTS: usize = 64;

/// How long to wait for a killed server to end and release its lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A database file whose lock this process holds.
pub(super) struct DatabaseFile {
    /// Absolute and without symbolic links, so that every path to the file leads to the same lock.
    path: PathBuf,
    disk_reserve: u64,
    set_aside: SpaceSetAside,
    /// Locked as long as it is open; the operating system releases the lock with the process.
    _lock: File,
}

impl DatabaseFile {
    /// Creates the file and its folder if they are missing, and takes the lock.
    pub(super) fn claim(path: &Path, disk_reserve: u64) -> Result<Self, Error> {
        refuse_unrestored(path)?;
        let path = make(path).map_err(|error| {
            Error::Unusable(format!(
                "cannot use the database file {}: {error}; give the server's user access to it, or \
                 choose another \
                 file in [database] url",
                path.display()
            ))
        })?;
        let lock = lock(&path)?;
        let file = Self {
            set_aside: SpaceSetAside::new(&path, disk_reserve),
            path,
            disk_reserve,
            _lock: lock,
        };
        // SQLite copies the log into the database when it opens it. That must not come to an end in
        // the middle.
        if file
            .free_bytes()
            .is_some_and(|free| free < file.start_bytes())
        {
            file.use_space_set_aside();
        }
        Ok(file)
    }

    /// Copies the log into the database, syncs both, and empties the log: whatever was found in it
    /// is durable then, even if an earlier sync of it had failed. Uses the space that is set aside
    /// if there is no other.
    pub(super) fn empty_log(&self, connection: &rusqlite::Connection) -> Result<(), Error> {
        if self.copy_log(connection)? {
            Ok(())
        } else {
            Err(Error::Unavailable(
                "another program is reading or writing the database and does not release it".into(),
            ))
        }
    }

    /// Empties the log as [`DatabaseFile::empty_log`], unless somebody reads the database for
    /// long, such as a backup: that is not waited for. Returns whether the log is empty.
    pub(super) fn empty_log_if_unread(
        &self,
        connection: &rusqlite::Connection,
    ) -> Result<bool, Error> {
        connection
            .busy_timeout(READERS_PATIENCE)
            .map_err(write_error)?;
        let emptied = self.copy_log(connection);
        connection.busy_timeout(BUSY_TIMEOUT).map_err(write_error)?;
        emptied
    }

    /// Returns whether the whole log was copied, and is empty.
    fn copy_log(&self, connection: &rusqlite::Connection) -> Result<bool, Error> {
        let done = checkpoint(connection);
        // SQLite does not say in every case that the disk is full.
        let is_full = match &done {
            Ok(true) => false,
            Err(Error::Full(_)) => true,
            _ => self.free_bytes().is_some_and(|free| free < START_BYTES),
        };
        if is_full && self.use_space_set_aside() {
            return checkpoint(connection);
        }
        done
    }

    /// Makes room after a commit for which there was none: empties the log, which may be all that
    /// fills the disk, and uses the space that is set aside if the disk is still full.
    pub(super) fn make_room(&self, connection: &rusqlite::Connection) {
        // If that fails, the next commit says so.
        if let Err(error) = self.empty_log(connection) {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "The log of the database cannot be emptied"
            );
        }
        if self.free_bytes().is_some_and(|free| free < START_BYTES) {
            self.use_space_set_aside();
        }
    }

    /// Sets space aside for acknowledgements, unless it is or the disk is short of it.
    pub(super) fn set_space_aside(&self) {
        let bytes = self.set_aside.bytes();
        let needed = self.disk_reserve.saturating_mul(2).saturating_add(bytes);
        if self.free_bytes().is_some_and(|free| free >= needed)
            && let Err(error) = self.set_aside.take()
        {
            tracing::debug!(%error, "No disk space can be set aside for acknowledgements");
        }
    }

    /// Gives up the space that is set aside. Returns whether there was any.
    fn use_space_set_aside(&self) -> bool {
        let released = self.set_aside.release();
        if released {
            tracing::warn!("The disk is full: the space set aside for acknowledgements is used");
        }
        released
    }

    /// Returns whether more than the reserve is free on the file's disk.
    pub(super) fn space(&self) -> Space {
        // If that cannot be determined, the next commit finds out.
        self.free_bytes()
            .map_or(Space::Enough, |free| Space::of(free, self.disk_reserve))
    }

    /// Returns the free bytes on the disk, or those by which the largest file may still grow if
    /// that is bounded (`ulimit -f`).
    fn free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.path).ok()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
        let Some(limit) = limit else {
            return Some(free);
        };
        let database = fs::metadata(&self.path).map_or(0, |file| file.len());
        let longest = database.max(self.log_bytes());
        Some(free.min(limit.saturating_sub(longest)))
    }

    /// Returns the length of the log.
    fn log_bytes(&self) -> u64 {
        let mut log = std::ffi::OsString::from(&self.path);
        log.push("-wal");
        fs::metadata(log).map_or(0, |file| file.len())
    }

    /// Returns the free bytes with which a start succeeds. The database grows by its log's length
    /// at most.
    fn start_bytes(&self) -> u64 {
        START_BYTES.max(self.log_bytes() + START_BYTES / 4)
    }

    /// Explains an error of the start if the disk is full: SQLite does not say so in every case,
    /// and never how much it needs.
    pub(super) fn explain_full(&self, error: Error) -> Error {
        let free = self.free_bytes();
        let is_full = match &error {
            Error::Full(_) => true,
            Error::Unavailable(_) => free.is_some_and(|free| free < self.start_bytes()),
            _ => false,
        };
        if !is_full {
            return error;
        }
        Error::Unusable(format!(
            "the disk of {} is full: {} bytes are free\nFree space there: the server starts with \
             {} bytes, \
             and takes messages with {} ([limits] disk_reserve). Or move the database to a larger \
             disk and name it \
             in [database] url.",
            self.path.display(),
            free.unwrap_or_default(),
            self.start_bytes(),
            self.disk_reserve.max(self.start_bytes()),
        ))
    }

    /// Syncs the folder that holds the names of the database, of its log and of the log's index.
    ///
    /// SQLite does it, too, but ignores a failure: then a power cut could take the log with
    /// everything that was acknowledged. Call it whenever a connection was opened, as that may have
    /// created a new log.
    pub(super) fn sync_names(&self) -> Result<(), Error> {
        sync_parent(&self.path).map_err(|error| {
            Error::Unusable(format!(
                "cannot sync the folder {} of the database: {error}; what is acknowledged could be \
                 gone after a power \
                 failure\nCheck the disk, or move the database to another one and name it in \
                 [database] url.",
                parent(&self.path).display()
            ))
        })
    }

    /// Returns the options of a reading connection.
    pub(super) fn reading(&self) -> SqliteConnectOptions {
        self.options()
            .pragma("query_only", "on")
            .pragma("cache_size", "-4096")
    }

    /// Opens the connection that writes, without sqlx: every statement of sqlx's goes to a thread
    /// of its own and back, which takes longer than the statement. It must not be used where the
    /// thread may not block.
    pub(super) fn writing(&self) -> rusqlite::Result<rusqlite::Connection> {
        let connection = rusqlite::Connection::open_with_flags(
            &self.path,
            rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        connection.execute_batch(WRITING)?;
        let pages = log_pages(self.disk_reserve);
        connection.execute_batch(&format!("PRAGMA wal_autocheckpoint = {pages}"))?;
        Ok(connection)
    }

    /// Opens a connection that may create tables.
    pub(super) async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.options()
            // So that space can be given back to the disk. Has to be set before the first table is
            // created, like the page size: a batch's envelopes would be twice as many pages of the
            // usual size, each with its own costs. Still larger pages make older clients' ids
            // expensive, which are spread over the whole index.
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .page_size(PAGE_BYTES)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .connect()
            .await
    }

    /// Brings the schema up to date.
    pub(super) async fn prepare(&self) -> Result<(), Error> {
        let mut connection = self.connect().await.map_err(|error| self.unusable(error))?;
        self.refuse_strangers(&mut connection).await?;
        MIGRATIONS
            .run_direct(None, &mut connection, false)
            .await
            .map_err(|error| self.migration(error))?;
        self.refuse_gaps(&mut connection).await?;
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(&mut connection)
            .await
            .map_err(error)?;
        if mode != "wal" {
            return Err(Error::Unusable(format!(
                "the disk of {} does not support SQLite's write-ahead log; put the database on a \
                 local disk, by \
                 [database] url",
                self.path.display()
            )));
        }
        connection.close().await.map_err(error)
    }

    async fn refuse_strangers(&self, connection: &mut SqliteConnection) -> Result<(), Error> {
        // The list of migrations is created before the first of them, which sets the application
        // id: a server that was killed in between has left a file that is ours and empty.
        let tables: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM sqlite_schema WHERE tbl_name <> '_sqlx_migrations'",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| self.unusable(error))?;
        let application: i64 = sqlx::query_scalar("PRAGMA application_id")
            .fetch_one(connection)
            .await
            .map_err(error)?;
        if tables > 0 && application != APPLICATION_ID {
            return Err(Error::Unusable(format!(
                "{} is a database of another program; choose another file in [database] url",
                self.path.display()
            )));
        }
        Ok(())
    }

    /// Refuses a database that lacks one of the migrations' tables.
    async fn refuse_gaps(&self, connection: &mut SqliteConnection) -> Result<(), Error> {
        let found: Vec<String> =
            sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table'")
                .fetch_all(connection)
                .await
                .map_err(error)?;
        match TABLES
            .iter()
            .find(|table| !found.iter().any(|name| name == *table))
        {
            Some(table) => Err(lacks_table(self.path.display(), table)),
            None => Ok(()),
        }
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("temp_store", "memory")
            .thread_name(|_| String::from("sqlite"))
            .row_buffer_size(1024)
            .disable_statement_logging()
    }

    fn unusable(&self, source: sqlx::Error) -> Error {
        let path = self.path.display();
        if is_not_a_database(&source) {
            return Error::Unusable(format!(
                "{path} is no SQLite database; choose another file in [database] url, or move this \
                 one away"
            ));
        }
        match error(source) {
            Error::Unavailable(source) => Error::Unavailable(described(
                format!(
                    "cannot open {path}; check that the file and its folder can be read and written"
                ),
                source,
            )),
            other => other,
        }
    }

    fn migration(&self, error: MigrateError) -> Error {
        let path = self.path.display();
        match error {
            MigrateError::VersionMissing(version) => Error::Unusable(format!(
                "{path} was made by a newer version of the server (schema {version}); run that \
                 version, or choose \
                 another file in [database] url"
            )),
            MigrateError::VersionMismatch(version) => Error::Unusable(format!(
                "{path} was made by an unreleased version of the server (schema {version} \
                 differs); choose another \
                 file in [database] url"
            )),
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                self.unusable(source)
            }
            other => Error::Unavailable(other.into()),
        }
    }
}

/// Returns the number of pages after which the log is copied into the database: 16 MiB, or a
/// quarter of a smaller reserve, so that what is set aside suffices for it.
fn log_pages(disk_reserve: u64) -> u64 {
    const MOST: u64 = 2000;
    match disk_reserve {
        0 => MOST,
        reserve => (reserve / 4 / u64::from(PAGE_BYTES)).clamp(16, MOST),
    }
}

/// Copies the log into the database, syncs both, and empties the log. Returns whether that was
/// possible: not while somebody reads an older state.
fn checkpoint(connection: &rusqlite::Connection) -> Result<bool, Error> {
    let busy: i64 = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(write_error)?;
    Ok(busy == 0)
}

/// Creates the file and its folder if need be, and returns its real path.
fn make(path: &Path) -> io::Result<PathBuf> {
    create_folder(parent(path), Access::Private)?;
    match create_new(path, Access::Private) {
        // Also for a dangling link: its disk may be unmounted, and a new database in its place
        // would be empty.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let path = fs::canonicalize(path)?;
    let there = fs::metadata(&path)?;
    if there.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if !there.is_file() {
        return Err(ciphermq_files::NotRegular.into());
    }
    OpenOptions::new().read(true).write(true).open(&path)?;
    Ok(path)
}

/// Refuses to make a new database where a restore is under way or was interrupted: the server would
/// begin with nothing, and the restore could not be made again.
fn refuse_unrestored(path: &Path) -> Result<(), Error> {
    let is_empty = fs::metadata(path).map_or(true, |file| file.len() == 0);
    let part = beside(path, RESTORED_PART);
    if !is_empty || !part.exists() {
        return Ok(());
    }
    Err(Error::Unusable(format!(
        "the database {} is being restored from a backup, or that was interrupted\nRun \
         `ciphermq-server restore` again, or remove {} to begin with an empty database.",
        path.display(),
        part.display()
    )))
}

/// Takes the lock in a file of its own: closing the database file itself, even once, would release
/// the locks that SQLite has on it.
pub(super) fn lock(database: &Path) -> Result<File, Error> {
    let path = beside(database, ".lock");
    let failed = |error: io::Error| {
        Error::Unusable(format!(
            "cannot lock {}: {error}; give the server's user access to it, or choose another file \
             in [database] url",
            path.display()
        ))
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // A link in its place would let whoever put it there choose a file to be emptied.
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed)?;
    let patience = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only informative; the lock is what counts.
                let _ = (&mut file).take(32).read_to_string(&mut holder);
                let holder = holder.trim();
                let process = if holder.is_empty() {
                    String::new()
                } else {
                    format!(" (process {holder})")
                };
                return Err(Error::Unusable(format!(
                    "another server{process} uses the database {}; stop it, or choose another file \
                     in [database] url",
                    database.display()
                )));
            }
        }
    }
    let noted = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    match noted {
        // A disk too full for the holder's name does not prevent the start: what waits can still be
        // acknowledged.
        Ok(()) => Ok(file),
        Err(error) => {
            tracing::debug!(%error, "Cannot write the process id into the lock file");
            Ok(file)
        }
    }
}
