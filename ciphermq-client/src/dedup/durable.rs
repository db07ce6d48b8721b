//! A record with a checkpoint and a journal, which survives crashes on its own.
//!
//! ```text
//!   <path>           checkpoint: intervals, replaced as a whole now and then
//!   <path>.journal   later messages: a group of lines for every sync, each ended by a checksum
//! ```
//!
//! [`Deduplication::sync`] appends one group and syncs it, before its messages are acknowledged.
//! When the journal has become long, everything goes into a new checkpoint and the journal starts
//! anew; a crash between the two leaves a journal that repeats what the checkpoint contains.
//! Opening reads the checkpoint, whose size depends on the streams and their gaps, and a journal of
//! bounded length, regardless of the number of processed messages.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ciphermq_files::{Access, beside, open_append};
use ciphermq_protocol::{ClientId, MessageId};
use sha2::{Digest as _, Sha256};

use super::checkpointed::KIND;
use super::{Deduplication, InMemory, RecordError, StreamGaps, text};
use crate::checkpoint::{self, CheckpointError, CheckpointFile, Unreadable};

/// Length of the journal above which it is compacted into the checkpoint, if it is also twice as
/// long as that.
const JOURNAL_BYTES: u64 = 256 * 1024;

/// Start of a group's last line, followed by the length of its lines in bytes and the first 16
/// digits of their SHA-256.
const END: &str = "end ";

/// Remembers processed messages across crashes, in two small files.
///
/// Ids of this SDK's publishers are remembered indefinitely; of other clients' ids the last
/// 100,000. Both files are locked: a second process with the same record is refused.
///
/// ```no_run
/// # async fn run(client: ciphermq_client::Client, queue: ciphermq_client::QueueName, keyring: ciphermq_client::Keyring)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use ciphermq_client::dedup::Durable;
/// let record = Durable::open("data/processed".as_ref())?;
/// let consumer = client.consumer(&queue).keyring(keyring).dedup(record).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Durable {
    checkpoint: CheckpointFile,
    checkpoint_bytes: u64,
    journal: File,
    journal_path: PathBuf,
    journal_bytes: u64,
    record: InMemory,
    /// Recorded, but not in the journal yet.
    pending: InMemory,
    is_pending: bool,
    /// A write or a sync has failed: the journal's content is unknown, so a new checkpoint must be
    /// written next.
    is_broken: bool,
}

