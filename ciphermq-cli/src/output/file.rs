//! A file of lines that survives crashes, with one writer.
//!
//! Every append is one write and one sync; what has been appended is there after a crash, and what
//! a crash has torn or damaged is taken out by the next [`OutputFile::open`]. Locks on the file and
//! its checkpoint keep a second writer away.
//!
//! What the file holds is known again without reading all of it: the checkpoint beside it knows
//! what stands before an offset, and only what follows is read. See
//! [`ciphermq_client::dedup::Checkpointed`].

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ciphermq_client::checkpoint::{CheckpointError, Unreadable};
use ciphermq_client::dedup::{self, Checkpointed, Recorder};
use ciphermq_client::{ClientId, Deduplication as _, MessageId};
use ciphermq_files::{Access, FileId, is_same_file, open_append, resolve};

use super::scan::{Scan, ScanError, scan};
use super::{aside, shared};

/// What can go wrong with an output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// The file or its folder cannot be made, opened or read.
    #[error("The output {} cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// Another process holds the lock.
    #[error("Another receiver is writing the output {}", .0.display())]
    Locked(PathBuf),
    /// The file ends in the middle of a line that is none of ours.
    #[error("The output {} ends with an unfinished line that no receiver has \
             written", .0.display())]
    Foreign(PathBuf),
    /// The file holds something else than received messages.
    #[error("{} holds something, but no line that a receiver has written", .0.display())]
    NotOurs(PathBuf),
    /// The output and its checkpoint are one file.
    #[error("The output {} and its checkpoint are one file", .0.display())]
    OneFile(PathBuf),
    /// Somebody moved or removed the file while we were writing it.
    #[error("The output {} was moved or removed while it was being written", .0.display())]
    Moved(PathBuf),
    /// The output is not the one of its checkpoint, and what was written last is not known.
    #[error("The output {} was moved, cut or replaced after its last receiver was \
             killed", .0.display())]
    Unknown(PathBuf),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The quarantine cannot be made, opened or written.
    #[error("The quarantine {} cannot be written: {source}", path.display())]
    Quarantine { path: PathBuf, source: io::Error },
    /// A write or a sync failed. Nothing of it counts as written.
    #[error("The output {} cannot be written: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl OutputError {
    /// What to do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Open { .. } => {
                "Check that the folder and the file are yours to write, or name another one with \
                 --output."
            }
            Self::Locked(_) => {
                "End the other receiver, or give this one an output of its own with --output."
            }
            Self::Foreign(_) => "Name another file with --output, or end that line.",
            Self::NotOurs(_) => {
                "Name another file, or move this one away: what it holds would be of no use with \
                 messages behind it."
            }
            Self::OneFile(_) => "Name another file with --checkpoint.",
            Self::Moved(_) => {
                "Put the file back where it was, then run the receiver again. Move outputs only \
                 while no receiver writes them."
            }
            Self::Unknown(_) => {
                "That receiver may have written messages that only the moved file tells of: put it \
                 back and run the receiver once, then move it.\nIf it is gone for good, run the \
                 receiver with --output-is-gone: what was written last may then be written once \
                 more."
            }
            Self::Checkpoint(CheckpointError::Open { .. } | CheckpointError::Write { .. }) => {
                "Check that the folder is yours to write and has room, or name another place with \
                 --checkpoint."
            }
            Self::Checkpoint(CheckpointError::Locked(_)) => {
                "Another receiver works with it: end that one, or give this one an output of its \
                 own with --output."
            }
            Self::Checkpoint(CheckpointError::Unreadable {
                reason: Unreadable::Damaged | Unreadable::Line(_),
                ..
            }) => {
                "There is no output to build it from anew. Put back a copy of it, or remove it: \
                 then nothing is known of earlier runs, and what they wrote and could not \
                 acknowledge is written once more."
            }
            Self::Checkpoint(error) => error.advice(),
            Self::Quarantine { .. } => {
                "Check that the folder and the file are yours to write and that there is room, or \
                 name another one with --quarantine."
            }
            Self::Write { .. } => {
                "Check the disk and its free space, then run the receiver again: what was not \
                 written is delivered again."
            }
        }
    }
}

