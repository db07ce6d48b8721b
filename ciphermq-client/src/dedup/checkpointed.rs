//! A record whose recent part is in the application's own output.
//!
//! ```text
//!   output      line line line line line line │ line line line    (synced, then acknowledged)
//!                                             ▲ offset            read on start from here on
//!   checkpoint  the offset, a hash of the bytes before it,
//!               intervals of all messages before it, the consumer's id
//! ```
//!
//! The application appends to a file, syncs it, passes the messages that it has written to
//! [`Checkpointed::note`], and only then acknowledges them. When [`Checkpointed::is_due`] returns
//! `true`, it writes a checkpoint. On start it reads only the part of its output that follows the
//! offset, so that a long file takes no longer than a short one. A checkpoint never covers more
//! than the output contains, because it is written later.
//!
//! ```no_run
//! use std::fs::OpenOptions;
//! use std::io::{Read, Seek, SeekFrom, Write};
//! use ciphermq_client::dedup::{Checkpointed, Found};
//! # fn ids_in(_: &str) -> Vec<(Option<ciphermq_client::ClientId>, ciphermq_client::MessageId)> { Vec::new() }
//! # async fn run(client: ciphermq_client::Client, queue: ciphermq_client::QueueName, keyring: ciphermq_client::Keyring)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let mut output = OpenOptions::new().read(true).append(true).create(true).open("out.txt")?;
//! output.try_lock()?;
//! let mut record = Checkpointed::open("out.txt.checkpoint".as_ref())?;
//! // Messages after the last checkpoint are in the output. Cut off a torn last line here, too.
//! let from = match record.find(&output)? {
//!     Found::Tail { offset } => offset,
//!     Found::Nothing => 0,
//!     other => return Err(format!("not the output of the checkpoint: {other:?}").into()),
//! };
//! let mut tail = String::new();
//! output.seek(SeekFrom::Start(from))?;
//! output.read_to_string(&mut tail)?;
//! output.sync_all()?;
//! for (sender, id) in ids_in(&tail) {
//!     record.note(sender.as_ref(), &id);
//! }
//! let mut end = output.metadata()?.len();
//! record.checkpoint(&output, end)?;
//!
//! let consumer = client.consumer(&queue).keyring(keyring).dedup(record.recorder());
//! let mut consumer = consumer.id(record.consumer_id()).start().await?;
//! while let Some(message) = consumer.next().await {
//!     let message = message?;
//!     let line = format!("{} {}\n", message.message_id(), String::from_utf8_lossy(message.payload()));
//!     output.write_all(line.as_bytes())?;
//!     output.sync_data()?;
//!     end += line.len() as u64;
//!     record.note(message.sender(), message.message_id());
//!     message.ack_later()?;
//!     if record.is_due(end) {
//!         record.checkpoint(&output, end)?;
//!     }
//! }
//! record.close(&output, end)?;
//! # Ok(())
//! # }
//! ```

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ciphermq_protocol::{ClientId, MessageId};
use parking_lot::{Mutex, MutexGuard};

use super::{Deduplication, InMemory, RecordError, StreamGaps, anchor, text};
use crate::checkpoint::{self, CheckpointError, CheckpointFile, Kind, Unreadable};

/// `ciphermq-processed 1`.
pub(super) const KIND: Kind = Kind {
    name: "ciphermq-processed",
    version: 1,
};

/// Bytes of output after which a checkpoint is due; twice the checkpoint's own size if that is
/// more. So reading the rest at the start is fast, and checkpoints are not larger than the output.
const DUE_BYTES: u64 = 4 * 1024 * 1024;

/// A record shared by a consumer and the code that writes its output. Cheap to clone; clones share
/// the record.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<InMemory>>);

impl Recorder {
    /// Creates a record that is in memory only.
    #[must_use]
    pub fn new(record: InMemory) -> Self {
        Self(Arc::new(Mutex::new(record)))
    }

    fn lock(&self) -> MutexGuard<'_, InMemory> {
        self.0.lock()
    }

    /// Notes that a message was processed.
    pub fn note(&self, sender: Option<&ClientId>, message_id: &MessageId) {
        // A record in memory cannot fail.
        let _ = self.lock().record(sender, message_id);
    }

    /// Returns the number of remembered messages.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.lock().messages()
    }

    pub(super) fn write(&self, out: &mut String) {
        text::write(&self.lock(), out);
    }
}

impl Deduplication for Recorder {
    fn is_processed(&self, sender: Option<&ClientId>, message_id: &MessageId) -> bool {
        self.lock().is_processed(sender, message_id)
    }

    fn is_any_processed(&self, message_id: &MessageId) -> bool {
        self.lock().is_any_processed(message_id)
    }

