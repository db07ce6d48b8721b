//! The lines about single messages.
//!
//! There are two for each message, so they bypass `tracing`. Those of a commit are formatted and
//! pushed together, only to the file of level INFO: on the console they would drown everything
//! else.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_protocol::{ExchangeName, MessageId};

use super::layer::WAIT_WHEN_FULL;
use super::line::{Clock, escape_json, push_time};
use super::spool::{Spool, WhenFull};

/// The number of bytes that are pushed at once.
const CHUNK: usize = 64 << 10;

/// A handle for writing lines about messages. It is cheap to clone.
#[derive(Clone)]
pub struct MessageLog(Option<Arc<Log>>);

struct Log {
    file: Spool,
    clock: Clock,
}

impl MessageLog {
    /// Creates a handle that writes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    pub(super) fn on(file: Spool, clock: Clock) -> Self {
        Self(Some(Arc::new(Log { file, clock })))
    }

    /// Writes lines, all with the current time.
    pub fn write(&self, write: impl FnOnce(&mut MessageLines<'_>)) {
        let Some(log) = &self.0 else { return };
        let now = (log.clock)();
        let mut start = String::from("{\"timestamp\":\"");
        push_time(&mut start, now);
        start.push_str("\",\"level\":\"INFO\",\"message\":\"");
        let mut lines = MessageLines {
            log,
            now,
            start,
            text: String::new(),
        };
        write(&mut lines);
        lines.hand_over();
    }
}

/// Lines that are being formatted.
pub struct MessageLines<'a> {
    log: &'a Log,
    now: Duration,
    /// The common start of all lines.
    start: String,
    text: String,
}

impl MessageLines<'_> {
    /// Adds the line of a message that was accepted for a queue.
    pub fn published(&mut self, message_id: &MessageId, queue: &str, exchange: &ExchangeName) {
        self.line([
            ("Published message ", message_id.as_str()),
            (" to queue '", queue),
            ("' via exchange '", exchange.as_str()),
            ("'", ""),
        ]);
    }

    /// Adds the line of a message that its receiver has acknowledged.
    pub fn acknowledged(&mut self, message_id: &MessageId) {
        self.line([
            ("Message ", message_id.as_str()),
            (
                " acknowledged by client, removed from queues and status",
                "",
            ),
        ]);
    }

    /// Adds a line of fixed words, each followed by a name.
    fn line<const N: usize>(&mut self, parts: [(&str, &str); N]) {
        self.text.push_str(&self.start);
        for (words, name) in parts {
            self.text.push_str(words);
            escape_json(&mut self.text, name);
        }
        self.text.push_str("\"}\n");
        if self.text.len() >= CHUNK {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if !self.text.is_empty() {
            let when_full = WhenFull::Wait(WAIT_WHEN_FULL);
            self.log
                .file
                .push(self.now, self.text.as_bytes(), when_full);
            self.text.clear();
        }
    }
}
