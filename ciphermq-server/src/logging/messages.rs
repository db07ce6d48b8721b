//! The lines about single messages: two for each, which is why they do not come by `tracing`. Those
//! of a commit are made and handed over together, for the file of level INFO alone: on the console
//! they would drown everything else.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_protocol::{ExchangeName, MessageId};

use super::layer::PATIENCE;
use super::line::{Clock, escape_json, push_time};
use super::spool::{Patience, Spool};

/// What is handed over at once, in bytes.
const CHUNK: usize = 64 << 10;

/// Where they go: cheap to clone.
#[derive(Clone)]
pub struct MessageLog(Option<Arc<Log>>);

struct Log {
    file: Spool,
    clock: Clock,
}

impl MessageLog {
    /// Nowhere.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    pub(super) fn on(file: Spool, clock: Clock) -> Self {
        Self(Some(Arc::new(Log { file, clock })))
    }

    /// Writes lines, all of them of this moment.
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

/// Lines that are being made.
pub struct MessageLines<'a> {
    log: &'a Log,
    now: Duration,
    /// How each of them begins.
    start: String,
    text: String,
}

impl MessageLines<'_> {
    /// A message was accepted for a queue.
    pub fn published(&mut self, message_id: &MessageId, queue: &str, exchange: &ExchangeName) {
        self.line([
            ("Published message ", message_id.as_str()),
            (" to queue '", queue),
            ("' via exchange '", exchange.as_str()),
            ("'", ""),
        ]);
    }

    /// Its receiver has acknowledged a message.
    pub fn acknowledged(&mut self, message_id: &MessageId) {
        self.line([
            ("Message ", message_id.as_str()),
            (
                " acknowledged by client, removed from queues and status",
                "",
            ),
        ]);
    }

    /// Our words, and after each of them a name.
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
            let patience = Patience::For(PATIENCE);
            self.log.file.push(self.now, self.text.as_bytes(), patience);
            self.text.clear();
        }
    }
}