    fn record(
        &mut self,
        sender: Option<&ClientId>,
        message_id: &MessageId,
    ) -> Result<(), RecordError> {
        self.lock().record(sender, message_id)
    }

    fn gaps(&self) -> Vec<StreamGaps> {
        self.lock().gaps()
    }
}

/// The relation of an output to its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// There was no checkpoint: the whole output must be read.
    Nothing,
    /// The output belongs to the checkpoint: only what follows the offset must be read.
    Tail {
        /// The length of output that the checkpoint covers, in bytes.
        offset: u64,
    },
    /// The output is another one, or shorter than before: it was moved, truncated, or replaced. The
    /// messages in the checkpoint were processed nevertheless. The output must be read from its
    /// beginning.
    Other {
        /// The length of the checkpoint's output when it was written, in bytes.
        offset: u64,
        /// Whether that output was [closed](Checkpointed::close): if not, it may contain messages
        /// that the checkpoint does not know.
        closed: bool,
    },
}

/// A record with a checkpoint beside an output.
#[derive(Debug)]
pub struct Checkpointed {
    file: CheckpointFile,
    recorder: Recorder,
    mark: Option<Mark>,
    size: u64,
    consumer_id: String,
}

/// The part of an output that a checkpoint covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    offset: u64,
    anchor: [u8; 32],
    closed: bool,
}

impl Checkpointed {
    /// Opens and locks the checkpoint, or creates an empty one if there is none, or an empty file,
    /// as `mktemp` creates it. Remembers the last 100,000 ids of clients whose ids are not derived
    /// from streams.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]. What is `Unreadable` can be set aside and [rebuilt](Self::rebuild).
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        loop {
            if let Some((mut file, content)) = CheckpointFile::open(path)? {
                if content.is_empty() {
                    let (recorder, consumer_id) = (Recorder::default(), new_id());
                    file.replace(&write(&consumer_id, None, &recorder))?;
                    return Ok(Self::unmarked(file, recorder, consumer_id));
                }
                let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
                let content = read(&content).map_err(|reason| CheckpointError::Unreadable {
                    path: path.to_owned(),
                    reason,
                })?;
                return Ok(Self {
                    file,
                    recorder: Recorder::new(content.record),
                    mark: content.mark,
                    size,
                    // Checkpoints of versions without ids get one when they are written next.
                    consumer_id: content.consumer_id.unwrap_or_else(new_id),
                });
            }
            let (recorder, consumer_id) = (Recorder::default(), new_id());
            if let Some(file) = CheckpointFile::create(path, &write(&consumer_id, None, &recorder))?
            {
                return Ok(Self::unmarked(file, recorder, consumer_id));
            }
        }
    }

    /// Returns a checkpoint that covers nothing.
    fn unmarked(file: CheckpointFile, recorder: Recorder, consumer_id: String) -> Self {
        Self {
            file,
            recorder,
            mark: None,
            size: 0,
            consumer_id,
        }
    }

    /// Moves an unreadable checkpoint to `<path>.damaged` and creates an empty one: the whole
    /// output must be read. Messages that only earlier outputs contain are forgotten.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]; `Unreadable` if the file was never a checkpoint of this kind. It stays
    /// where it is then.
    pub fn rebuild(path: &Path) -> Result<(Self, Option<PathBuf>), CheckpointError> {
        let aside = match CheckpointFile::open(path)? {
            Some((_, content)) if !KIND.recognises(&content) => {
                return Err(CheckpointError::Unreadable {
                    path: path.to_owned(),
                    reason: Unreadable::OtherKind(KIND.name),
                });
            }
            Some((file, _)) => Some(file.set_aside(KIND)?),
            None => None,
        };
        Ok((Self::open(path)?, aside))
    }

    /// Compares the output with the checkpoint, and returns the part that must be read.
    ///
    /// # Errors
    ///
    /// The system's error if the output cannot be read.
    pub fn find(&self, output: &File) -> io::Result<Found> {
        let Some(mark) = self.mark else {
            return Ok(Found::Nothing);
        };
        let Mark { offset, closed, .. } = mark;
        if output.metadata()?.len() >= offset && anchor::before(output, offset)? == mark.anchor {
            return Ok(Found::Tail { offset });
        }
        Ok(Found::Other { offset, closed })
    }

    /// Compares an output of text lines with the checkpoint, as [`Checkpointed::find`] does, and
    /// accepts changes that an editor makes.
    ///
    /// These are lines that end with `\r\n` now, a byte order mark at the beginning, or a missing
    /// line ending at the end of the covered part when nothing follows. That ending must be added
    /// before anything else is written. The offset refers to the output as it is now.
    ///
    /// # Errors
    ///
    /// The system's error if the output cannot be read.
    pub fn find_lines(&self, output: &File) -> io::Result<Found> {
        let found = self.find(output)?;
        if let (Found::Other { .. }, Some(mark)) = (found, self.mark)
            && let Some(offset) = anchor::find_edited(output, mark.offset, &mark.anchor)?
        {
            return Ok(Found::Tail { offset });
        }
        Ok(found)
    }

    /// Whether nothing was written to the output since the checkpoint: there was none yet, or it
    /// was [closed](Self::close).
    ///
    /// If not, and there is no output at all, it was moved or removed; an empty output does not
    /// show that if the first checkpoint was of an empty one, too.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.mark.is_none_or(|mark| mark.closed)
    }

    /// Returns the consumer id of this output, the same at each start. With it, a restarted
    /// receiver takes over at once from a predecessor that ended without closing its connection;
    /// see [`ConsumerBuilder::id`](crate::ConsumerBuilder::id).
    #[must_use]
    pub fn consumer_id(&self) -> &str {
        &self.consumer_id
    }

    /// Notes that a message is in the output.
    pub fn note(&self, sender: Option<&ClientId>, message_id: &MessageId) {
        self.recorder.note(sender, message_id);
    }

    /// Returns the record for a consumer.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Whether a checkpoint should be written, when the output ends at `end`.
    #[must_use]
    pub fn is_due(&self, end: u64) -> bool {
        let offset = self.mark.map_or(0, |mark| mark.offset);
        // An empty output identifies nothing, so the first lines are covered at once.
        if offset == 0 && end > 0 {
            return true;
        }
        end.saturating_sub(offset) >= DUE_BYTES.max(self.size.saturating_mul(2))
    }

    /// Writes the checkpoint. Everything in the output before `end` must be complete,
    /// [noted](Self::note) and synced.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: `Write`, `Replaced`, `Removed`. The last checkpoint stands, and nothing
    /// is lost.
    pub fn checkpoint(&mut self, output: &File, end: u64) -> Result<(), CheckpointError> {
        self.save(output, end, false)
    }

    /// Writes the last checkpoint: nothing more is written to the output, which may be moved now.
    ///
    /// # Errors
    ///
    /// As [`Checkpointed::checkpoint`].
    pub fn close(mut self, output: &File, end: u64) -> Result<(), CheckpointError> {
        self.save(output, end, true)
    }

    fn save(&mut self, output: &File, end: u64, closed: bool) -> Result<(), CheckpointError> {
        let anchor = anchor::before(output, end).map_err(|source| CheckpointError::Write {
            path: self.file.path().to_owned(),
            source,
        })?;
        let mark = Mark {
            offset: end,
            anchor,
            closed,
        };
        let content = write(&self.consumer_id, Some(mark), &self.recorder);
        self.file.replace(&content)?;
        self.mark = Some(mark);
        self.size = u64::try_from(content.len()).unwrap_or(u64::MAX);
        Ok(())
    }
}

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn write(consumer_id: &str, mark: Option<Mark>, recorder: &Recorder) -> Vec<u8> {
    let mut lines = String::new();
    if let Some(Mark {
        offset,
        anchor,
        closed,
    }) = mark
    {
        let state = if closed { "closed" } else { "open" };
        lines = format!("output {offset} {} {state}\n", hex::encode(anchor));
    }
    lines.push_str("consumer ");
    lines.push_str(consumer_id);
    lines.push('\n');
    recorder.write(&mut lines);
    checkpoint::encode(KIND, &lines)
}

