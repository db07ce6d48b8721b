//! A crash-safe file of lines, with one writer.
//!
//! Every append is one write and one sync; appended lines survive a crash, and the next
//! [`OutputFile::open`] removes lines that a crash has torn or damaged. Locks on the file and its
//! checkpoint exclude a second writer.
//!
//! The file need not be read whole to know its messages: the checkpoint beside it covers everything
//! before an offset, and only the rest is read. See [`ciphermq_client::dedup::Checkpointed`].

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ciphermq_client::checkpoint::{CheckpointError, Unreadable};
use ciphermq_client::dedup::{self, Checkpointed, Recorder};
use ciphermq_client::{ClientId, Deduplication as _, MessageId};
use ciphermq_files::{
    Access, FileId, Need, duplicate_descriptor, is_appending, is_same_file, open_append,
    own_descriptor, resolve,
};

use super::error::OutputError;
use super::scan::{Scan, ScanError, scan};
use super::{damage, shared};

/// The state in which an output and its checkpoint were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenReport {
    /// The number of messages that the checkpoint knew already.
    pub(crate) known: u64,
    /// The number of messages in the part of the file that was read.
    pub(crate) messages: u64,
    /// The damage that was removed.
    pub(crate) removed: Option<RemovedDamage>,
    /// Whether the last line had no ending, which was added.
    pub(crate) added_line_ending: bool,
    /// The number of lines that no receiver has written; they were left alone.
    pub(crate) foreign_lines: u64,
    /// The length of the checkpoint's file, if the output is another one.
    pub(crate) other_file_bytes: Option<u64>,
    /// The path of the damaged checkpoint, if it was rebuilt.
    pub(crate) damaged_checkpoint: Option<PathBuf>,
}

/// Damage that was removed from an output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RemovedDamage {
    /// The file in which it is kept.
    pub(crate) kept_in: PathBuf,
    /// The number of removed bytes.
    pub(crate) bytes: u64,
    /// Whether it was only an unfinished last line.
    pub(crate) is_torn_line: bool,
    /// The number of damaged lines and second copies among whole lines, which stay.
    pub(crate) lines: u64,
    /// Messages of damaged lines that were processed, and will not be delivered again.
    pub(crate) processed: Vec<MessageId>,
}

/// The paths of an output and its checkpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputLocation<'a> {
    pub(crate) output: &'a Path,
    pub(crate) checkpoint: &'a Path,
    /// Whether the checkpoint's output is permanently lost, whatever it held.
    pub(crate) is_gone: bool,
}

/// An open and locked output file.
#[derive(Debug)]
pub(crate) struct OutputFile {
    file: File,
    /// The resolved path.
    path: PathBuf,
    /// The path as it was given, for messages.
    given: PathBuf,
    record: Checkpointed,
    /// Whether a write has failed: the contents are uncertain, so no checkpoint may be written.
    has_failed: bool,
}

impl OutputFile {
    /// Opens and locks the file, removes torn and damaged lines, and learns from the checkpoint and
    /// from the lines after it which messages were processed. A new file or folder is private to
    /// its owner.
    ///
    /// Syncs the file before it returns: a process that was killed between write and sync has left
    /// lines that a crash of the machine could still destroy.
    ///
    /// # Errors
    ///
    /// [`OutputError`], all but [`OutputError::Moved`].
    pub(crate) fn open(location: OutputLocation<'_>) -> Result<(Self, OpenReport), OutputError> {
        let path = location.output;
        let failed = |source| OutputError::Open {
            path: path.to_owned(),
            source,
        };
        let unwritten = |source| OutputError::Write {
            path: path.to_owned(),
            source,
        };
        let existed = path.exists();
        let (file, resolved) = open_file(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OutputError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Two unused names can be the same file on a case-insensitive file system.
        if is_same_file(path, location.checkpoint) {
            return Err(OutputError::OneFile(path.to_owned()));
        }
        let mut report = OpenReport::default();
        let had_checkpoint = location.checkpoint.exists();
        let mut record = open_checkpoint(&file, location, &mut report)?;
        report.known = record.recorder().messages();
        // Before anything is looked for in it.
        damage::put_back(&file, &resolved, existed).map_err(unwritten)?;
        let is_lost = !existed && !record.is_closed();
        let (start, is_ours, other_file_bytes) = match record.find_lines(&file).map_err(failed)? {
            dedup::Found::Tail { offset } => (offset, true, None),
            dedup::Found::Other { offset, .. } => (0, false, Some(offset)),
            _ => (0, false, None),
        };
        if (is_lost || other_file_bytes.is_some()) && !record.is_closed() && !location.is_gone {
            if !existed {
                // The moved file is to be put back here.
                let _ = std::fs::remove_file(&resolved);
            }
            return Err(OutputError::Unknown(path.to_owned()));
        }
        report.other_file_bytes = other_file_bytes;
        let recorder = record.recorder();
        let scanned = scan(&file, start, is_ours, |sender, message_id| {
            let is_new = !recorder.is_processed(sender, message_id);
            record.note(sender, message_id);
            is_new
        });
        let scanned = match scanned {
            Ok(scanned) if start == 0 && scanned.is_foreign => {
                Err(OutputError::Unrecognised(path.to_owned()))
            }
            Ok(scanned) => Ok(scanned),
            Err(ScanError::Foreign) => Err(OutputError::Foreign(path.to_owned())),
            Err(ScanError::Read(source)) => Err(failed(source)),
        };
        let scanned = scanned.inspect_err(|_| {
            // The file is not an output, so the new checkpoint beside it is useless.
            if !had_checkpoint && let Ok(checkpoint) = resolve(location.checkpoint) {
                let _ = std::fs::remove_file(checkpoint);
            }
        })?;
        let end = repair(&file, &resolved, &recorder, scanned, &mut report).map_err(unwritten)?;
        file.sync_all().map_err(unwritten)?;
        // From now on the file may hold more than the checkpoint knows.
        record.checkpoint(&file, end)?;
        let output = Self {
            file,
            path: resolved,
            given: path.to_owned(),
            record,
            has_failed: false,
        };
        Ok((output, report))
    }

    /// The consumer's id, the same in every run with this output.
    pub(crate) fn consumer_id(&self) -> &str {
        self.record.consumer_id()
    }

    /// The recorder of processed messages, for a consumer.
    pub(crate) fn recorder(&self) -> Recorder {
        self.record.recorder()
    }

    /// Appends the whole lines of `messages` with one write, and syncs them. Afterwards they
    /// survive any crash, and the messages count as processed.
    ///
    /// # Errors
    ///
    /// [`OutputError`]: then none of the lines counts as written, and a partial write is truncated.
    /// After `Checkpoint` they are written, but must not be acked either: the receiver ends, and
    /// the next one knows them.
    pub(crate) fn append<'m>(
        &mut self,
        lines: &[u8],
        messages: impl IntoIterator<Item = (Option<&'m ClientId>, &'m MessageId)>,
    ) -> Result<(), OutputError> {
        self.check_path()?;
        let failed = |source| OutputError::Write {
            path: self.given.clone(),
            source,
        };
        let before = self.file.metadata().map_err(failed)?.len();
        self.has_failed = true;
        let written = (&self.file)
            .write_all(lines)
            .and_then(|()| self.file.sync_data());
        written.map_err(|source| {
            // After a failed sync the system may return bytes that are not on the disk: a later
            // receiver must not take them for written.
            let _ = self
                .file
                .set_len(before)
                .and_then(|()| self.file.sync_all());
            failed(source)
        })?;
        self.has_failed = false;
        for (sender, message_id) in messages {
            self.record.note(sender, message_id);
        }
        let end = before.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        if self.record.is_due(end) {
            self.record.checkpoint(&self.file, end)?;
        }
        Ok(())
    }

