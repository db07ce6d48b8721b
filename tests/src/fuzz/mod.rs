//! What must hold for any bytes that come from outside: functions that panic when it does not.
//!
//! `fuzz/` runs them with cargo-fuzz, which needs a nightly toolchain; `tests/fuzz_targets.rs` runs
//! the same functions over their seeds and [`Mutator`]'s changes of them on any toolchain.

mod command;
mod envelope;
mod key_file;
mod line;
mod mutator;
mod reply;
mod signed_key;

pub use command::command;
pub use envelope::envelope;
pub use key_file::key_file;
pub use line::line;
pub use mutator::Mutator;
pub use reply::reply;
pub use signed_key::signed_key;

use bytes::Bytes;

/// What a fuzz target is.
pub type Target = fn(&[u8]);

/// Every target, by the name of its seeds' folder `fuzz/seeds/<name>`.
pub const TARGETS: [(&str, Target); 6] = [
    ("line", line),
    ("command", command),
    ("reply", reply),
    ("envelope", envelope),
    ("signed_key", signed_key),
    ("key_file", key_file),
];

/// The part of a text that can stand in one line of the protocol.
fn one_line(data: &[u8]) -> Bytes {
    let end = data
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(data.len());
    Bytes::copy_from_slice(&data[..end])
}
