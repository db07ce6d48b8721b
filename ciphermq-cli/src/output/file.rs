//! A file of lines that survives crashes, with one writer.
//!
//! Every append is one write and one sync; what has been appended is there after a crash, and what a crash
//! has torn is cut off by the next [`OutputFile::open`]. A lock on the file keeps a second writer away.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ciphermq_client::{ClientId, MessageId};

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
            Self::Moved(_) => "Run the receiver again. Move outputs only while no receiver writes them.",
            Self::Write { .. } => {
                "Check the disk and its free space, then run the receiver again: what was not written is delivered again."
            }
        }
    }
}

/// What stood in the file when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Messages in it.
    pub(crate) messages: u64,
    /// Bytes of a torn last line that were cut off.
    pub(crate) torn_bytes: u64,
    /// Lines in its midst that are none of ours, and were left alone.
    pub(crate) other_lines: u64,
}

/// An output file, open and locked.
#[derive(Debug)]
pub(crate) struct OutputFile {
    file: File,
    path: PathBuf,
}

impl OutputFile {
    /// Opens the file, makes it and its folder if they are not there, locks it, cuts off a torn last line, and
    /// tells `processed` of every message in it.
    ///
    /// What was found is synced before this returns: a process that was killed between write and sync has left
    /// lines that a crash of the machine could still take.
    ///
    /// # Errors
    ///
    /// [`OutputError`], all but [`OutputError::Moved`].
    pub(crate) fn open(
        path: &Path,
        mut processed: impl FnMut(Option<ClientId>, MessageId),
    ) -> Result<(Self, Found), OutputError> {
        let failed = |source| OutputError::Open {
            path: path.to_owned(),
            source,
        };
        let file = open_append(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OutputError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let (found, end) = scan(&file, &mut processed).map_err(|error| match error {
            ScanError::Foreign => OutputError::Foreign(path.to_owned()),
            ScanError::Read(source) => failed(source),
        })?;
        let output = Self {
            file,
            path: path.to_owned(),
        };
        if found.torn_bytes > 0 {
            output.file.set_len(end).map_err(failed)?;
        }
        output.file.sync_all().map_err(failed)?;
        sync_folder(path).map_err(failed)?;
        Ok((output, found))
    }

    /// Appends whole lines with one write, and syncs them. Afterwards they survive any crash.
    ///
    /// # Errors
    ///
    /// [`OutputError`]: then none of the lines counts as written, and what part of them could be is cut off.
    pub(crate) fn append(&mut self, lines: &[u8]) -> Result<(), OutputError> {
        self.check_place()?;
        let failed = |source| OutputError::Write {
            path: self.path.clone(),
            source,
        };
        let before = self.file.metadata().map_err(failed)?.len();
        let written = (&self.file).write_all(lines).and_then(|()| self.file.sync_data());
        written.map_err(|source| {
            // After a failed sync the system may show bytes that the disk does not have: a later receiver must not
            // take them for written.
            let _ = self.file.set_len(before).and_then(|()| self.file.sync_all());
            failed(source)
        })
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

/// Appends lines to a file that many may write, such as a quarantine, and syncs them.
///
/// # Errors
///
/// [`OutputError`] if the file cannot be opened or written.
pub(crate) fn append_shared(path: &Path, lines: &[u8]) -> Result<(), OutputError> {
    let file = open_append(path).map_err(|source| OutputError::Open {
        path: path.to_owned(),
        source,
    })?;
    let failed = |source| OutputError::Write {
        path: path.to_owned(),
        source,
    };
    (&file)
        .write_all(lines)
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder(path))
        .map_err(failed)
}

fn open_append(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

/// Syncs the folder, or a crash could take the new file's name.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

enum ScanError {
    Foreign,
    Read(io::Error),
}

/// Reads the whole file, a line at a time; tells what was found, and where the last whole line ends.
fn scan(
    file: &File,
    processed: &mut impl FnMut(Option<ClientId>, MessageId),
) -> Result<(Found, u64), ScanError> {
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    reader.seek(SeekFrom::Start(0)).map_err(ScanError::Read)?;
    let (mut found, mut end, mut line) = (Found::default(), 0u64, Vec::new());
    loop {
        line.clear();
        let mut bounded = io::Read::take(&mut reader, MAX_LINE_BYTES);
        let length = bounded.read_until(b'\n', &mut line).map_err(ScanError::Read)?;
        if length == 0 {
            return Ok((found, end));
        }
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        if line.last() != Some(&b'\n') {
            if length >= MAX_LINE_BYTES || !is_torn(&line) {
                return Err(ScanError::Foreign);
            }
            found.torn_bytes = length;
            return Ok((found, end));
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
