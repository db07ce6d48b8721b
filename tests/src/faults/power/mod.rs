//! Power failures: what was not synced is forgotten, and every promise must hold nevertheless.
//!
//! ```text
//!  server, send, receive, keygen ── strace ──▶ calls ──▶ Disk ── cut, Loss ──▶ image of the files
//!            │                                                                    │
//!            └── replies, exits ──────────────▶ Promises ◀──── check ─────────────┘
//! ```
//!
//! The programs run once, and all calls that change or sync their files are recorded. From the
//! record follows what the files may be after a power failure at any moment, and each such image
//! is checked: in this process, by reading what the programs would read, and for some images by
//! starting the programs again.
//!
//! That a sync is needed is shown by the same record: without it, an image violates a promise.
//!
//! The databases of PostgreSQL are not part of this: they are PostgreSQL's to keep.
//!
//! In reading order:
//!
//! - [`trace`]: the calls of a program
//! - [`disk`], [`image`]: a file system that forgets, and what it may remember
//! - [`loss`]: what is forgotten
//! - [`recording`]: programs and promises, recorded together
//! - [`record`]: the finished record, and the images that are checked
//! - [`promise`]: what must hold, and the check of an image
//! - [`scenario`]: what the programs do while they are recorded
//! - [`interrupted`]: programs that are killed before they sync, and run again
//! - [`restart`]: the programs, started again on an image

pub mod disk;
pub mod image;
pub mod interrupted;
pub mod loss;
pub mod promise;
pub mod record;
pub mod recording;
pub mod restart;
pub mod scenario;
pub mod trace;

pub use disk::{SyncKind, Tree};
pub use loss::Loss;
pub use record::{Record, losses};
pub use recording::Recording;
pub use scenario::Scenario;
