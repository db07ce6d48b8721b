//! Messages that are written together: one write and one sync for all of them.

use ciphermq_client::{Message, Timestamp, Unopenable};

use crate::output::file::OutputError;
use crate::output::pipe::Put;
use crate::output::sink::{SinkError, Stream};
use crate::output::{Received, Sink, Unopened};

/// How many messages are written at once at most, and about how many bytes.
const MAX_MESSAGES: usize = 4096;
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// How many messages that a pipe's reader has taken wait for their acks.
const MAX_UNREPORTED: usize = 64;

/// Lines to be written, and the messages that they are of.
#[derive(Debug, Default)]
pub(super) struct Batch {
    lines: Vec<u8>,
    messages: Vec<Message>,
    /// Where each message's line ends.
    ends: Vec<usize>,
    quarantine: Vec<u8>,
    unopenable: Vec<Unopenable>,
}

/// What was written, and must now be acked or rejected.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) messages: Vec<Message>,
    pub(super) unopenable: Vec<Unopenable>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.unopenable.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.messages.len() + self.unopenable.len() >= MAX_MESSAGES
            || self.lines.len() + self.quarantine.len() >= MAX_BYTES
    }

    /// Adds a message's line. Its payload is let go of, as the line holds it.
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

    /// Adds what cannot be opened, for the quarantine.
    pub(super) fn push_unopenable(&mut self, unopenable: Unopenable) {
        Unopened {
            message_id: unopenable.message_id().as_str(),
            reason: &unopenable.reason.to_string(),
            envelope: &unopenable.envelope,
            received_time: Timestamp::now(),
        }
        .write(&mut self.quarantine);
        self.unopenable.push(unopenable);
    }

    /// Writes all of it: afterwards it survives any crash, or its reader has it. What is written
    /// earlier than the rest is given to `report`.
    ///
    /// # Errors
    ///
    /// [`SinkError`]: then nothing is written but what was reported.
    pub(super) fn write(
        self,
        sink: &mut Sink,
        quarantine: impl FnOnce(&[u8]) -> Result<(), OutputError>,
        report: impl Fn(Written),
    ) -> Result<Written, SinkError> {
        if !self.quarantine.is_empty() {
            quarantine(&self.quarantine).map_err(|error| SinkError::Failed(error.into()))?;
        }
        if let Sink::Stream(stream) = sink
            && stream.pipe().is_some()
        {
            return self.write_to_pipe(stream, report);
        }
        if !self.lines.is_empty() {
            let messages = self
                .messages
                .iter()
                .map(|message| (message.verified_sender(), message.message_id()));
            sink.append(&self.lines, messages)?;
        }
        Ok(Written {
            messages: self.messages,
            unopenable: self.unopenable,
        })
    }

    /// Line by line, as the reader takes them. Once it was asked to stop, the rest is let go of,
    /// and comes again.
    fn write_to_pipe(
        self,
        stream: &mut Stream,
        report: impl Fn(Written),
    ) -> Result<Written, SinkError> {
        // They need not wait for the reader.
        report(Written {
            messages: Vec::new(),
            unopenable: self.unopenable,
        });
        let mut taken = Vec::new();
        let mut start = 0;
        for (message, end) in self.messages.into_iter().zip(self.ends) {
            let line = self.lines.get(start..end).unwrap_or_default();
            start = end;
            let put = stream.put(line, &mut || report(Written::of(&mut taken)));
            match put {
                Ok(Put::Taken) => taken.push(message),
                Ok(Put::Stopped) => break,
                Err(error) => {
                    report(Written::of(&mut taken));
                    return Err(error);
                }
            }
            if taken.len() >= MAX_UNREPORTED {
                report(Written::of(&mut taken));
            }
        }
        Ok(Written::of(&mut taken))
    }
}

impl Written {
    fn of(messages: &mut Vec<Message>) -> Self {
        Self {
            messages: std::mem::take(messages),
            unopenable: Vec::new(),
        }
    }
}
