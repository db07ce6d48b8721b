//! Properties that must hold for any untrusted input: functions that panic on a violation.
//!
//! `fuzz/` runs them with cargo-fuzz, which needs a nightly toolchain. `tests/fuzz_targets.rs` runs
//! the same functions on their seeds, and on mutations of them by [`Mutator`], with any toolchain.

mod binary;
mod command;
mod envelope;
mod key_file;
mod line;
mod mutator;
mod reply;
mod revocation_list;
mod signed_key;

pub use binary::binary;
pub use command::command;
pub use envelope::envelope;
pub use key_file::key_file;
pub use line::line;
pub use mutator::Mutator;
pub use reply::reply;
pub use revocation_list::revocation_list;
pub use signed_key::signed_key;

use bytes::Bytes;

/// A fuzz target, which panics if a property does not hold for the input.
pub type Target = fn(&[u8]);

/// All fuzz targets, with their names. The seeds are in `fuzz/seeds/<name>`.
pub const TARGETS: [(&str, Target); 8] = [
    ("line", line),
    ("command", command),
    ("binary", binary),
    ("reply", reply),
    ("envelope", envelope),
    ("signed_key", signed_key),
    ("revocation_list", revocation_list),
    ("key_file", key_file),
];

/// The input up to the first line feed: as much as fits into one line of the protocol.
fn one_line(data: &[u8]) -> Bytes {
    let end = data
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(data.len());
    Bytes::copy_from_slice(&data[..end])
}
