//! Items that are sent until they are answered.
//!
//! ```text
//!   first              cursor           unsent             end
//!     │ sent, no answer  │ to be sent again │ never sent yet  │
//!     ▼                  ▼                  ▼                 ▼
//!   ──●──────○──●──●─────●──────────●───────●────●────●───────
//!            └ settled: kept until every earlier item is settled
//! ```
//!
//! Items are numbered in the order of their arrival. A new connection moves the cursor back to the
//! first item: everything unanswered is sent again, in order. While a connection lasts, an item
//! whose attempt ended without an answer is sent again between the others. So is one that the
//! server takes only after a pause: during it nothing is sent, its attempts begin anew, and for a
//! while one line is sent at a time, so that no later item overtakes it. The window space of an
//! item is released when every earlier item is settled, so nothing can overtake an item by more
//! than one window.
//!
//! An *attempt* lasts for the retry time-out, from the first transmission on, with or without a
//! connection; sending again on a new connection starts no new attempt. After its last attempt the
//! item has failed.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use ciphermq_protocol::ErrorReply;
use tokio::time::Instant;

use super::settings::{BatchLimits, Retry};

/// How long after a pause one line is sent at a time.
const SLOW: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Outbox<T> {
    limits: BatchLimits,
    /// The longest time that an item waits for a full line while answers are late.
    late_wait: Duration,
    retry: Retry,
    entries: VecDeque<Entry<T>>,
    /// The number of the first entry.
    first: u64,
    /// Entries from here on have not been sent on this connection.
    cursor: u64,
    /// Entries from here on have never been sent.
    unsent: u64,
    /// Total size of the entries that have never been sent.
    unsent_bytes: usize,
    /// Entries before the cursor that are to be sent again.
    resend: BTreeSet<u64>,
    /// The current attempts, ordered by their ends.
    attempts: VecDeque<Attempt>,
    /// The times at which the unanswered lines of this connection were sent.
    lines_in_flight: VecDeque<Instant>,
    /// The time that the last answer took.
    answer_time: Duration,
    /// The shortest time that an answer took on this connection.
    least_answer_time: Duration,
    /// Entries before this number do not wait for a full batch.
    flush_to: u64,
    offline_since: Option<Instant>,
    /// Nothing is sent before, because the server asked for a pause.
    paused_until: Option<Instant>,
    /// One line is sent at a time before.
    slow_until: Option<Instant>,
    released: Released,
}

#[derive(Debug)]
struct Entry<T> {
    /// The item; `None` once it is settled.
    item: Option<T>,
    /// The item's length within a line, in bytes.
    bytes: usize,
    /// The window space that is released with it.
    weight: u32,
    queued: Instant,
    /// 0 before the first one, and after the server asked for a pause.
    attempts: u32,
    /// The end of the current attempt.
    attempt_end: Option<Instant>,
    /// The last error that left the outcome open.
    last_error: Option<Box<ErrorReply>>,
}

#[derive(Debug)]
struct Attempt {
    end: Instant,
    numbers: Vec<u64>,
}

/// Window space that became free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) items: usize,
    pub(crate) weight: u64,
}

/// An item whose last attempt has ended.
#[derive(Debug)]
pub(crate) struct Expired<T> {
    pub(crate) item: T,
    /// The last error of the server, if there was one.
    pub(crate) last_error: Option<Box<ErrorReply>>,
}

impl<T> Outbox<T> {
    /// Creates an empty outbox without a connection.
    ///
    /// While answers are late, items wait longer for a full line than `limits` say, for at most
    /// `late_wait`.
    pub(crate) fn new(
        limits: BatchLimits,
        late_wait: Duration,
        retry: Retry,
        now: Instant,
    ) -> Self {
        Self {
            limits,
            late_wait,
            retry,
            entries: VecDeque::new(),
            first: 0,
            cursor: 0,
            unsent: 0,
            unsent_bytes: 0,
            resend: BTreeSet::new(),
            attempts: VecDeque::new(),
            lines_in_flight: VecDeque::new(),
            answer_time: Duration::ZERO,
            least_answer_time: Duration::MAX,
            flush_to: 0,
            offline_since: Some(now),
            paused_until: None,
            slow_until: None,
            released: Released::default(),
        }
    }

