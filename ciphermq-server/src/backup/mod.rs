//! Backups: made of a running server, restored, and checked, on both databases.
//!
//! ```text
//!   database ── one snapshot ──► folder: files under temporary names ──► names ──► backup.json
//!   folder ── hashes ──► temporary file or transaction ──► database, whole or not at all
//! ```
//!
//! - `manifest`: what a backup holds, and the hash of every file
//! - `folder`: the files of a backup
//! - `create`, `restore`, `verify`: the three commands
//! - `report`: what they print
//!
//! The key that seals public keys (`[encryption]`) is in no backup: whoever has both can read them.

mod create;
mod folder;
mod manifest;
mod report;
mod restore;
mod verify;

use std::io;
use std::path::PathBuf;

use ciphermq_files::advice;

use crate::config::Database;
use crate::store;
pub use create::create;
use manifest::Kind;
pub use report::Line;
pub use restore::restore;
pub use verify::verify;

/// The name of the copy of an SQLite database.
const DATABASE: &str = "ciphermq.db";

/// The end of the name of a table's copy.
const TABLE_END: &str = ".copy";

/// The reason why a backup was not made, not restored, or cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something stands in the way. The text says what, and what to do.
    #[error("{0}")]
    Refused(String),
    /// A file cannot be written.
    #[error("cannot write {}: {source}\n{}", path.display(), file_advice(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}\n{}", path.display(), file_advice(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file that was opened before cannot be read.
    #[error("the backup cannot be read: {source}\n{}", file_advice(source))]
    Source {
        /// The operating system's error.
        #[from]
        source: io::Error,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
}

fn file_advice(error: &io::Error) -> &'static str {
    advice(error).unwrap_or("Check the path and its permissions, and the disk.")
}

fn kind(database: &Database) -> Kind {
    match database {
        Database::Sqlite { .. } => Kind::Sqlite,
        Database::Postgres(_) => Kind::Postgres,
    }
}
