//! The lines about messages.
//!
//! There are two for all messages that are accepted, or acknowledged, together. They bypass
//! `tracing`: those of a commit are formatted and pushed together, only to the file of level INFO.
//! On the console they would drown everything else.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ciphermq_protocol::message_id::StreamId;
use ciphermq_protocol::{ClientId, ExchangeName, MessageId, RoutingKey};

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
    /// Whether the level is INFO or more verbose.
    is_on: AtomicBool,
}

impl MessageLog {
    /// Creates a handle that writes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Creates a handle that writes when the level allows it.
    pub(super) fn at(level: tracing::Level, file: Spool, clock: Clock) -> Self {
        let log = Self(Some(Arc::new(Log {
            file,
            clock,
            is_on: AtomicBool::new(false),
        })));
        log.set_level(level);
        log
    }

    pub(super) fn set_level(&self, level: tracing::Level) {
        if let Some(log) = &self.0 {
            log.is_on
                .store(level >= tracing::Level::INFO, Ordering::Relaxed);
        }
    }

    /// Writes lines, all with the current time.
    pub fn write(&self, write: impl FnOnce(&mut MessageLines<'_>)) {
        let is_on = |log: &&Arc<Log>| log.is_on.load(Ordering::Relaxed);
        let Some(log) = self.0.as_ref().filter(is_on) else {
            return;
        };
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

/// The messages of one line, and the names that are written of many queues.
const IDS: usize = 256;
const QUEUES: usize = 8;

impl MessageLines<'_> {
    /// Adds the lines of messages that were accepted together by one route.
    pub fn published(
        &mut self,
        message_ids: &[&MessageId],
        queues: &[&str],
        exchange: &ExchangeName,
        routing_key: &RoutingKey,
    ) {
        for ids in groups(message_ids) {
            self.begin();
            match ids.single() {
                Some(id) => self.words([("Published message ", id), (" to ", "")]),
                None => self.count("Published ", &ids, " messages to "),
            }
            match queues {
                [queue] => self.words([("queue '", queue), ("'", "")]),
                queues => self.many_queues(queues),
            }
            self.words([(" via exchange '", exchange.as_str()), ("'", "")]);
            if ids.single().is_some() && queues.len() == 1 {
                self.end();
                continue;
            }
            self.words([("\",\"routing_key\":\"", routing_key.as_str())]);
            self.end_with(&ids);
        }
    }

    /// Adds the lines of messages that their receiver has acknowledged together.
    pub fn acknowledged(&mut self, message_ids: &[&MessageId], client_id: &ClientId) {
        const DONE: &str = " acknowledged by client, removed from queues and status";
        for ids in groups(message_ids) {
            self.begin();
            if let Some(id) = ids.single() {
                self.words([("Message ", id), (DONE, "")]);
                self.end();
                continue;
            }
            self.count("", &ids, " messages");
            self.words([(DONE, ""), ("\",\"client_id\":\"", client_id.as_str())]);
            self.end_with(&ids);
        }
    }

    fn begin(&mut self) {
        self.text.push_str(&self.start);
    }

    /// Adds fixed words, each followed by a name.
    fn words<const N: usize>(&mut self, parts: [(&str, &str); N]) {
        for (words, name) in parts {
            self.text.push_str(words);
            escape_json(&mut self.text, name);
        }
    }

    fn count(&mut self, before: &str, ids: &Ids<'_>, after: &str) {
        // Writing into a String does not fail.
        let _ = write!(self.text, "{before}{}{after}", ids.count);
    }

    fn many_queues(&mut self, queues: &[&str]) {
        let _ = write!(self.text, "{} queues (", queues.len());
        for (index, queue) in queues.iter().take(QUEUES).enumerate() {
            let separator = if index == 0 { "'" } else { ", '" };
            self.words([(separator, queue), ("'", "")]);
        }
        if queues.len() > QUEUES {
            let _ = write!(self.text, " and {} more", queues.len() - QUEUES);
        }
        self.text.push(')');
    }

    /// Ends a line with the ids of its messages, unless its text names the only one.
    fn end_with(&mut self, ids: &Ids<'_>) {
        if ids.single().is_none() {
            self.text.push_str("\",\"message_ids\":[");
            for (index, run) in ids.runs.iter().enumerate() {
                self.text.push_str(if index == 0 { "\"" } else { ",\"" });
                escape_json(&mut self.text, run.first.as_str());
                if run.count > 1 {
                    // Ids have no spaces.
                    self.words([(" to ", run.last.as_str())]);
                }
                self.text.push('"');
            }
            self.text.push_str("]}\n");
        } else {
            self.text.push_str("\"}\n");
        }
        self.hand_over_chunk();
    }

    fn end(&mut self) {
        self.text.push_str("\"}\n");
        self.hand_over_chunk();
    }

    fn hand_over_chunk(&mut self) {
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

/// The messages of one line.
struct Ids<'a> {
    runs: Vec<Run<'a>>,
    count: usize,
}

/// Consecutive ids.
struct Run<'a> {
    first: &'a MessageId,
    last: &'a MessageId,
    count: usize,
}

impl<'a> Ids<'a> {
    fn single(&self) -> Option<&'a str> {
        match &*self.runs {
            [run] if run.count == 1 => Some(run.first.as_str()),
            _ => None,
        }
    }
}

/// Groups consecutive ids, and as many of these runs as one line has.
fn groups<'a>(message_ids: &[&'a MessageId]) -> Vec<Ids<'a>> {
    let mut groups: Vec<Ids<'a>> = Vec::new();
    let mut before = None;
    for &id in message_ids {
        let place = StreamId::split(id);
        let follows = matches!(
            (before, place),
            (Some((stream, last)), Some((other, position)))
                if stream == other && Some(position) == u64::checked_add(last, 1)
        );
        before = place;
        let run = groups.last_mut().filter(|_| follows);
        if let Some((group, run)) =
            run.and_then(|Ids { runs, count }| Some((count, runs.last_mut()?)))
        {
            *group += 1;
            run.count += 1;
            run.last = id;
            continue;
        }
        let new = Run {
            first: id,
            last: id,
            count: 1,
        };
        match groups.last_mut().filter(|group| group.runs.len() < IDS) {
            Some(group) => {
                group.count += 1;
                group.runs.push(new);
            }
            None => groups.push(Ids {
                runs: vec![new],
                count: 1,
            }),
        }
    }
    groups
}