    /// Appends an item that takes `bytes` in a line.
    pub(crate) fn push(&mut self, now: Instant, item: T, bytes: usize, weight: u32) {
        self.unsent_bytes += bytes;
        self.entries.push_back(Entry {
            item: Some(item),
            bytes,
            weight,
            queued: now,
            attempts: 0,
            attempt_end: None,
            last_error: None,
        });
    }

    /// Returns the number that the next item will get.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }

    /// Returns the number of the first item that is not settled.
    pub(crate) fn settled_to(&self) -> u64 {
        self.first
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sends everything that is queued without waiting for a full batch.
    pub(crate) fn flush(&mut self) {
        self.flush_to = self.end();
    }

    /// Returns the item with this number, unless it is settled.
    pub(crate) fn item(&self, number: u64) -> Option<&T> {
        self.entry(number)?.item.as_ref()
    }

    /// Returns the length of the item with this number within a line.
    pub(crate) fn bytes(&self, number: u64) -> usize {
        self.entry(number).map_or(0, |entry| entry.bytes)
    }

    fn entry(&self, number: u64) -> Option<&Entry<T>> {
        self.entries.get(self.index(number)?)
    }

    fn entry_mut(&mut self, number: u64) -> Option<&mut Entry<T>> {
        let index = self.index(number)?;
        self.entries.get_mut(index)
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    /// Takes the items of the next line, in order: at least one, within the batch limits and
    /// `max_bytes`. `None` if nothing is to be sent now.
    pub(crate) fn take_line(&mut self, now: Instant, max_bytes: usize) -> Option<Vec<u64>> {
        if !self.is_ready(now) {
            return None;
        }
        let max_bytes = self.limits.bytes.min(max_bytes);
        let mut numbers = Vec::with_capacity(self.limits.messages.min(self.entries.len()));
        let mut bytes = 0usize;
        while numbers.len() < self.limits.messages {
            let Some(number) = self.next_to_send() else {
                break;
            };
            let with_this = bytes.saturating_add(self.bytes(number));
            if with_this > max_bytes && !numbers.is_empty() {
                break;
            }
            bytes = with_this;
            numbers.push(number);
            if !self.resend.remove(&number) {
                self.cursor = number + 1;
            }
        }
        self.start_attempts(now, &numbers);
        self.lines_in_flight.push_back(now);
        Some(numbers)
    }

    /// Whether a line is to be sent now.
    fn is_ready(&mut self, now: Instant) -> bool {
        if self.offline_since.is_some() {
            return false;
        }
        self.paused_until.take_if(|until| *until <= now);
        self.slow_until.take_if(|until| *until <= now);
        if self.paused_until.is_some() || self.waits_for_answer() {
            return false;
        }
        let Some(next) = self.next_to_send() else {
            return false;
        };
        next < self.unsent
            || next < self.flush_to
            || self.lines_in_flight.is_empty()
            || self.unsent_bytes >= self.limits.bytes
            || self.end() - self.unsent >= u64::try_from(self.limits.messages).unwrap_or(u64::MAX)
            || self
                .entry(next)
                .is_some_and(|entry| entry.queued + self.longest_wait() <= now)
    }

    /// Returns the item to send next: retries come before the item at the cursor. Settled items are
    /// skipped.
    fn next_to_send(&mut self) -> Option<u64> {
        if let Some(&number) = self.resend.first() {
            return Some(number);
        }
        while self.cursor < self.end() && self.item(self.cursor).is_none() {
            self.cursor += 1;
        }
        (self.cursor < self.end()).then_some(self.cursor)
    }

    /// Whether the next line waits for the answer to the last one.
    fn waits_for_answer(&self) -> bool {
        self.slow_until.is_some() && !self.lines_in_flight.is_empty()
    }

    /// Starts the first attempt of the items that have none.
    fn start_attempts(&mut self, now: Instant, numbers: &[u64]) {
        let has_none = |number: &u64| self.entry(*number).is_some_and(|entry| entry.attempts == 0);
        let new: Vec<u64> = numbers.iter().copied().filter(has_none).collect();
        let Some(&last) = new.last() else { return };
        let end = now + self.retry.timeout;
        for &number in &new {
            if let Some(entry) = self.entry_mut(number) {
                entry.attempts = 1;
                entry.attempt_end = Some(end);
            }
        }
        for number in self.unsent..=last {
            self.unsent_bytes = self.unsent_bytes.saturating_sub(self.bytes(number));
        }
        self.unsent = self.unsent.max(last + 1);
        self.attempts.push_back(Attempt { end, numbers: new });
    }

    /// Records that a line was answered completely. Lines are answered in order.
    pub(crate) fn line_answered(&mut self, now: Instant) {
        if let Some(sent) = self.lines_in_flight.pop_front() {
            self.answer_time = now.saturating_duration_since(sent);
            self.least_answer_time = self.least_answer_time.min(self.answer_time);
        }
    }

    /// Records that the line that was taken last is not sent.
    pub(crate) fn line_dropped(&mut self) {
        self.lines_in_flight.pop_back();
    }

    /// Returns the longest time that an item waits for a full line.
    ///
    /// A busy server answers late: then it is the time by which the last answer came later than the
    /// fastest one. Otherwise lines that are sent as soon as the window has room for an item would
    /// hold fewer and fewer items, and give the server more and more work. A long way to the server
    /// delays all answers, and does not count.
    fn longest_wait(&self) -> Duration {
        if self.limits.time.is_zero() {
            return Duration::ZERO;
        }
        let late = self.answer_time.saturating_sub(self.least_answer_time);
        self.limits.time.max(late.min(self.late_wait))
    }

    /// Takes an item out; `None` if it was settled before.
    pub(crate) fn settle(&mut self, number: u64) -> Option<T> {
        let item = self.entry_mut(number)?.item.take()?;
        self.resend.remove(&number);
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.item.is_none())
        {
            if let Some(entry) = self.entries.pop_front() {
                self.released.items += 1;
                self.released.weight += u64::from(entry.weight);
            }
            self.first += 1;
        }
        self.cursor = self.cursor.max(self.first);
        self.unsent = self.unsent.max(self.first);
        // Attempts whose items are all settled need no timer.
        while self
            .attempts
            .front()
            .is_some_and(|current| current.numbers.last().is_none_or(|&last| last < self.first))
        {
            self.attempts.pop_front();
        }
        Some(item)
    }

    /// Records that the outcome of an item is unknown: it waits for the end of its attempt.
    pub(crate) fn defer(&mut self, number: u64, last_error: ErrorReply) {
        if let Some(entry) = self.entry_mut(number) {
            entry.last_error = Some(Box::new(last_error));
        }
    }

    /// Records that the server takes an item only after a pause. It is sent again then, however
    /// often that happens.
    pub(crate) fn slow_down(&mut self, now: Instant, number: u64, pause: Duration) {
        let is_connected = self.offline_since.is_none();
        let Some(entry) = self.entry_mut(number).filter(|entry| entry.item.is_some()) else {
            return;
        };
        entry.attempts = 0;
        entry.attempt_end = None;
        entry.last_error = None;
        // Items at or after the cursor are sent anyway.
        if number < self.cursor && is_connected {
            self.resend.insert(number);
        }
        let until = now + pause;
        self.paused_until = self.paused_until.max(Some(until));
        self.slow_until = self.slow_until.max(Some(until + SLOW));
    }

    /// Returns the time before which nothing is sent, and the one before which one line is sent at
    /// a time, once the server has asked for a pause.
    pub(crate) fn pause(&self) -> Option<(Instant, Instant)> {
        self.paused_until.zip(self.slow_until)
    }

    /// Takes the window space that was released since the last call.
    pub(crate) fn take_released(&mut self) -> Released {
        std::mem::take(&mut self.released)
    }

    /// Starts a new connection: everything unanswered is sent again, in order.
    pub(crate) fn connected(&mut self) {
        self.offline_since = None;
        self.lines_in_flight.clear();
        self.answer_time = Duration::ZERO;
        self.least_answer_time = Duration::MAX;
        self.resend.clear();
        self.cursor = self.first;
    }

    /// Records the loss of the connection.
    pub(crate) fn disconnected(&mut self, now: Instant) {
        self.offline_since.get_or_insert(now);
        self.lines_in_flight.clear();
        self.resend.clear();
        // Those that wait for the end of a pause do not wait for ever without a connection.
        let sent: Vec<u64> = (self.first..self.unsent)
            .filter(|&number| self.item(number).is_some())
            .collect();
        self.start_attempts(now, &sent);
    }

    /// Ends the attempts whose time is over, and takes out the items that have none left.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Expired<T>> {
        let mut expired = Vec::new();
        while self
            .attempts
            .front()
            .is_some_and(|current| current.end <= now)
        {
            let Some(ended) = self.attempts.pop_front() else {
                break;
            };
            let mut next = Vec::new();
            for number in ended.numbers {
                let retries = self.retry.attempts;
                let next_end = now + self.retry.timeout;
                let is_current = |entry: &&mut Entry<T>| {
                    entry.item.is_some() && entry.attempt_end == Some(ended.end)
                };
                let Some(entry) = self.entry_mut(number).filter(is_current) else {
                    continue;
                };
                if entry.attempts >= retries {
                    let last_error = entry.last_error.take();
                    expired.extend(self.settle(number).map(|item| Expired { item, last_error }));
                } else {
                    entry.attempts += 1;
                    entry.attempt_end = Some(next_end);
                    next.push(number);
                    // Items at or after the cursor are sent anyway.
                    if number < self.cursor && self.offline_since.is_none() {
                        self.resend.insert(number);
                    }
                }
            }
            if !next.is_empty() {
                self.attempts.push_back(Attempt {
                    end: now + self.retry.timeout,
                    numbers: next,
                });
            }
        }
        while self.offline_end().is_some_and(|end| end <= now) {
            let number = self.unsent;
            self.unsent_bytes = self.unsent_bytes.saturating_sub(self.bytes(number));
            self.unsent += 1;
            expired.extend(self.settle(number).map(|item| Expired {
                item,
                last_error: None,
            }));
        }
        expired
    }