    /// Writes a final checkpoint that covers the whole file. Afterwards the file may be moved away.
    ///
    /// # Errors
    ///
    /// [`OutputError::Checkpoint`]: nothing is lost, but the next receiver reads more of the file.
    pub(crate) fn close(self) -> Result<(), OutputError> {
        self.check_path()?;
        if self.has_failed {
            return Ok(());
        }
        let end = self
            .file
            .metadata()
            .map_err(|source| OutputError::Write {
                path: self.given.clone(),
                source,
            })?
            .len();
        Ok(self.record.close(&self.file, end)?)
    }

    /// Checks that the path still leads to the file: lines appended to a removed file would be
    /// lost, although they are acked.
    fn check_path(&self) -> Result<(), OutputError> {
        match FileId::leads_to(&self.path, &self.file) {
            true => Ok(()),
            false => Err(OutputError::Moved(self.given.clone())),
        }
    }
}

/// Opens an output for appending and reading, and returns it with its resolved path.
///
/// The file of a descriptor is opened once more: the descriptor may not be readable, and its lock
/// would outlive the receiver.
fn open_file(path: &Path) -> Result<(File, PathBuf), OutputError> {
    let failed = |source| OutputError::Open {
        path: path.to_owned(),
        source,
    };
    let resolved = resolve(path).map_err(failed)?;
    let Some(number) = own_descriptor(&resolved) else {
        return open_append(path, Access::Private).map_err(failed);
    };
    if !is_appending(&duplicate_descriptor(number, Need::Write).map_err(failed)?) {
        return Err(OutputError::NotAppending(path.to_owned()));
    }
    let file = OpenOptions::new().read(true).append(true).open(&resolved);
    Ok((file.map_err(failed)?, resolved))
}

/// Opens the checkpoint. A damaged one is rebuilt, if there is an output to rebuild it from.
fn open_checkpoint(
    file: &File,
    location: OutputLocation<'_>,
    report: &mut OpenReport,
) -> Result<Checkpointed, OutputError> {
    match Checkpointed::open(location.checkpoint) {
        Err(CheckpointError::Unreadable {
            reason: Unreadable::Damaged | Unreadable::Line(_),
            ..
        }) if file.metadata().is_ok_and(|output| output.len() > 0) => {
            let (record, damaged) = Checkpointed::rebuild(location.checkpoint)?;
            report.damaged_checkpoint = damaged;
            Ok(record)
        }
        other => Ok(other?),
    }
}

/// Removes damage, and adds the ending of the last line. Returns the new length of the file.
fn repair(
    mut file: &File,
    path: &Path,
    recorder: &Recorder,
    scanned: Scan,
    report: &mut OpenReport,
) -> io::Result<u64> {
    report.messages = scanned.messages;
    report.foreign_lines = scanned.foreign_lines;
    let mut end = scanned.end;
    if let Some(mut damage) = scanned.damage {
        let bytes = file.metadata()?.len().saturating_sub(end);
        let (kept_in, new_end) = damage::remove(file, path, end, &damage)?;
        end = new_end;
        let mut seen = BTreeSet::new();
        damage
            .ids
            .retain(|id| recorder.is_any_processed(id) && seen.insert(id.clone()));
        report.removed = Some(RemovedDamage {
            kept_in,
            bytes: bytes.saturating_sub(damage.kept.len() as u64),
            is_torn_line: damage.is_torn_line,
            lines: damage.lines,
            processed: damage.ids,
        });
    }
    if !shared::is_ended(file, end)? {
        file.write_all(b"\n")?;
        end = end.saturating_add(1);
        report.added_line_ending = true;
    }
    Ok(end)
}

#[cfg(test)]
mod tests;
