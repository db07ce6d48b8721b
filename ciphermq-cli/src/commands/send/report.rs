//! What becomes of messages, told as it happens: lines, progress, the ids of what failed, the summary.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ciphermq_client::error::{PublishError, PublishErrorKind};
use ciphermq_client::{ClientId, MessageId, Outcome, Summary};
use indicatif::{ProgressBar, ProgressStyle};

use super::{PROGRESS, Settled};
use crate::console::pace::{Left, Pace, rate};
use crate::console::{Console, Messages};
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// Counts and tells. It is filled by the connection's task through an observer, and emptied by the task that sends: as
/// that one empties it before it sends the next message, what waits in it is bounded by the publisher's window.
pub(super) struct Report {
    console: Console,
    settled: Settled,
    acknowledged: Arc<AtomicU64>,
    sent: u64,
    bytes: u64,
    empty_lines: u64,
    /// How often each kind of failure came, and the first of its kind.
    failures: BTreeMap<&'static str, (u64, PublishError)>,
    must_stop: bool,
    /// The same command goes on under the same ids.
    resumes: bool,
    redraw: tokio::time::Interval,
    pace: Pace,
    /// How many bytes there are in all, if that is known.
    total: Option<u64>,
}

impl Report {
    /// A report, and the observer that feeds it. `total` bytes are to be sent, if that is known.
    pub(super) fn new(
        console: Console,
        total: Option<u64>,
    ) -> (Self, impl Fn(Outcome<'_>) + Send + Sync + 'static) {
        let (sender, settled) = tokio::sync::mpsc::unbounded_channel();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (counter, tells) = (acknowledged.clone(), console.tells_messages());
        let observer = move |outcome: Outcome<'_>| {
            if outcome.result.is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
                if !tells {
                    return;
                }
            }
            let error = outcome.result.err().cloned();
            // Nobody listens any more only once everything is settled.
            let _ = sender.send((outcome.message_id.clone(), error));
        };
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style("{bar:30} {percent:>3}% {msg}")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {msg}")),
        };
        let mut redraw = tokio::time::interval(PROGRESS);
        redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let report = Self {
            console: console.with_bar(bar),
            settled,
            acknowledged,
            sent: 0,
            bytes: 0,
            empty_lines: 0,
            failures: BTreeMap::new(),
            must_stop: false,
            resumes: false,
            redraw,
            pace: Pace::default(),
            total,
        };
        (report, observer)
    }

    /// The same command goes on under the same ids: that is what to do about failures.
    pub(super) fn resumes(&mut self) {
        self.resumes = true;
    }

    /// A message was sealed and handed over.
    pub(super) fn sent(&mut self, message_id: &MessageId, receiver: &ClientId, payload: &[u8]) {
        self.sent += 1;
        self.bytes += u64::try_from(payload.len() + 1).unwrap_or(u64::MAX);
        if self.console.tells_payloads() {
            let text = String::from_utf8_lossy(payload);
            self.console.message(format_args!(
                "Encrypted message {message_id} for {receiver}: {text}"
            ));
        } else {
            self.console
                .message(format_args!("Encrypted message {message_id} for {receiver}"));
        }
    }

    /// Empty lines were left out.
    pub(super) fn empty_lines(&mut self, count: u64) {
        self.empty_lines += count;
        self.bytes += count;
    }

    /// Waits for `future`, and tells meanwhile what became of messages. Cancelling it cancels the future.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the ids of what failed cannot be written.
    pub(super) async fn until<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::pin!(future);
        loop {
            tokio::select! {
                biased;
                done = &mut future => return Ok(done),
                Some((message_id, error)) = self.settled.recv() => self.tell(&message_id, error)?,
                _ = self.redraw.tick() => self.draw(),
            }
        }
    }

    /// Tells what has become of messages; whether something came that would befall all that follow.
    ///
    /// # Errors
    ///
    /// As [`Report::until`].
    pub(super) fn drain(&mut self) -> Result<bool, Failure> {
        while let Ok((message_id, error)) = self.settled.try_recv() {
            self.tell(&message_id, error)?;
        }
        Ok(self.must_stop)
    }

    fn tell(&mut self, message_id: &MessageId, error: Option<PublishError>) -> Result<(), Failure> {
        let Some(error) = error else {
            self.console
                .message(format_args!("Server ACK received for message {message_id}"));
            return Ok(());
        };
        self.console
            .message(format_args!("Message {message_id} was not acknowledged: {error}"));
        self.must_stop |= !is_about_one_message(error.kind());
        let entry = self.failures.entry(name(error.kind())).or_insert((0, error));
        entry.0 += 1;
        stdout::print(format!("{message_id}\n"))
    }

    fn draw(&mut self) {
        let bar = self.console.bar();
        if bar.is_hidden() {
            return;
        }
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        let per_second = self.pace.per_second(Instant::now(), acknowledged);
        // The bar is about bytes, as only they are known beforehand: those of an average message.
        let done = share(self.bytes, acknowledged, self.sent);
        let left = self.total.map_or(String::new(), |total| {
            let rest = total.saturating_sub(done);
            let rest = share(rest, self.sent, self.bytes.max(1));
            Left { rest, per_second }.to_string()
        });
        bar.set_position(done);
        bar.set_message(format!("{acknowledged} acknowledged, {per_second:.0}/s{left}"));
    }

    /// The summary line.
    pub(super) fn summary(&self, summary: &Summary, elapsed: Duration) {
        self.console.bar().finish_and_clear();
        let (acknowledged, unacknowledged) = (summary.acknowledged, summary.unacknowledged);
        let mut line = format!(
            "{} sent, {acknowledged} acknowledged, {unacknowledged} unacknowledged in {:.3} s ({:.0}/s)",
            self.sent,
            elapsed.as_secs_f64(),
            rate(acknowledged, elapsed),
        );
        if self.empty_lines > 0 {
            let lines = if self.empty_lines == 1 { "line" } else { "lines" };
            line += &format!(", {} empty {lines} left out", self.empty_lines);
        }
        self.console.say(line);
    }

    /// What to tell at the end when `count` messages stayed unacknowledged.
    pub(super) fn failure(&self, count: u64) -> Failure {
        let reasons: Vec<String> = match self.failures.len() {
            1 => self
                .failures
                .values()
                .map(|(_, error)| error.to_string())
                .collect(),
            _ => self
                .failures
                .values()
                .map(|(count, error)| format!("{count} of them: {error}"))
                .collect(),
        };
        let mut advice: Vec<&str> = self
            .failures
            .values()
            .map(|(_, error)| advice(error, self.resumes))
            .collect();
        advice.dedup();
        let messages = Messages(count);
        let what = format!(
            "{messages} {} not acknowledged; {} listed on standard output.",
            messages.verb("was", "were"),
            messages.verb("its id is", "their ids are")
        );
        let what = format!("{what} {}", reasons.join(" "));
        Failure::new(what.trim_end(), advice.join("\n")).with_exit(Exit::Unacknowledged)
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours: a broken one shows as the default style.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `part` of `whole`, of this amount.
fn share(amount: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(amount) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// Whether the next message may well fare better. If not, sending on would only make the list longer.
fn is_about_one_message(kind: PublishErrorKind) -> bool {
    matches!(
        kind,
        PublishErrorKind::TooLarge
            | PublishErrorKind::IdInUse
            | PublishErrorKind::StorageRefused
            | PublishErrorKind::Sealing
    )
}

/// What to do about it here, where a message that is sent again gets another id, unless the command `resumes`.
fn advice(error: &PublishError, resumes: bool) -> &str {
    match error.kind() {
        PublishErrorKind::TimedOut | PublishErrorKind::Disconnected | PublishErrorKind::Unavailable
            if resumes =>
        {
            "See that the server runs, and what its log says; then run the same command again: it goes on under the same ids, and nothing arrives twice."
        }
        PublishErrorKind::TimedOut | PublishErrorKind::Disconnected | PublishErrorKind::Unavailable => {
            "See that the server runs, and what its log says; then send again what is listed. The server may have taken some of it without being able to say so: that would arrive twice."
        }
        _ => error
            .advice()
            .unwrap_or("See the server's log, then send again what is listed."),
    }
}

fn name(kind: PublishErrorKind) -> &'static str {
    match kind {
        PublishErrorKind::NoRoute => "no route",
        PublishErrorKind::NotFound => "not found",
        PublishErrorKind::TooLarge => "too large",
        PublishErrorKind::IdInUse => "id in use",
        PublishErrorKind::StorageFull => "storage full",
        PublishErrorKind::StorageRefused => "storage refused",
        PublishErrorKind::Unavailable => "unavailable",
        PublishErrorKind::TimedOut => "timed out",
        PublishErrorKind::Disconnected => "disconnected",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_one_message_lets_the_others_follow() {
        assert!(is_about_one_message(PublishErrorKind::TooLarge));
        for kind in [
            PublishErrorKind::NoRoute,
            PublishErrorKind::Disconnected,
            PublishErrorKind::TimedOut,
            PublishErrorKind::StorageFull,
        ] {
            assert!(!is_about_one_message(kind), "{kind:?}");
        }
    }

    #[test]
    fn shares_are_exact_and_never_of_nothing() {
        assert_eq!(share(1000, 1, 4), 250);
        assert_eq!(share(u64::MAX, 7, 7), u64::MAX);
        assert_eq!(share(5, 1, 0), 5);
    }
}
