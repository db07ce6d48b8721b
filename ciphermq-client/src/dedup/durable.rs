//! A record that survives crashes by itself.
//!
//! ```text
//!   <path>           checkpoint: intervals, replaced as a whole now and then
//!   <path>.journal   what came after it: a group of lines for every sync, each ended by a checksum
//! ```
//!
//! [`Deduplication::sync`] appends one group and syncs it, before the messages in it are acked.
//! When the journal has become long, everything goes into a new checkpoint and the journal begins
//! anew; a crash between the two leaves a journal that tells what the checkpoint knows already.
//! Opening reads the checkpoint, whose size is that of the streams and their gaps, and a journal of
//! bounded length, however many messages were processed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ciphermq_files::{Access, beside, open_append};
use ciphermq_protocol::{ClientId, MessageId};
use sha2::{Digest as _, Sha256};

use super::checkpointed::KIND;
use super::{Deduplication, InMemory, RecordError, StreamGaps, text};
use crate::checkpoint::{self, CheckpointError, CheckpointFile, Unreadable, hex};

/// A journal that is longer than this, and than twice the checkpoint, goes into the checkpoint.
const JOURNAL_BYTES: u64 = 256 * 1024;

/// How a group ends: with this, the bytes of its lines, and the first 16 digits of their SHA-256.
const END: &str = "end ";

/// Remembers processed messages over crashes, in two small files.
///
/// Ids of this SDK's publishers are remembered for ever; of other clients' ids the last 100,000.
/// Both files are locked: a second process with the same record is refused.
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
    /// Recorded and not yet in the journal.
    pending: InMemory,
    is_pending: bool,
    /// A write or a sync has failed: nobody knows what the journal holds, so the next thing is a
    /// new checkpoint.
    is_broken: bool,
}

impl Durable {
    /// Opens the record; begins one if there is none.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]. What is `Unreadable` is left as it is: nothing is forgotten in silence.
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
        // What a killed process has written and not synced counts from now on.
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

    /// How many messages it remembers.
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

    /// Puts everything into the checkpoint, and begins the journal anew.
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
            // After a failed sync the system may show bytes that the disk does not have.
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
    let mut sum = hex(&Sha256::digest(lines));
    sum.truncate(16);
    sum
}

/// Adds every whole group to `record`; how many bytes they take. What follows them was torn by a
/// crash. `None` if a whole group stands behind something broken: that is damage, and no crash.
fn replay(journal: &[u8], record: &mut InMemory) -> Option<usize> {
    let (mut whole, mut position) = (0, 0);
    for line in journal.split_inclusive(|&byte| byte == b'\n') {
        let line_start = position;
        position += line.len();
        let Some((bytes, sum_of_lines)) = read_end(line) else {
            continue;
        };
        // Its length tells where the group began, whatever has become of what stands before it.
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

/// How many bytes the lines of a group have, and their sum.
fn read_end(line: &[u8]) -> Option<(usize, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let (bytes, sum) = line
        .strip_prefix(END)?
        .strip_suffix('\n')?
        .split_once(' ')?;
    Some((bytes.parse().ok()?, sum))
}

#[cfg(test)]
#[path = "durable_tests.rs"]
mod tests;