    /// Returns when the first item that was never sent fails for lack of a connection.
    fn offline_end(&self) -> Option<Instant> {
        let entry = self.entry(self.unsent)?;
        Some(self.offline_since?.max(entry.queued) + self.retry.total())
    }

    /// Takes every item out.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        let items = (self.first..self.end())
            .filter_map(|number| self.settle(number))
            .collect();
        self.attempts.clear();
        self.unsent_bytes = 0;
        items
    }

    /// Returns when there is work if nothing happens before: an attempt ends or, if lines
    /// `can_be_sent`, an item has waited long enough for a full batch.
    pub(crate) fn deadline(&self, can_be_sent: bool) -> Option<Instant> {
        let attempt_end = self.attempts.front().map(|current| current.end);
        let offline_end = self.offline_end();
        [attempt_end, offline_end, self.send_time(can_be_sent)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns when a line is to be sent if nothing happens before.
    fn send_time(&self, can_be_sent: bool) -> Option<Instant> {
        if !can_be_sent || self.offline_since.is_some() {
            return None;
        }
        let batch_end = self
            .entry(self.unsent)
            .map(|entry| entry.queued + self.longest_wait());
        // These wait for the end of a pause only.
        let is_due = !self.resend.is_empty()
            || self.cursor < self.unsent
            || self.lines_in_flight.is_empty() && self.unsent < self.end();
        let wanted = match self.paused_until {
            Some(until) if is_due => Some(until),
            until => batch_end.map(|end| until.map_or(end, |until| until.max(end))),
        };
        // Nothing is sent before the answer, which comes by itself, or the end of the slowness.
        match self.slow_until.filter(|_| self.waits_for_answer()) {
            Some(until) => wanted.map(|wanted| wanted.max(until)),
            None => wanted,
        }
    }
}

#[cfg(test)]
mod tests;
