//! Files that survive power cuts, and are the ones that were meant.
//!
//! - [`create_folder`], [`sync_folder`], [`sync_parent`], [`sync_file`], [`sync_data`]: names and
//!   bytes that a power cut cannot take. Whatever is made here has its name synced in the folder
//!   that holds it, level by level.
//! - [`resolve`], [`FileId`], [`is_same_file`]: what a path leads to, through links, and whether
//!   two lead to one file.
//! - [`create_new`], [`open_append`]: opening without following a link that somebody planted.
//! - [`Draft`], [`NewFiles`], [`write()`]: whole files or none, written beside their place.
//! - [`fit_name`]: names derived from other names that the file system takes.
//!
//! Why a crate of its own: broker, SDK and tools must all get this right, and share nothing else
//! that knows of files.

mod access;
mod folder;
mod identity;
mod name;
mod open;
mod resolve;
mod sync;
mod whole;

pub use access::{Access, exposed_mode};
pub use folder::{create_folder, parent, sync_folder, sync_found_name, sync_parent};
pub use identity::{FileId, is_same_file};
pub use name::{beside, fit_name};
pub use open::{create_new, open_append};
pub use resolve::{is_descriptor, resolve};
pub use sync::{sync_data, sync_file};
pub use whole::{Draft, Existing, FileError, NewFiles, write};