/// What was known and what stood in the file when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Messages that the checkpoint knew already.
    pub(crate) known: u64,
    /// Messages in the part of the file that was read.
    pub(crate) messages: u64,
    /// What was taken out.
    pub(crate) taken_out: Option<TakenOut>,
    /// The last line had no ending, and was given one.
    pub(crate) is_ended_now: bool,
    /// Lines in its midst that are none of ours, and were left alone.
    pub(crate) other_lines: u64,
    /// The file is not the one of the checkpoint: that one had so many bytes.
    pub(crate) other_file: Option<u64>,
    /// The checkpoint was damaged and was built anew; the damaged one is here.
    pub(crate) damaged: Option<PathBuf>,
}

/// What was damaged in an output and was taken out of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TakenOut {
    /// Where it is kept.
    pub(crate) aside: PathBuf,
    /// How many bytes.
    pub(crate) bytes: u64,
    /// It was an unfinished last line.
    pub(crate) is_torn_line: bool,
    /// Damaged lines and second copies among whole lines, which stay.
    pub(crate) lines: u64,
    /// Messages of damaged lines that were processed, and do not come again.
    pub(crate) processed: Vec<MessageId>,
}

/// Where an output and its checkpoint are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The output.
    pub(crate) output: &'a Path,
    /// Its checkpoint.
    pub(crate) checkpoint: &'a Path,
    /// The output that the checkpoint tells of is gone for good, whatever was in it.
    pub(crate) is_gone: bool,
}

/// An output file, open and locked.
#[derive(Debug)]
pub(crate) struct OutputFile {
    file: File,
    path: PathBuf,
    record: Checkpointed,
    /// A write has failed: nobody knows what the file holds, so no checkpoint may say so.
    is_broken: bool,
}

impl OutputFile {
    /// Opens the file, makes it and its folder if they are not there, for their owner alone, locks
    /// it, takes out what is torn or damaged, and learns what was processed: from the checkpoint,
    /// and from what follows it in the file.
    ///
    /// What was found is synced before this returns: a process that was killed between write and
    /// sync has left lines that a crash of the machine could still take.
    ///
    /// # Errors
    ///
    /// [`OutputError`], all but [`OutputError::Moved`].
    pub(crate) fn open(place: Place<'_>) -> Result<(Self, Found), OutputError> {
        let path = place.output;
        let failed = |source| OutputError::Open {
            path: path.to_owned(),
            source,
        };
        let was_there = path.exists();
        let (file, resolved) = open_append(path, Access::Private).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OutputError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Both may have been free, and one name to this folder all the same.
        if is_same_file(path, place.checkpoint) {
            return Err(OutputError::OneFile(path.to_owned()));
        }
        let mut found = Found::default();
        let had_checkpoint = place.checkpoint.exists();
        let mut record = open_record(&file, place, &mut found)?;
        found.known = record.recorder().messages();
        let is_lost = !was_there && !record.is_closed();
        let (start, is_ours, other_file) = match record.find_lines(&file).map_err(failed)? {
            dedup::Found::Tail { offset } => (offset, true, None),
            dedup::Found::Other { offset, .. } => (0, false, Some(offset)),
            _ => (0, false, None),
        };
        if (is_lost || other_file.is_some()) && !record.is_closed() && !place.is_gone {
            if !was_there {
                // An empty one in the moved one's place would only be in the way.
                let _ = std::fs::remove_file(&resolved);
            }
            return Err(OutputError::Unknown(path.to_owned()));
        }
        found.other_file = other_file;
        let recorder = record.recorder();
        let scanned = scan(&file, start, is_ours, |sender, message_id| {
            let is_new = !recorder.is_processed(sender, message_id);
            record.note(sender, message_id);
            is_new
        });
        let scanned = match scanned {
            Ok(scanned) if start == 0 && scanned.is_foreign => {
                Err(OutputError::NotOurs(path.to_owned()))
            }
            Ok(scanned) => Ok(scanned),
            Err(ScanError::Foreign) => Err(OutputError::Foreign(path.to_owned())),
            Err(ScanError::Read(source)) => Err(failed(source)),
        };
        let scanned = scanned.inspect_err(|_| {
            // Beside a file that is none of ours there need be no checkpoint: this one is new.
            if !had_checkpoint && let Ok(checkpoint) = resolve(place.checkpoint) {
                let _ = std::fs::remove_file(checkpoint);
            }
        })?;
        let end = mend(&file, &resolved, &recorder, scanned, &mut found).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        // From now on there may be more in the file than the checkpoint knows.
        record.checkpoint(&file, end)?;
        let output = Self {
            file,
            path: resolved,
            record,
            is_broken: false,
        };
        Ok((output, found))
    }

