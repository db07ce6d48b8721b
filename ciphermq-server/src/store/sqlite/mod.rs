//! The store in one SQLite file: no installation, nothing to run beside the server.
//!
//! - `file`: the file, its lock against a second server, and connections to it
//! - `sql`: the statements that every message goes through
//! - `committer`: one transaction, on the one thread that writes (`thread`); `write` for its
//!   messages, `change` and `topology` for its rare parts
//! - `set_aside`: disk space for acknowledgements
//! - `removal`: what remains to be done for deleted and purged queues
//! - `reader`: reads that bypass the committer; `list` for queues, exchanges and bindings
//! - `offline`, `check`: copies and checks, for commands beside the server
//! - `error`: the meaning of SQLite's result codes
//!
//! In WAL mode with `synchronous = FULL` a transaction is one append to the log and one `fsync`;
//! readers see the last commit and block nobody.

mod blocks;
mod change;
pub(super) mod check;
mod committer;
mod error;
mod file;
mod list;
pub(super) mod offline;
mod reader;
mod removal;
mod set_aside;
mod sql;
mod thread;
mod topology;
mod write;

use std::path::Path;
use std::sync::Arc;

use super::{Error, Store};
use committer::SqliteCommitter;
use file::DatabaseFile;
use reader::SqliteReader;

pub(super) async fn open(path: &Path, disk_reserve: u64) -> Result<Store, Error> {
    let file = DatabaseFile::claim(path, disk_reserve)?;
    let full = |error| file.explain_full(error);
    file.prepare().await.map_err(full)?;
    let reader = SqliteReader::open(&file).await.map_err(full)?;
    let file = Arc::new(file);
    let committer = SqliteCommitter::open(Arc::clone(&file))
        .await
        .map_err(|error| file.explain_full(error))?;
    Ok(Store {
        committer: Box::new(committer),
        reader: Arc::new(reader),
    })
}