impl Durable {
    /// Opens the record, or creates an empty one.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]. An `Unreadable` record is left as it is: nothing is forgotten silently.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let failed = |source| CheckpointError::Open {
            path: path.to_owned(),
            source,
        };
        let unreadable = |reason| CheckpointError::Unreadable {
            path: path.to_owned(),
            reason,
        };
        let (checkpoint, content) = loop {
            if let Some(opened) = CheckpointFile::open(path)? {
                break opened;
            }
            let empty = checkpoint::encode(KIND, "");
            if let Some(file) = CheckpointFile::create(path, &empty)? {
                break (file, empty);
            }
        };
        let mut record = InMemory::default();
        for (index, line) in checkpoint::decode(KIND, &content)
            .map_err(unreadable)?
            .lines()
            .enumerate()
        {
            text::read(line, &mut record).ok_or_else(|| unreadable(Unreadable::Line(index + 2)))?;
        }
        let journal_path = beside(path, ".journal");
        let (mut journal, _) = open_append(&journal_path, Access::Private).map_err(failed)?;
        let mut groups = Vec::new();
        journal.read_to_end(&mut groups).map_err(failed)?;
        let whole = replay(&groups, &mut record).ok_or_else(|| CheckpointError::Unreadable {
            path: journal_path.clone(),
            reason: Unreadable::Damaged,
        })?;
        if !text::may_be_torn(groups.get(whole..).unwrap_or_default()) {
            return Err(CheckpointError::Unreadable {
                path: journal_path,
                reason: Unreadable::OtherKind("journal of a ciphermq-processed"),
            });
        }
        let journal_bytes = u64::try_from(whole).unwrap_or(u64::MAX);
        if whole < groups.len() {
            journal.set_len(journal_bytes).map_err(failed)?;
        }
        // Data that a killed process has written and not synced counts from now on.
        journal.sync_all().map_err(failed)?;
        Ok(Self {
            checkpoint,
            checkpoint_bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
            journal,
            journal_path,
            journal_bytes,
            record,
            pending: InMemory::new(usize::MAX),
            is_pending: false,
            is_broken: false,
        })
    }

    /// Returns the number of remembered messages.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.record.messages()
    }

    fn append(&mut self) -> io::Result<()> {
        let mut group = String::new();
        text::write(&self.pending, &mut group);
        let end = format!("{END}{} {}\n", group.len(), sum(group.as_bytes()));
        group.push_str(&end);
        self.journal.write_all(group.as_bytes())?;
        self.journal.sync_data()?;
        self.journal_bytes += u64::try_from(group.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Moves everything into the checkpoint and starts a new journal.
    fn compact(&mut self) -> Result<(), CheckpointError> {
        let mut lines = String::new();
        text::write(&self.record, &mut lines);
        let content = checkpoint::encode(KIND, &lines);
        self.checkpoint.replace(&content)?;
        self.checkpoint_bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
        self.journal
            .set_len(0)
            .and_then(|()| self.journal.sync_all())
            .map_err(|source| CheckpointError::Write {
                path: self.journal_path.clone(),
                source,
            })?;
        self.journal_bytes = 0;
        self.is_broken = false;
        Ok(())
    }
}

impl Deduplication for Durable {
    fn is_processed(&self, sender: Option<&ClientId>, message_id: &MessageId) -> bool {
        self.record.is_processed(sender, message_id)
    }

    fn is_any_processed(&self, message_id: &MessageId) -> bool {
        self.record.is_any_processed(message_id)
    }

    fn record(
        &mut self,
        sender: Option<&ClientId>,
        message_id: &MessageId,
    ) -> Result<(), RecordError> {
        if !self.record.is_processed(sender, message_id) {
            self.record.record(sender, message_id)?;
            self.pending.record(sender, message_id)?;
            self.is_pending = true;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), RecordError> {
        if self.is_pending && !self.is_broken {
            // After a failed sync the system may return bytes that are not on the disk.
            self.is_broken = true;
            self.append()?;
            self.is_broken = false;
        }
        if self.is_broken
            || self.journal_bytes > JOURNAL_BYTES.max(self.checkpoint_bytes.saturating_mul(2))
        {
            self.compact()?;
        }
        self.pending.clear();
        self.is_pending = false;
        Ok(())
    }

    fn gaps(&self) -> Vec<StreamGaps> {
        self.record.gaps()
    }
}

fn sum(lines: &[u8]) -> String {
    let mut sum = hex::encode(Sha256::digest(lines));
    sum.truncate(16);
    sum
}

/// Adds every complete group to `record`; returns their length in bytes. A crash may have torn what
/// follows. `None` if a complete group follows an incomplete one: that is damage, not a crash.
fn replay(journal: &[u8], record: &mut InMemory) -> Option<usize> {
    let (mut whole, mut position) = (0, 0);
    for line in journal.split_inclusive(|&byte| byte == b'\n') {
        let line_start = position;
        position += line.len();
        let Some((bytes, sum_of_lines)) = read_end(line) else {
            continue;
        };
        // The length gives the start of the group, whatever happened to what precedes it.
        let Some(start) = line_start.checked_sub(bytes) else {
            continue;
        };
        let lines = journal.get(start..line_start)?;
        if sum_of_lines != sum(lines) {
            continue;
        }
        if start != whole {
            return None;
        }
        for line in std::str::from_utf8(lines).ok()?.lines() {
            text::read(line, record)?;
        }
        whole = position;
    }
    Some(whole)
}

/// Returns the length of a group's lines and their checksum.
fn read_end(line: &[u8]) -> Option<(usize, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let (bytes, sum) = line
        .strip_prefix(END)?
        .strip_suffix('\n')?
        .split_once(' ')?;
    Some((bytes.parse().ok()?, sum))
}

#[cfg(test)]
mod tests;
