//! A file of lines that survives crashes, with one writer.
//!
//! Every append is one write and one sync; what has been appended is there after a crash, and what a crash
//! has torn is cut off by the next [`OutputFile::open`]. Locks on the file and its checkpoint keep a second writer away.
//!
//! What the file holds is known again without reading all of it: the checkpoint beside it knows what stands before an
//! offset, and only what follows is read. See [`ciphermq_client::dedup::Checkpointed`].

use std::fs::{File, TryLockError};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ciphermq_client::checkpoint::{CheckpointError, Unreadable};
use ciphermq_client::dedup::{self, Checkpointed, Recorder};
use ciphermq_client::{ClientId, MessageId};
use ciphermq_files::{Access, open_append, sync_file};

use super::record::{Processed, START};

/// No line that we wrote is longer: a sealed message is bounded by the server's longest line.
const MAX_LINE_BYTES: u64 = 1 << 30;

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
    #[error("The output {} ends with an unfinished line that no receiver has written", .0.display())]
    Foreign(PathBuf),
    /// Somebody moved or removed the file while we were writing it.
    #[error("The output {} was moved or removed while it was being written", .0.display())]
    Moved(PathBuf),
    /// The output is not the one of its checkpoint, and what was written last is not known.
    #[error("The output {} was moved, cut or replaced after its last receiver was killed", .0.display())]
    Unknown(PathBuf),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A write or a sync failed. Nothing of it counts as written.
    #[error("The output {} cannot be written: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl OutputError {
    /// What to do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Open { .. } => {
                "Check that the folder and the file are yours to write, or name another one with --output."
            }
            Self::Locked(_) => "End the other receiver, or give this one an output of its own with --output.",
            Self::Foreign(_) => "Name another file with --output, or end that line.",
            Self::Moved(_) => {
                "Put the file back where it was, then run the receiver again. Move outputs only while no receiver writes them."
            }
            Self::Unknown(_) => {
                "That receiver may have written messages that only the moved file tells of: put it back and run the receiver once, then move it.\nIf it is gone for good, run the receiver with --output-is-gone: what was written last may then be written once more."
            }
            Self::Checkpoint(CheckpointError::Open { .. } | CheckpointError::Write { .. }) => {
                "Check that the folder is yours to write and has room, or name another place with --checkpoint."
            }
            Self::Checkpoint(CheckpointError::Locked(_)) => {
                "Another receiver works with it: end that one, or give this one an output of its own with --output."
            }
            Self::Checkpoint(CheckpointError::Unreadable {
                reason: Unreadable::Damaged | Unreadable::Line(_),
                ..
            }) => {
                "There is no output to build it from anew. Put back a copy of it, or remove it: then nothing is known of earlier runs, and what they wrote and could not acknowledge is written once more."
            }
            Self::Checkpoint(error) => error.advice(),
            Self::Write { .. } => {
                "Check the disk and its free space, then run the receiver again: what was not written is delivered again."
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
    /// Bytes of a torn last line that were cut off.
    pub(crate) torn_bytes: u64,
    /// Lines in its midst that are none of ours, and were left alone.
    pub(crate) other_lines: u64,
    /// The file is not the one of the checkpoint: that one had so many bytes.
    pub(crate) other_file: Option<u64>,
    /// The checkpoint was damaged and was built anew; the damaged one is here.
    pub(crate) damaged: Option<PathBuf>,
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
    /// Opens the file, makes it and its folder for their owner alone if they are not there, locks it, cuts off a torn last line, and
    /// learns what was processed: from the checkpoint, and from what follows it in the file.
    ///
    /// What was found is synced before this returns: a process that was killed between write and sync has left
    /// lines that a crash of the machine could still take.
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
        let (file, made) = open_append(path, Access::Private).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OutputError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut found = Found::default();
        let mut record = open_record(&file, place, &mut found)?;
        found.known = record.recorder().messages();
        let is_lost = !was_there && !record.is_closed();
        let (start, other_file) = match record.find(&file).map_err(failed)? {
            dedup::Found::Tail { offset } => (offset, None),
            dedup::Found::Other { offset, .. } => (0, Some(offset)),
            _ => (0, None),
        };
        if (is_lost || other_file.is_some()) && !record.is_closed() && !place.is_gone {
            if !was_there {
                // An empty one in the moved one's place would only be in the way.
                let _ = std::fs::remove_file(made);
            }
            return Err(OutputError::Unknown(path.to_owned()));
        }
        found.other_file = other_file;
        let mut processed = |sender: Option<ClientId>, id| record.note(sender.as_ref(), &id);
        let end = scan(&file, start, &mut found, &mut processed).map_err(|error| match error {
            ScanError::Foreign => OutputError::Foreign(path.to_owned()),
            ScanError::Read(source) => failed(source),
        })?;
        if found.torn_bytes > 0 {
            file.set_len(end).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        // From now on there may be more in the file than the checkpoint knows.
        record.checkpoint(&file, end)?;
        let path = path.to_owned();
        let output = Self {
            file,
            path,
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

    /// Appends whole lines with one write, and syncs them. Afterwards they survive any crash, and `messages`, which
    /// they are of, count as processed.
    ///
    /// # Errors
    ///
    /// [`OutputError`]: then none of the lines counts as written, and what part of them could be is cut off. After
    /// `Checkpoint` they are written, and must not be acked all the same: the receiver ends, and the next one knows.
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
        let written = (&self.file).write_all(lines).and_then(|()| self.file.sync_data());
        written.map_err(|source| {
            // After a failed sync the system may show bytes that the disk does not have: a later receiver must not
            // take them for written.
            let _ = self.file.set_len(before).and_then(|()| self.file.sync_all());
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

    /// Nothing more is written: the checkpoint says so, and knows everything. Now the file may be moved away.
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

    /// The path must still lead to the file: lines appended to one that was removed are lost, and acked.
    fn check_place(&self) -> Result<(), OutputError> {
        let ours = self.file.metadata();
        let there = std::fs::metadata(&self.path);
        match (ours, there) {
            (Ok(ours), Ok(there)) if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) => Ok(()),
            _ => Err(OutputError::Moved(self.path.clone())),
        }
    }
}

/// Opens the checkpoint. One that is damaged is built anew from the output, if there is one.
fn open_record(file: &File, place: Place<'_>, found: &mut Found) -> Result<Checkpointed, OutputError> {
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

/// Appends lines to a file that many may write, such as a quarantine, and syncs them. A pipe or a device is written.
///
/// # Errors
///
/// [`OutputError`] if the file cannot be opened or written.
pub(crate) fn append_shared(path: &Path, lines: &[u8]) -> Result<(), OutputError> {
    let (file, _) = open_append(path, Access::Private).map_err(|source| OutputError::Open {
        path: path.to_owned(),
        source,
    })?;
    let failed = |source| OutputError::Write {
        path: path.to_owned(),
        source,
    };
    (&file)
        .write_all(lines)
        .and_then(|()| sync_file(&file))
        .map_err(failed)
}

enum ScanError {
    Foreign,
    Read(io::Error),
}

/// Reads the file from `start` on, a line at a time; tells what was found, and where the last whole line ends.
fn scan(
    file: &File,
    start: u64,
    found: &mut Found,
    processed: &mut impl FnMut(Option<ClientId>, MessageId),
) -> Result<u64, ScanError> {
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    reader.seek(SeekFrom::Start(start)).map_err(ScanError::Read)?;
    let (mut end, mut line) = (start, Vec::new());
    loop {
        line.clear();
        let mut bounded = io::Read::take(&mut reader, MAX_LINE_BYTES);
        let length = bounded.read_until(b'\n', &mut line).map_err(ScanError::Read)?;
        if length == 0 {
            return Ok(end);
        }
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        if line.last() != Some(&b'\n') {
            if length >= MAX_LINE_BYTES || !is_torn(&line) {
                return Err(ScanError::Foreign);
            }
            found.torn_bytes = length;
            return Ok(end);
        }
        end += length;
        match read(&line) {
            Some((sender, message_id)) => {
                found.messages += 1;
                processed(sender, message_id);
            }
            None => found.other_lines += 1,
        }
    }
}

fn read(line: &[u8]) -> Option<(Option<ClientId>, MessageId)> {
    let line: Processed<'_> = serde_json::from_slice(line).ok()?;
    let sender = line
        .sender
        .filter(|_| line.sender_verified)
        .map(|sender| ClientId::new(&sender))
        .transpose()
        .ok()?;
    Some((sender, MessageId::new(&line.message_id).ok()?))
}

/// Whether an unfinished line can be what a crash left of ours: the beginning of one, and where the machine
/// itself went down, zeros in place of what was not yet on the disk.
fn is_torn(line: &[u8]) -> bool {
    line.iter()
        .zip(START)
        .all(|(byte, start)| byte == start || *byte == 0)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
