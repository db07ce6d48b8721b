//! Durable, atomic and link-safe file operations.
//!
//! - [`create_folder`], [`sync_folder`], [`sync_parent`], [`sync_file`], [`sync_data`]: names and
//!   contents that survive a power failure. Every name that is created here is synced in its
//!   parent folder, level by level.
//! - [`resolve`], [`FileId`], [`is_same_file`]: the target of a path, through links, and whether
//!   two paths have the same target.
//! - [`create_new`], [`open_append`]: opening files without following a planted link;
//!   [`open_named_pipe`]: a named pipe, which must have a reader.
//! - [`own_descriptor`], [`duplicate_descriptor`], [`check_descriptor`], [`was_closed`]:
//!   descriptors that the program was started with.
//! - [`Draft`], [`NewFiles`], [`write()`]: atomic creation and replacement, through a temporary
//!   file in the same folder.
//! - [`read_file`]: a small file, which may be something else.
//! - [`advice()`]: what to do about errors of the file system.
//! - [`fit_name`], [`beside`], [`encode_name`]: derived names that fit the file system's limits.
//!
//! It is a crate of its own because the broker, the SDK and the tools all need it, and share no
//! other crate that accesses files.

mod access;
mod advice;
mod atomic;
mod descriptor;
mod folder;
mod identity;
mod name;
mod open;
mod read;
mod resolve;
mod sync;

pub use access::{Access, exposed_mode};
pub use advice::{NoReader, NotRegular, advice};
pub use atomic::{Draft, Existing, FileError, NewFiles, write};
pub use descriptor::{
    DescriptorError, Need, check_descriptor, duplicate_descriptor, is_appending, own_descriptor,
    was_closed,
};
pub use folder::{create_folder, sync_existing_name, sync_folder, sync_found_name, sync_parent};
pub use identity::{FileId, is_same_file};
pub use name::{beside, encode_name, fit_name};
pub use open::{create_new, open_append, open_named_pipe};
pub use read::read_file;
pub use resolve::{is_descriptor, parent, resolve};
pub use sync::{sync_data, sync_file};