    /// What the consumer of this output is called, at each start.
    pub(crate) fn consumer_id(&self) -> &str {
        self.record.consumer_id()
    }

    /// What was processed, for a consumer.
    pub(crate) fn recorder(&self) -> Recorder {
        self.record.recorder()
    }

    /// Appends whole lines with one write, and syncs them. Afterwards they survive any crash, and
    /// `messages`, which they are of, count as processed.
    ///
    /// # Errors
    ///
    /// [`OutputError`]: then none of the lines counts as written, and what part of them could be is
    /// cut off. After `Checkpoint` they are written, and must not be acked all the same: the
    /// receiver ends, and the next one knows.
    pub(crate) fn append<'m>(
        &mut self,
        lines: &[u8],
        messages: impl IntoIterator<Item = (Option<&'m ClientId>, &'m MessageId)>,
    ) -> Result<(), OutputError> {
        self.check_place()?;
        let failed = |source| OutputError::Write {
            path: self.path.clone(),
            source,
        };
        let before = self.file.metadata().map_err(failed)?.len();
        self.is_broken = true;
        let written = (&self.file)
            .write_all(lines)
            .and_then(|()| self.file.sync_data());
        written.map_err(|source| {
            // After a failed sync the system may show bytes that the disk does not have: a later
            // receiver must not take them for written.
            let _ = self
                .file
                .set_len(before)
                .and_then(|()| self.file.sync_all());
            failed(source)
        })?;
        self.is_broken = false;
        for (sender, message_id) in messages {
            self.record.note(sender, message_id);
        }
        let end = before.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        if self.record.is_due(end) {
            self.record.checkpoint(&self.file, end)?;
        }
        Ok(())
    }

    /// Nothing more is written: the checkpoint says so, and knows everything. Now the file may be
    /// moved away.
    ///
    /// # Errors
    ///
    /// [`OutputError::Checkpoint`]: the next receiver reads more of the file, nothing else.
    pub(crate) fn close(self) -> Result<(), OutputError> {
        self.check_place()?;
        if self.is_broken {
            return Ok(());
        }
        let end = self
            .file
            .metadata()
            .map_err(|source| OutputError::Write {
                path: self.path.clone(),
                source,
            })?
            .len();
        Ok(self.record.close(&self.file, end)?)
    }

    /// The path must still lead to the file: lines appended to one that was removed are lost, and
    /// acked.
    fn check_place(&self) -> Result<(), OutputError> {
        match FileId::leads_to(&self.path, &self.file) {
            true => Ok(()),
            false => Err(OutputError::Moved(self.path.clone())),
        }
    }
}

/// Opens the checkpoint. One that is damaged is built anew from the output, if there is one.
fn open_record(
    file: &File,
    place: Place<'_>,
    found: &mut Found,
) -> Result<Checkpointed, OutputError> {
    match Checkpointed::open(place.checkpoint) {
        Err(CheckpointError::Unreadable {
            reason: Unreadable::Damaged | Unreadable::Line(_),
            ..
        }) if file.metadata().is_ok_and(|output| output.len() > 0) => {
            let (record, aside) = Checkpointed::rebuild(place.checkpoint)?;
            found.damaged = aside;
            Ok(record)
        }
        other => Ok(other?),
    }
}

/// Takes out what must not stay, and gives the last line its ending; where the file ends now.
fn mend(
    mut file: &File,
    path: &Path,
    recorder: &Recorder,
    scanned: Scan,
    found: &mut Found,
) -> io::Result<u64> {
    found.messages = scanned.messages;
    found.other_lines = scanned.other_lines;
    let mut end = scanned.end;
    if let Some(mut damage) = scanned.damage {
        let bytes = file.metadata()?.len().saturating_sub(end);
        let (aside, new_end) = aside::take_out(file, path, end, &damage)?;
        end = new_end;
        let mut seen = BTreeSet::new();
        damage
            .ids
            .retain(|id| recorder.is_any_processed(id) && seen.insert(id.clone()));
        found.taken_out = Some(TakenOut {
            aside,
            bytes: bytes.saturating_sub(damage.kept.len() as u64),
            is_torn_line: damage.is_torn_line,
            lines: damage.lines,
            processed: damage.ids,
        });
    }
    if !shared::is_ended(file, end)? {
        file.write_all(b"\n")?;
        end = end.saturating_add(1);
        found.is_ended_now = true;
    }
    Ok(end)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
