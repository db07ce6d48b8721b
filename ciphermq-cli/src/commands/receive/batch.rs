//! Messages that are written together, with one write and one sync.

use ciphermq_client::{Message, Timestamp, Unopenable};

use crate::output::OutputError;
use crate::output::pipe::WriteOutcome;
use crate::output::sink::{SinkError, Stream};
use crate::output::{Received, Sink, Unopened};

/// The limits of a batch: exact for messages, approximate for bytes.
const MAX_MESSAGES: usize = 4096;
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The number of messages, read from a pipe by its reader, at which they are reported.
const MAX_UNREPORTED: usize = 64;

/// Lines to write, and their messages.
#[derive(Debug, Default)]
pub(super) struct Batch {
    lines: Vec<u8>,
    messages: Vec<Message>,
    /// The end of each message's line in `lines`.
    ends: Vec<usize>,
    quarantine: Vec<u8>,
    unopenable: Vec<Unopenable>,
    /// The end of each unopenable message's line in `quarantine`.
    quarantine_ends: Vec<usize>,
}

/// Messages that were written, and are to be acknowledged or rejected now.
#[derive(Debug, Default)]
pub(super) struct WrittenBatch {
    pub(super) messages: Vec<Message>,
    pub(super) unopenable: Vec<Unopenable>,
    /// The number of unopenable messages, the first ones, that are in the quarantine.
    pub(super) quarantined: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.unopenable.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.messages.len() + self.unopenable.len() >= MAX_MESSAGES
            || self.lines.len() + self.quarantine.len() >= MAX_BYTES
    }

    /// Adds a message's line, and drops its payload.
    pub(super) fn push(&mut self, mut message: Message) {
        let payload = message.take_payload();
        Received {
            message_id: message.message_id().as_str(),
            sender: message.sender().map(AsRef::as_ref),
            is_sender_verified: message.is_sender_verified(),
            payload: &payload,
            sent_time: message.sent_time(),
            received_time: Timestamp::now(),
        }
        .write(&mut self.lines);
        self.messages.push(message);
        self.ends.push(self.lines.len());
    }

    /// Adds a message that cannot be opened, for the quarantine.
    pub(super) fn push_unopenable(&mut self, unopenable: Unopenable) {
        Unopened {
            message_id: unopenable.message_id().as_str(),
            reason: &unopenable.reason.to_string(),
            envelope: &unopenable.envelope,
            received_time: Timestamp::now(),
        }
        .write(&mut self.quarantine);
        self.unopenable.push(unopenable);
        self.quarantine_ends.push(self.quarantine.len());
    }

    /// Writes the batch: afterwards it survives any crash, or the pipe's reader has read it. Parts
    /// that are written earlier than the rest are passed to `report`. `quarantine` gets lines and
    /// their ends, and returns how many of them it has taken; the server alone keeps the others.
    ///
    /// # Errors
    ///
    /// [`SinkError`]: then only the parts that were reported count as written.
    pub(super) fn write(
        self,
        sink: &mut Sink,
        quarantine: impl FnOnce(&[u8], &[usize]) -> Result<usize, OutputError>,
        report: impl Fn(WrittenBatch),
    ) -> Result<WrittenBatch, SinkError> {
        let mut quarantined = 0;
        if !self.quarantine.is_empty() {
            quarantined = quarantine(&self.quarantine, &self.quarantine_ends)
                .map_err(|error| SinkError::Failed(error.into()))?;
        }
        if let Sink::Stream(stream) = sink
            && stream.pipe().is_some()
        {
            return self.write_to_pipe(stream, quarantined, report);
        }
        if !self.lines.is_empty() {
            let messages = self
                .messages
                .iter()
                .map(|message| (message.verified_sender(), message.message_id()));
            sink.append(&self.lines, messages)?;
        }
        Ok(WrittenBatch {
            messages: self.messages,
            unopenable: self.unopenable,
            quarantined,
        })
    }

    /// Writes line by line, as the reader reads them. After a request to stop, the remaining
    /// messages are dropped, and will be redelivered.
    fn write_to_pipe(
        self,
        stream: &mut Stream,
        quarantined: usize,
        report: impl Fn(WrittenBatch),
    ) -> Result<WrittenBatch, SinkError> {
        // These need not wait for the reader.
        report(WrittenBatch {
            messages: Vec::new(),
            unopenable: self.unopenable,
            quarantined,
        });
        let mut read = Vec::new();
        let mut start = 0;
        for (message, end) in self.messages.into_iter().zip(self.ends) {
            let line = self.lines.get(start..end).unwrap_or_default();
            start = end;
            match stream.write(line, &mut || report(WrittenBatch::take(&mut read))) {
                Ok(WriteOutcome::Read) => read.push(message),
                Ok(WriteOutcome::Stopped) => break,
                Err(error) => {
                    report(WrittenBatch::take(&mut read));
                    return Err(error);
                }
            }
            if read.len() >= MAX_UNREPORTED {
                report(WrittenBatch::take(&mut read));
            }
        }
        Ok(WrittenBatch::take(&mut read))
    }
}

impl WrittenBatch {
    /// Takes all of `messages`.
    fn take(messages: &mut Vec<Message>) -> Self {
        Self {
            messages: std::mem::take(messages),
            ..Self::default()
        }
    }
}
