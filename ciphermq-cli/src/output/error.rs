//! The errors of output files, each with advice.

use std::io;
use std::path::PathBuf;

use ciphermq_client::checkpoint::{CheckpointError, Unreadable};
use ciphermq_files::advice;

/// An error of an output, its checkpoint or its quarantine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// The file or its folder cannot be created, opened or read.
    #[error("The output {} cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// Another process holds the lock.
    #[error("Another receiver is writing the output {}", .0.display())]
    Locked(PathBuf),
    /// The file ends with an unfinished line that was not written by a receiver.
    #[error("The output {} ends with an unfinished line that no receiver has \
             written", .0.display())]
    Foreign(PathBuf),
    /// The file holds something other than received messages.
    #[error("{} holds something, but no line that a receiver has written", .0.display())]
    Unrecognised(PathBuf),
    /// A descriptor with a checkpoint whose other users write wherever they are in the file.
    #[error("The output {} is a descriptor that does not append", .0.display())]
    NotAppending(PathBuf),
    /// The output and its checkpoint are one file.
    #[error("The output {} and its checkpoint are the same file", .0.display())]
    OneFile(PathBuf),
    /// The file was moved or removed while it was open.
    #[error("The output {} was moved or removed while it was being written", .0.display())]
    Moved(PathBuf),
    /// The output is not the one of its checkpoint, and the messages that were written last are
    /// unknown.
    #[error("The output {} was moved, truncated or replaced after its last receiver was \
             killed", .0.display())]
    Unknown(PathBuf),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The quarantine cannot be created, opened or written.
    #[error("The quarantine {} cannot be written: {source}", path.display())]
    Quarantine { path: PathBuf, source: io::Error },
    /// A write or a sync failed. Nothing of it counts as written.
    #[error("The output {} cannot be written: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl OutputError {
    /// Returns advice for the user.
    pub(crate) fn advice(&self) -> String {
        let (source, check, then) = match self {
            Self::Open { source, .. } => (
                source,
                "Check that you may write to the folder and the file.",
                "Or name another one with --output.",
            ),
            Self::Write { source, .. } => (
                source,
                "Check the disk.",
                "Then run the receiver again: what was not written is delivered again.",
            ),
            Self::Quarantine { source, .. } => (
                source,
                "Check that you may write to the folder and the file.",
                "Or name another one with --quarantine.",
            ),
            Self::Checkpoint(
                CheckpointError::Open { source, .. } | CheckpointError::Write { source, .. },
            ) => (
                source,
                "Check that you may write to the folder.",
                "Or name another file with --checkpoint.",
            ),
            other => return other.other_advice().to_owned(),
        };
        format!("{}\n{then}", advice(source).unwrap_or(check))
    }

    /// The advice for errors that are not the system's.
    fn other_advice(&self) -> &'static str {
        match self {
            Self::Locked(_) => {
                "End the other receiver, or choose another output for this one with --output."
            }
            Self::Foreign(_) => "Name another file with --output, or end that line.",
            Self::Unrecognised(_) => {
                "Name another file, or move this one away: its contents would be of no use with \
                 messages appended."
            }
            Self::NotAppending(_) => {
                "What else is written there would overwrite messages: open it for appending (>> in \
                 a shell), or name the file with --output."
            }
            Self::OneFile(_) => "Name another file with --checkpoint.",
            Self::Moved(_) => {
                "Put the file back where it was, then run the receiver again. Move outputs only \
                 while no receiver writes them."
            }
            Self::Unknown(_) => {
                "That receiver may have written messages that only the moved file records: put it \
                 back and run the receiver once, then move it.\nIf it is permanently lost, run the \
                 receiver with --output-is-gone: messages that were written last may then be \
                 written again."
            }
            Self::Checkpoint(CheckpointError::Locked(_)) => {
                "Another receiver uses it: end that one, or choose another output for this one \
                 with --output."
            }
            Self::Checkpoint(CheckpointError::Unreadable {
                reason: Unreadable::Damaged | Unreadable::Line(_),
                ..
            }) => {
                "There is no output to rebuild it from. Restore a copy of it, or remove it: then \
                 earlier runs are unknown, and messages that they wrote without acknowledging them \
                 are written again."
            }
            Self::Checkpoint(CheckpointError::Removed(_)) => {
                "Put it back, then run the receiver again. Without it the next receiver knows only \
                 what the output holds: messages in outputs that were moved away before may be \
                 written again."
            }
            Self::Checkpoint(error) => error.advice(),
            Self::Open { .. } | Self::Write { .. } | Self::Quarantine { .. } => {
                "Check that you may write to the folder and the file."
            }
        }
    }
}