/// The content of a checkpoint.
#[derive(Default)]
struct Content {
    mark: Option<Mark>,
    consumer_id: Option<String>,
    record: InMemory,
}

fn read(bytes: &[u8]) -> Result<Content, Unreadable> {
    let mut content = Content::default();
    for (index, line) in checkpoint::decode(KIND, bytes)?.lines().enumerate() {
        let understood = match line.split_once(' ') {
            Some(("output", rest)) if index == 0 => {
                read_mark(rest).map(|mark| content.mark = Some(mark))
            }
            Some(("consumer", id)) if content.consumer_id.is_none() => {
                ciphermq_protocol::name::check(id)
                    .ok()
                    .map(|()| content.consumer_id = Some(id.to_owned()))
            }
            _ => text::read(line, &mut content.record),
        };
        // The first line is the kind.
        understood.ok_or(Unreadable::Line(index + 2))?;
    }
    Ok(content)
}

fn read_mark(text: &str) -> Option<Mark> {
    let mut words = text.split(' ');
    let offset = words.next()?.parse().ok()?;
    let mut anchor = [0; 32];
    hex::decode_to_slice(words.next()?, &mut anchor).ok()?;
    let closed = match words.next()? {
        "open" => false,
        "closed" => true,
        _ => return None,
    };
    words.next().is_none().then_some(Mark {
        offset,
        anchor,
        closed,
    })
}

#[cfg(test)]
mod tests;
