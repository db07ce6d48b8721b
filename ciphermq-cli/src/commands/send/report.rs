//! What becomes of messages, told as it happens: lines, progress, the ids of what failed, the
//! summary.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ciphermq_client::error::{PublishError, PublishErrorKind};
use ciphermq_client::{ClientId, MessageId, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::ending::Ending;
use crate::console::pace::{Left, Pace, rate};
use crate::console::{Console, Messages};
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// How often the progress bar moves.
const PROGRESS: Duration = Duration::from_millis(100);

/// What became of a message of the receiver with this number.
type Settled = (usize, MessageId, Option<PublishError>);

/// Counts and tells. It is filled by the connection's task through observers, and emptied by the
/// tasks that send: as each empties it before it sends the next message, what waits in it is
/// bounded by the publishers' windows.
pub(super) struct Report {
    console: Console,
    tell: mpsc::UnboundedSender<Settled>,
    settled: mpsc::UnboundedReceiver<Settled>,
    acknowledged: Arc<AtomicU64>,
    receivers: Vec<Told>,
    bytes: u64,
    /// The same command goes on under the same ids.
    resumes: bool,
    redraw: tokio::time::Interval,
    pace: Pace,
    /// How many bytes there are in all, if that is known.
    total: Option<u64>,
}

/// What is known of one receiver's messages.
struct Told {
    receiver: ClientId,
    sent: u64,
    /// How many empty lines were left out.
    empty: u64,
    /// How often each kind of failure came, and the first of its kind.
    failures: BTreeMap<&'static str, (u64, PublishError)>,
    must_stop: bool,
}

impl Report {
    /// A report about these receivers. `total` bytes are to be sent, all in all, if that is known.
    pub(super) fn new(
        console: Console,
        receivers: &[ClientId],
        total: Option<u64>,
        resumes: bool,
    ) -> Self {
        let (tell, settled) = mpsc::unbounded_channel();
        let bar = match total {
            Some(total) => {
                ProgressBar::new(total).with_style(style("{bar:30} {percent:>3}% {msg}"))
            }
            None => ProgressBar::new_spinner().with_style(style("{spinner} {msg}")),
        };
        let mut redraw = tokio::time::interval(PROGRESS);
        redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let told = |receiver: &ClientId| Told {
            receiver: receiver.clone(),
            sent: 0,
            empty: 0,
            failures: BTreeMap::new(),
            must_stop: false,
        };
        Self {
            console: console.with_bar(bar),
            tell,
            settled,
            acknowledged: Arc::new(AtomicU64::new(0)),
            receivers: receivers.iter().map(told).collect(),
            bytes: 0,
            resumes,
            redraw,
            pace: Pace::default(),
            total,
        }
    }

    /// What feeds the report with what becomes of a receiver's messages.
    pub(super) fn observer(&self, receiver: usize) -> impl Fn(Outcome<'_>) + Send + Sync + 'static {
        let (counter, tells) = (self.acknowledged.clone(), self.console.tells_messages());
        let tell = self.tell.clone();
        move |outcome: Outcome<'_>| {
            if outcome.result.is_ok() {
                counter.fetch_add(1, Ordering::Relaxed);
                if !tells {
                    return;
                }
            }
            let error = outcome.result.err().cloned();
            // Nobody listens any more only once everything is settled.
            let _ = tell.send((receiver, outcome.message_id.clone(), error));
        }
    }

    /// A message was sealed and handed over.
    pub(super) fn sent(&mut self, receiver: usize, message_id: &MessageId, payload: &[u8]) {
        let Some(told) = self.receivers.get_mut(receiver) else {
            return;
        };
        told.sent += 1;
        self.bytes += u64::try_from(payload.len() + 1).unwrap_or(u64::MAX);
        let receiver = &told.receiver;
        if self.console.tells_payloads() {
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

    /// Empty lines were left out.
    pub(super) fn empty_lines(&mut self, receiver: usize, count: u64) {
        if let Some(told) = self.receivers.get_mut(receiver) {
            told.empty += count;
            self.bytes += count;
        }
    }

    /// Tells what has become of messages, for as long as it is polled.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        while let Poll::Ready(Some(settled)) = self.settled.poll_recv(cx) {
            if let Err(failure) = self.tell(settled) {
                return Poll::Ready(failure);
            }
        }
        while self.redraw.poll_tick(cx).is_ready() {
            self.draw();
        }
        Poll::Pending
    }

    /// Tells what has become of messages.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the ids of what failed cannot be written.
    pub(super) fn drain(&mut self) -> Result<(), Failure> {
        while let Ok(settled) = self.settled.try_recv() {
            self.tell(settled)?;
        }
        Ok(())
    }

    /// Whether something came that would befall all further messages for this receiver.
    pub(super) fn must_stop(&self, receiver: usize) -> bool {
        self.receivers
            .get(receiver)
            .is_some_and(|told| told.must_stop)
    }

    fn tell(&mut self, (receiver, message_id, error): Settled) -> Result<(), Failure> {
        let names = self.receivers.len() > 1;
        let Some(told) = self.receivers.get_mut(receiver) else {
            return Ok(());
        };
        // With one receiver it goes without saying.
        let (whom, listed) = if names {
            (
                format!(" for {}", told.receiver),
                format!("{message_id} {}\n", told.receiver),
            )
        } else {
            (String::new(), format!("{message_id}\n"))
        };
        let Some(error) = error else {
            self.console.message(format_args!(
                "Server ACK received for message {message_id}{whom}"
            ));
            return Ok(());
        };
        self.console.message(format_args!(
            "Message {message_id}{whom} was not acknowledged: {error}"
        ));
        told.must_stop |= !is_about_one_message(error.kind());
        let entry = told
            .failures
            .entry(name(error.kind()))
            .or_insert((0, error));
        entry.0 += 1;
        stdout::print(listed)
    }

    fn draw(&mut self) {
        let bar = self.console.bar();
        if bar.is_hidden() {
            return;
        }
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        let sent: u64 = self.receivers.iter().map(|told| told.sent).sum();
        let per_second = self.pace.per_second(Instant::now(), acknowledged);
        // The bar is about bytes, as only they are known beforehand: those of an average message.
        let done = share(self.bytes, acknowledged, sent);
        let left = self.total.map_or(String::new(), |total| {
            let rest = total.saturating_sub(done);
            let rest = share(rest, sent, self.bytes.max(1));
            Left { rest, per_second }.to_string()
        });
        bar.set_position(done);
        bar.set_message(format!(
            "{}{acknowledged} acknowledged, {per_second:.0}/s{left}",
            self.whom()
        ));
    }

    /// For whom the messages are, where that does not go without saying.
    fn whom(&self) -> String {
        match self.receivers.as_slice() {
            [] | [_] => String::new(),
            few @ ([_, _] | [_, _, _]) => {
                let names: Vec<&str> = few.iter().map(|told| told.receiver.as_str()).collect();
                format!("to {}: ", names.join(", "))
            }
            many => format!("to {} receivers: ", many.len()),
        }
    }

    /// The summary line; where something went wrong, a line for each of several receivers before
    /// it.
    pub(super) fn summary(&self, endings: &[Ending], elapsed: Duration) {
        self.console.bar().finish_and_clear();
        let is_one = self.receivers.len() == 1;
        let counts = || endings.iter().map(|ending| ending.counts);
        if !is_one && endings.iter().any(Ending::is_short) {
            for (told, counts) in self.receivers.iter().zip(counts()) {
                self.console.say(format_args!(
                    "{}: {} sent, {} acknowledged, {} unacknowledged",
                    told.receiver, told.sent, counts.acknowledged, counts.unacknowledged
                ));
            }
        }
        let acknowledged: u64 = counts().map(|counts| counts.acknowledged).sum();
        let unacknowledged: u64 = counts().map(|counts| counts.unacknowledged).sum();
        let mut line = format!(
            "{} sent, {acknowledged} acknowledged, {unacknowledged} unacknowledged in {:.3} s \
             ({:.0}/s)",
            self.receivers.iter().map(|told| told.sent).sum::<u64>(),
            elapsed.as_secs_f64(),
            rate(acknowledged, elapsed),
        );
        if !is_one {
            line += &format!(", to {} receivers", self.receivers.len());
        }
        let empty = self.receivers.iter().map(|told| told.empty).max();
        if let Some(empty @ 1..) = empty {
            let lines = if empty == 1 { "line" } else { "lines" };
            line += &format!(", {empty} empty {lines} left out");
        }
        self.console.say(line);
    }

    /// Whether the same command goes on under the same ids.
    pub(super) fn can_resume(&self) -> bool {
        self.resumes
    }

    /// What to tell at the end when `count` messages for this receiver stayed unacknowledged.
    pub(super) fn failure(&self, receiver: usize, count: u64) -> Failure {
        let failures = self.receivers.get(receiver).map(|told| &told.failures);
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

/// Whether the next message may well fare better. If not, sending on would only make the list
/// longer.
fn is_about_one_message(kind: PublishErrorKind) -> bool {
    matches!(
        kind,
        PublishErrorKind::TooLarge
            | PublishErrorKind::IdInUse
            | PublishErrorKind::StorageRefused
            | PublishErrorKind::Sealing
    )
}

/// What to do about it here, where a message that is sent again gets another id, unless the command
/// `resumes`.
fn advice(error: &PublishError, resumes: bool) -> &str {
    match error.kind() {
        PublishErrorKind::TimedOut
        | PublishErrorKind::Disconnected
        | PublishErrorKind::Unavailable
            if resumes =>
        {
            "See that the server runs, and what its log says; then run the same command again: it \
             goes on under the same ids, and nothing arrives twice."
        }
        PublishErrorKind::TimedOut
        | PublishErrorKind::Disconnected
        | PublishErrorKind::Unavailable => {
            "See that the server runs, and what its log says; then send again what is listed. The \
             server may have taken some of it without being able to say so: that would arrive \
             twice."
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
