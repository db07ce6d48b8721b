//! Reports of missing messages: positions of a stream that have not arrived.

use std::time::Duration;

use ciphermq_client::Message;
use ciphermq_client::dedup::{Deduplication as _, GapWatch, Intervals, Recorder, StreamGaps};
use tokio::time::{Instant, MissedTickBehavior};

use crate::console::{Console, Count};

/// The interval of the checks for gaps. A gap is reported if two consecutive checks find it.
///
/// By default all tries of a publish take half as long, and messages that a receiver had when it
/// was killed are redelivered sooner.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The maximum number of position ranges in a warning.
const MAX_RANGES: usize = 10;

/// Checks for gaps while messages arrive, and once more at the end.
#[derive(Debug)]
pub(super) struct GapReporter {
    recorder: Recorder,
    watch: GapWatch,
    console: Console,
    /// Whether a gap at the beginning of a stream is reported. Without an output file earlier runs
    /// are unknown, and may have received it.
    reports_start: bool,
    ticks: tokio::time::Interval,
}

impl GapReporter {
    pub(super) fn new(recorder: Recorder, reports_start: bool, console: Console) -> Self {
        let mut ticks = tokio::time::interval_at(Instant::now() + CHECK_INTERVAL, CHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            recorder,
            watch: GapWatch::default(),
            console,
            reports_start,
            ticks,
        }
    }

    /// Watches the stream of a received message.
    pub(super) fn observe(&mut self, message: &Message) {
        if let Some(sender) = message.verified_sender() {
            self.watch.saw(sender, message.message_id());
        }
    }

    /// Waits until the next check is due. Cancel safe.
    pub(super) async fn due(&mut self) {
        self.ticks.tick().await;
    }

    /// Reports positions that have been missing for long enough, and reported ones that have
    /// arrived since.
    pub(super) fn check(&mut self) {
        let changes = self.watch.check(self.current());
        for gap in &changes.missing {
            self.warn(gap);
        }
        for gap in &changes.filled {
            self.console.info(format_args!(
                "{} of {}, reported as missing, {} arrived: {}",
                Count::messages(gap.missing.count()),
                gap.sender,
                has(&gap.missing),
                positions(gap)
            ));
        }
    }

    /// Reports all gaps in the watched streams. Returns the number of missing messages.
    pub(super) fn finish(&self) -> u64 {
        let gaps = self.watch.watched(self.current());
        for gap in &gaps {
            self.warn(gap);
        }
        gaps.iter()
            .fold(0, |sum: u64, gap| sum.saturating_add(gap.missing.count()))
    }

    fn current(&self) -> Vec<StreamGaps> {
        let mut gaps = self.recorder.gaps();
        if !self.reports_start {
            for gap in &mut gaps {
                gap.missing.forget_below(gap.missing_at_start());
            }
            gaps.retain(|gap| !gap.missing.is_empty());
        }
        gaps
    }

    fn warn(&self, gap: &StreamGaps) {
        let at_start = match gap.missing_at_start() {
            0 => String::new(),
            1 => ". The first one may have been sent before this output was begun".to_owned(),
            count => {
                format!(". The first {count} may have been sent before this output was begun")
            }
        };
        self.console.warn(format_args!(
            "{} of {} {} not arrived, though later ones have: {}{at_start}. If the sender reports \
             all as acknowledged, none was set aside, and no other receiver shares the queue, then \
             the server has lost or withheld them",
            Count::messages(gap.missing.count()),
            gap.sender,
            has(&gap.missing),
            positions(gap),
        ));
    }
}

fn has(positions: &Intervals) -> &'static str {
    match positions.count() {
        1 => "has",
        _ => "have",
    }
}

/// `positions 4, 7-8 of the stream 01a2...`
fn positions(gap: &StreamGaps) -> String {
    let mut ranges: Vec<String> = gap
        .missing
        .iter()
        .take(MAX_RANGES)
        .map(|(first, last)| match last - first {
            0 => first.to_string(),
            _ => format!("{first}-{last}"),
        })
        .collect();
    if gap.missing.iter().nth(MAX_RANGES).is_some() {
        ranges.push("...".to_owned());
    }
    let noun = match gap.missing.count() {
        1 => "position",
        _ => "positions",
    };
    format!("{noun} {} of the stream {}", ranges.join(", "), gap.stream)
}
