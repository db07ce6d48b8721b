//! Progress and results of sending, reported as they happen: log lines, the progress bar, the ids
//! of failed messages, the summary.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ciphermq_client::error::{PublishError, PublishErrorKind};
use ciphermq_client::{ClientId, MessageId, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::send_result::SendResult;
use crate::console::rate::{RateMeter, TimeLeft, rate};
use crate::console::{Console, Count};
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// The interval at which the progress bar is redrawn.
const PROGRESS: Duration = Duration::from_millis(100);

/// A settled message: the receiver's number, the id, and the error if it was not acknowledged.
type Settled = (usize, MessageId, Option<PublishError>);

/// Counts and reports settled messages. The connection's task fills its queue through observers,
/// the sending tasks empty it. Each of them empties it before it sends the next message, so the
/// publishers' windows bound its length.
pub(super) struct Report {
    console: Console,
    settled_sender: mpsc::UnboundedSender<Settled>,
    settled: mpsc::UnboundedReceiver<Settled>,
    acknowledged: Arc<AtomicU64>,
    receivers: Vec<ReceiverProgress>,
    bytes: u64,
    /// Whether the same command, run again, resumes under the same ids.
    resumes: bool,
    /// The reason why the ids of failed messages cannot be listed.
    listing_failure: Option<Failure>,
    redraw: tokio::time::Interval,
    rate_meter: RateMeter,
    /// The number of bytes to send to all receivers together, if it is known.
    total: Option<u64>,
}

/// The counts of one receiver's messages.
struct ReceiverProgress {
    receiver: ClientId,
    sent: u64,
    /// The number of skipped empty lines.
    empty_lines: u64,
    /// Number of failures and first error, by kind.
    failures: BTreeMap<&'static str, (u64, PublishError)>,
    must_stop: bool,
}

impl Report {
    /// Creates a report for these receivers. `total` is the number of bytes to send to all of them
    /// together, if it is known.
    pub(super) fn new(
        console: Console,
        receivers: &[ClientId],
        total: Option<u64>,
        resumes: bool,
    ) -> Self {
        let (settled_sender, settled) = mpsc::unbounded_channel();
        let bar = match total {
            Some(total) => {
                ProgressBar::new(total).with_style(style("{bar:30} {percent:>3}% {msg}"))
            }
            None => ProgressBar::new_spinner().with_style(style("{spinner} {msg}")),
        };
        let mut redraw = tokio::time::interval(PROGRESS);
        redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let progress = |receiver: &ClientId| ReceiverProgress {
            receiver: receiver.clone(),
            sent: 0,
            empty_lines: 0,
            failures: BTreeMap::new(),
            must_stop: false,
        };
        Self {
            console: console.with_bar(bar),
            settled_sender,
            settled,
            acknowledged: Arc::new(AtomicU64::new(0)),
            receivers: receivers.iter().map(progress).collect(),
            bytes: 0,
            resumes,
            listing_failure: None,
            redraw,
            rate_meter: RateMeter::default(),
            total,
        }
    }

    /// Returns an observer that reports the outcomes of one receiver's messages here.
    pub(super) fn observer(&self, receiver: usize) -> impl Fn(Outcome<'_>) + Send + Sync + 'static {
        let (counter, shows_all) = (self.acknowledged.clone(), self.console.shows_messages());
        let sender = self.settled_sender.clone();
        move |outcome: Outcome<'_>| {
            if outcome.result.is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
                if !shows_all {
                    return;
                }
            }
            let error = outcome.result.err().cloned();
            // The report is dropped only once everything is settled.
            let _ = sender.send((receiver, outcome.message_id.clone(), error));
        }
    }

    /// Counts and reports a message that was sealed and submitted.
    pub(super) fn sent(&mut self, receiver: usize, message_id: &MessageId, payload: &[u8]) {
        let Some(progress) = self.receivers.get_mut(receiver) else {
            return;
        };
        progress.sent += 1;
        self.bytes += u64::try_from(payload.len() + 1).unwrap_or(u64::MAX);
        let receiver = &progress.receiver;
        if self.console.shows_payloads() {
            let text = String::from_utf8_lossy(payload);
            self.console.message(format_args!(
                "Encrypted message {message_id} for {receiver}: {text}"
            ));
        } else {
            self.console.message(format_args!(
                "Encrypted message {message_id} for {receiver}"
            ));
        }
    }

    /// Counts skipped empty lines.
    pub(super) fn add_empty_lines(&mut self, receiver: usize, count: u64) {
        if let Some(progress) = self.receivers.get_mut(receiver) {
            progress.empty_lines += count;
            self.bytes += count;
        }
    }

    /// Reports settled messages and redraws the progress bar for as long as it is polled.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Infallible> {
        while let Poll::Ready(Some(settled)) = self.settled.poll_recv(cx) {
            self.report_settled(settled);
        }
        while self.redraw.poll_tick(cx).is_ready() {
            self.draw();
        }
        Poll::Pending
    }

    /// Reports all messages that are settled by now.
    pub(super) fn drain(&mut self) {
        while let Ok(settled) = self.settled.try_recv() {
            self.report_settled(settled);
        }
    }

    /// The reason why the ids of failed messages cannot be listed, if one of them could not.
    pub(super) fn listing_failure(&self) -> Option<&Failure> {
        self.listing_failure.as_ref()
    }

    /// Whether an error came that applies to all further messages for this receiver.
    pub(super) fn must_stop(&self, receiver: usize) -> bool {
        self.receivers
            .get(receiver)
            .is_some_and(|progress| progress.must_stop)
    }

    fn report_settled(&mut self, (receiver, message_id, error): Settled) {
        let names_receiver = self.receivers.len() > 1;
        let Some(progress) = self.receivers.get_mut(receiver) else {
            return;
        };
        let (whom, listed) = if names_receiver {
            (
                format!(" for {}", progress.receiver),
                format!("{message_id} {}\n", progress.receiver),
            )
        } else {
            (String::new(), format!("{message_id}\n"))
        };
        let Some(error) = error else {
            self.console.message(format_args!(
                "Server ACK received for message {message_id}{whom}"
            ));
            return;
        };
        self.console.message(format_args!(
            "Message {message_id}{whom} was not acknowledged: {error}"
        ));
        progress.must_stop |= !is_about_one_message(error.kind());
        let entry = progress
            .failures
            .entry(name(error.kind()))
            .or_insert((0, error));
        entry.0 += 1;
        if self.listing_failure.is_none() {
            self.listing_failure = stdout::print(listed).err();
        }
    }

    fn draw(&mut self) {
        let bar = self.console.bar();
        if bar.is_hidden() {
            return;
        }
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        let sent: u64 = self.receivers.iter().map(|progress| progress.sent).sum();
        let per_second = self.rate_meter.per_second(Instant::now(), acknowledged);
        // The bar counts bytes, because only their total is known in advance. Acknowledged messages
        // count with the average size.
        let done = share(self.bytes, acknowledged, sent);
        let left = self.total.map_or(String::new(), |total| {
            let rest = total.saturating_sub(done);
            let rest = share(rest, sent, self.bytes.max(1));
            TimeLeft { rest, per_second }.to_string()
        });
        bar.set_position(done);
        bar.set_message(format!(
            "{}{acknowledged} acknowledged, {per_second:.0}/s{left}",
            self.receivers_label()
        ));
    }

    /// The progress bar's prefix that names the receivers; empty for a single one.
    fn receivers_label(&self) -> String {
        match self.receivers.as_slice() {
            [] | [_] => String::new(),
            few @ ([_, _] | [_, _, _]) => {
                let names = few.iter().map(|progress| progress.receiver.as_str());
                let names: Vec<&str> = names.collect();
                format!("to {}: ", names.join(", "))
            }
            many => format!("to {} receivers: ", many.len()),
        }
    }

    /// Prints the summary line. If not everything was sent to several receivers, a line for each of
    /// them precedes it.
    pub(super) fn summary(&self, results: &[SendResult], elapsed: Duration) {
        self.console.bar().finish_and_clear();
        let is_one = self.receivers.len() == 1;
        let counts = || results.iter().map(|result| result.counts);
        if !is_one && results.iter().any(SendResult::is_incomplete) {
            for (progress, counts) in self.receivers.iter().zip(counts()) {
                self.console.info(format_args!(
                    "{}: {} sent, {} acknowledged, {} unacknowledged",
                    progress.receiver, progress.sent, counts.acknowledged, counts.unacknowledged
                ));
            }
        }
        let acknowledged: u64 = counts().map(|counts| counts.acknowledged).sum();
        let unacknowledged: u64 = counts().map(|counts| counts.unacknowledged).sum();
        let mut line = format!(
            "{} sent, {acknowledged} acknowledged, {unacknowledged} unacknowledged in {:.3} s \
             ({:.0}/s)",
            self.receivers
                .iter()
                .map(|progress| progress.sent)
                .sum::<u64>(),
            elapsed.as_secs_f64(),
            rate(acknowledged, elapsed),
        );
        if !is_one {
            line += &format!(", to {} receivers", self.receivers.len());
        }
        let empty = self
            .receivers
            .iter()
            .map(|progress| progress.empty_lines)
            .max();
        if let Some(empty @ 1..) = empty {
            let lines = if empty == 1 { "line" } else { "lines" };
            line += &format!(", {empty} empty {lines} left out");
        }
        self.console.info(line);
    }

    /// Whether the same command, run again, resumes under the same ids.
    pub(super) fn can_resume(&self) -> bool {
        self.resumes
    }

    /// The error for `count` messages of this receiver that stayed unacknowledged.
    pub(super) fn failure(&self, receiver: usize, count: u64) -> Failure {
        let progress = self.receivers.get(receiver);
        let failures = progress.map(|progress| &progress.failures);
        let failures: Vec<&(u64, PublishError)> = failures
            .iter()
            .flat_map(|failures| failures.values())
            .collect();
        let reasons: Vec<String> = match failures.as_slice() {
            [(_, error)] => vec![error.to_string()],
            several => several
                .iter()
                .map(|(count, error)| format!("{count} of them: {error}"))
                .collect(),
        };
        let mut advice: Vec<&str> = failures
            .iter()
            .map(|(_, error)| advice(error, self.resumes))
            .collect();
        advice.dedup();
        let messages = Count::messages(count);
        let listing_failure = self.listing_failure.as_ref().map(Failure::text);
        let (is_listed, exit) = match &listing_failure {
            None => ("listed on standard output", Exit::Unacknowledged),
            Some(_) => ("not all listed", Exit::Error),
        };
        advice.extend(listing_failure.as_deref());
        let what = format!(
            "{messages} {} not acknowledged; {} {is_listed}.",
            messages.verb("was", "were"),
            messages.verb("its id is", "their ids are")
        );
        let what = format!("{what} {}", reasons.join(" "));
        Failure::new(what.trim_end(), advice.join("\n")).with_exit(exit)
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants: an invalid one shows as the default style.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Computes `amount * part / whole`, without overflow and without division by zero.
fn share(amount: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(amount) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// Whether an error concerns a single message, so that later messages may succeed.
fn is_about_one_message(kind: PublishErrorKind) -> bool {
    matches!(
        kind,
        PublishErrorKind::TooLarge
            | PublishErrorKind::IdInUse
            | PublishErrorKind::StorageRefused
            | PublishErrorKind::Sealing
    )
}

/// The advice for an error. A message that is sent again gets another id unless the command
/// `resumes`, so the publisher's own advice does not always apply.
fn advice(error: &PublishError, resumes: bool) -> &str {
    match error.kind() {
        PublishErrorKind::TimedOut
        | PublishErrorKind::Disconnected
        | PublishErrorKind::Unavailable
            if resumes =>
        {
            "Check that the server runs, and what its log says; then run the same command again: \
             it resumes under the same ids, and nothing arrives twice."
        }
        PublishErrorKind::TimedOut
        | PublishErrorKind::Disconnected
        | PublishErrorKind::Unavailable => {
            "Check that the server runs, and what its log says; then send the listed messages \
             again. The server may have accepted some of them without being able to confirm it: \
             those would arrive twice."
        }
        _ => error
            .advice()
            .unwrap_or("See the server's log, then send the listed messages again."),
    }
}

fn name(kind: PublishErrorKind) -> &'static str {
    match kind {
        PublishErrorKind::NoRoute => "no route",
        PublishErrorKind::NotFound => "not found",
        PublishErrorKind::TooLarge => "too large",
        PublishErrorKind::IdInUse => "id in use",
        PublishErrorKind::QuotaExceeded => "quota exceeded",
        PublishErrorKind::StorageFull => "storage full",
        PublishErrorKind::StorageRefused => "storage refused",
        PublishErrorKind::NotAuthorized => "not authorized",
        PublishErrorKind::Blocked => "blocked",
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
    fn only_errors_about_one_message_let_the_others_follow() {
        assert!(is_about_one_message(PublishErrorKind::TooLarge));
        for kind in [
            PublishErrorKind::NoRoute,
            PublishErrorKind::Disconnected,
            PublishErrorKind::TimedOut,
            PublishErrorKind::StorageFull,
            PublishErrorKind::QuotaExceeded,
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
